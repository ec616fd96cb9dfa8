/* Matching and writing of batches. */
#include "train/feed.h"

#include <string.h>

/* Marks the values that `roots` depend on. Nodes refer to earlier nodes only, so one pass from the last to the first
 * does. */
static void ftr__feed_mark(const ftr_graph *graph, const ftr_tensor *roots, int32_t root_count, bool *used) {
    for (int32_t i = 0; i < root_count; i++) used[roots[i].id] = true;
    for (int32_t n = graph->node_count - 1; n >= 0; n--) {
        const ftr__node *node = &graph->nodes[n];
        bool needed = false;
        for (int32_t i = 0; i < node->out_count; i++) needed = needed || used[node->first_out + i];
        for (int32_t i = 0; needed && i < node->in_count; i++) used[node->in[i]] = true;
    }
}

static ftr_status ftr__feed_check_field(const ftr__feed *feed, const char *name, const ftr__value *value,
                                        const ftr__source_field *field) {
    const char *source = feed->source->name;
    if (value->dtype != field->dtype)
        return ftr__error(feed->context, FTR_ERROR_DTYPE, "%s: input '%s' is %s, source '%s' gives %s", feed->caller,
                          name, ftr_dtype_name(value->dtype), source, ftr_dtype_name(field->dtype));
    ftr_shape sample = {.rank = value->shape.rank - 1};
    for (int32_t i = 0; i < sample.rank; i++) sample.dim[i] = value->shape.dim[i + 1];
    char found[FTR__SHAPE_TEXT], expected[FTR__SHAPE_TEXT];
    if (!ftr_shape_equal(&sample, &field->shape))
        return ftr__error(feed->context, FTR_ERROR_SHAPE,
                          "%s: input '%s' takes samples of shape %s, source '%s' gives %s", feed->caller, name,
                          ftr__shape_text(&sample, expected), source, ftr__shape_text(&field->shape, found));
    return FTR_OK;
}

static ftr_status ftr__feed_check_batch(ftr__feed *feed, const char *name, const ftr__value *value) {
    if (value->shape.rank < 1)
        return ftr__error(feed->context, FTR_ERROR_RANK,
                          "%s: input '%s' is a scalar, expected a batch as its first dimension", feed->caller, name);
    int64_t batch = value->shape.dim[0];
    if (batch < 1)
        return ftr__error(feed->context, FTR_ERROR_SHAPE, "%s: input '%s' has a batch of %lld, expected 1 or more",
                          feed->caller, name, (long long)batch);
    if (feed->batch == 0) feed->batch = batch;
    if (batch != feed->batch)
        return ftr__error(feed->context, FTR_ERROR_SHAPE,
                          "%s: input '%s' has a batch of %lld, an earlier input has %lld", feed->caller, name,
                          (long long)batch, (long long)feed->batch);
    return FTR_OK;
}

static ftr_status ftr__feed_add(ftr__feed *feed, ftr_graph *graph, const ftr__node *node) {
    const ftr__value *value = &graph->values[node->first_out];
    ftr_status status = ftr__feed_check_batch(feed, node->name, value);
    if (status != FTR_OK) return status;
    bool is_mask = node->first_out == graph->batch_mask;
    int32_t field = is_mask ? -1 : ftr__source_find(feed->source, node->name);
    if (!is_mask && field < 0)
        return ftr__error(feed->context, FTR_ERROR_NAME, "%s: input '%s' has no field of this name in source '%s'",
                          feed->caller, node->name, feed->source->name);
    if (!is_mask) status = ftr__feed_check_field(feed, node->name, value, &feed->source->fields[field]);
    if (status != FTR_OK) return status;
    ftr__feed_input *input = &feed->inputs[feed->input_count++];
    input->tensor = (ftr_tensor){graph, node->first_out};
    input->field = field;
    input->sample_bytes = is_mask ? (int64_t)sizeof(float) : feed->source->fields[field].bytes;
    if (is_mask) feed->mask = input;
    return FTR_OK;
}

ftr_status ftr__feed_match(ftr__feed *feed, const char *caller, ftr_graph *graph, const ftr_source *source,
                           const ftr_tensor *roots, int32_t root_count) {
    memset(feed, 0, sizeof *feed);
    feed->context = graph->context;
    feed->caller = caller;
    feed->source = source;
    if (source->context != graph->context)
        return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: source '%s' belongs to another context",
                          caller, source->name);
    size_t bytes = (size_t)graph->value_count * sizeof(bool);
    bool *used = ftr__allocate(graph->context, bytes);
    if (!used) return ftr__out_of_memory(graph->context, caller, bytes);
    memset(used, 0, bytes);
    ftr__feed_mark(graph, roots, root_count, used);
    ftr_status status = FTR_OK;
    for (int32_t n = 0; n < graph->node_count && status == FTR_OK; n++) {
        const ftr__node *node = &graph->nodes[n];
        if (node->op == FTR_OP_input && used[node->first_out]) status = ftr__feed_add(feed, graph, node);
    }
    ftr__release(graph->context, used, bytes);
    if (status == FTR_OK && feed->batch == 0)
        status = ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "%s: the loss depends on no input", caller);
    return status;
}

/* Inputs whose memory the host cannot write, and fields that no input takes, get a part of one staging buffer. */
static size_t ftr__feed_place(ftr__feed *feed, unsigned char *staging) {
    size_t used = 0;
    for (int32_t i = 0; i < feed->input_count; i++) {
        ftr__feed_input *input = &feed->inputs[i];
        if (!input->staged) continue;
        if (staging) input->memory = staging + used;
        size_t bytes = (size_t)(input->sample_bytes * feed->batch);
        used += (bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
    }
    for (int32_t f = 0; f < feed->source->field_count; f++) {
        feed->stride[f] = 0;
        for (int32_t i = 0; i < feed->input_count; i++)
            if (feed->inputs[i].field == f) {
                feed->target[f] = feed->inputs[i].memory;
                feed->stride[f] = feed->source->fields[f].bytes;
            }
        if (feed->stride[f] != 0) continue;
        if (staging) feed->target[f] = staging + used;
        used += ((size_t)feed->source->fields[f].bytes + FTR__ALIGNMENT - 1) / FTR__ALIGNMENT * FTR__ALIGNMENT;
    }
    return used;
}

ftr_status ftr__feed_bind(ftr__feed *feed, ftr_plan *plan) {
    feed->plan = plan;
    bool host = feed->context->backend->host_memory;
    for (int32_t i = 0; i < feed->input_count; i++) {
        ftr__feed_input *input = &feed->inputs[i];
        input->memory = host ? ftr_input_memory(plan, input->tensor) : NULL;
        input->staged = !input->memory;
    }
    if (host) ftr_error_clear(feed->context); /* an input that the plan does not use is no failure here */
    feed->staging_bytes = ftr__feed_place(feed, NULL);
    if (feed->staging_bytes == 0) return FTR_OK;
    feed->staging = ftr__allocate(feed->context, feed->staging_bytes);
    if (!feed->staging) return ftr__out_of_memory(feed->context, feed->caller, feed->staging_bytes);
    ftr__feed_place(feed, feed->staging);
    return FTR_OK;
}

static void ftr__feed_pad(ftr__feed *feed, int64_t real) {
    for (int32_t i = 0; i < feed->input_count; i++) {
        const ftr__feed_input *input = &feed->inputs[i];
        if (input == feed->mask || real == feed->batch) continue;
        memset(input->memory + real * input->sample_bytes, 0, (size_t)((feed->batch - real) * input->sample_bytes));
    }
    if (!feed->mask) return;
    float *mask = (float *)(void *)feed->mask->memory;
    for (int64_t i = 0; i < feed->batch; i++) mask[i] = i < real ? 1.0f : 0.0f;
}

ftr_status ftr__feed_batch(ftr__feed *feed, const ftr__feed_order *order, int64_t first, int64_t real) {
    void *fields[FTR_MAX_FIELDS];
    int64_t count = feed->source->count;
    for (int64_t i = 0; i < real; i++) {
        for (int32_t f = 0; f < feed->source->field_count; f++) fields[f] = feed->target[f] + i * feed->stride[f];
        int64_t index = order ? ftr_shuffled_index(order->seed, order->epoch, first + i, count) : first + i;
        ftr_status status = ftr__source_read(feed->source, index, fields);
        if (status != FTR_OK) return status;
    }
    ftr__feed_pad(feed, real);
    for (int32_t i = 0; i < feed->input_count; i++) {
        const ftr__feed_input *input = &feed->inputs[i];
        if (!input->staged) continue;
        ftr_status status =
            ftr_feed(feed->plan, input->tensor, input->memory, (size_t)(input->sample_bytes * feed->batch));
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

void ftr__feed_free(ftr__feed *feed) {
    if (!feed->staging) return;
    ftr__release(feed->context, feed->staging, feed->staging_bytes);
    feed->staging = NULL;
    feed->staging_bytes = 0;
}
