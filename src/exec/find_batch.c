/* The largest batch that fits into memory: doubling and bisection over plans without memory. */
#include "core/platform.h"
#include "passes/plan.h"

#include <stdio.h>
#include <string.h>

typedef struct ftr__batch_finder {
    ftr_context *context;
    ftr_batch_search search; /* defaults filled in */
    ftr_memory memory;       /* of the last plan; the smallest one that recomputation gives if it does not fit */
} ftr__batch_finder;

static ftr_status ftr__batch_defaults(ftr__batch_finder *f) {
    ftr_batch_search *s = &f->search;
    const ftr_status bad = FTR_ERROR_INVALID_ARGUMENT;
    if (!s->build) return ftr__error(f->context, bad, "find_batch: build is NULL");
    if (s->min < 0 || s->max < 0 || s->multiple < 0)
        return ftr__error(f->context, bad, "find_batch: %s is %lld, expected 0 or more",
                          s->min < 0   ? "min"
                          : s->max < 0 ? "max"
                                       : "multiple",
                          (long long)(s->min < 0   ? s->min
                                      : s->max < 0 ? s->max
                                                   : s->multiple));
    if (!s->min) s->min = 1;
    if (!s->max) s->max = (int64_t)1 << 20;
    if (!s->multiple) s->multiple = 1;
    if (s->max / s->multiple < (s->min - 1) / s->multiple + 1)
        return ftr__error(f->context, bad, "find_batch: no multiple of %lld lies between min %lld and max %lld",
                          (long long)s->multiple, (long long)s->min, (long long)s->max);
    if (s->memory) return FTR_OK;
    const size_t left = f->context->backend->host_memory ? ftr__free_memory() : 0;
    s->memory = left - left / 10;
    return left ? FTR_OK
                : ftr__error(f->context, FTR_ERROR_UNSUPPORTED,
                             "find_batch: memory is 0, and how much the %s backend has free is not known",
                             f->context->backend->name);
}

/* A failure of a batch's graph, with the batch in front. */
static ftr_status ftr__batch_error(const ftr__batch_finder *f, int64_t batch, ftr_status status, const char *text) {
    char sentence[FTR__MESSAGE_SIZE];
    snprintf(sentence, sizeof sentence, "%.440s", text && *text ? text : "build returned an error");
    return ftr__error(f->context, status, "find_batch: batch %lld: %s", (long long)batch, sentence);
}

static ftr_status ftr__batch_plan(ftr__batch_finder *f, int64_t batch, ftr_graph *graph, bool *fits) {
    ftr_compile_desc desc;
    memset(&desc, 0, sizeof desc);
    ftr_error_clear(f->context);
    ftr_status status = f->search.build(f->search.user, batch, graph, &desc);
    if (!status) status = graph->status;
    if (status) return ftr__batch_error(f, batch, status, graph->status ? graph->message : f->context->message);
    ftr_plan *plan;
    status = ftr__plan_within(graph, &desc, &plan, &f->memory, fits);
    ftr_plan_destroy(plan);
    if (status && *fits) return ftr__batch_error(f, batch, status, f->context->message);
    *fits = *fits && f->memory.total <= f->search.memory;
    return FTR_OK;
}

/* Whether the plan of number * multiple fits. */
static ftr_status ftr__batch_try(ftr__batch_finder *f, int64_t number, bool *fits) {
    ftr_graph *graph = ftr_graph_create(f->context);
    if (!graph) return f->context->status;
    const ftr_status status = ftr__batch_plan(f, number * f->search.multiple, graph, fits);
    ftr_graph_destroy(graph);
    return status;
}

static ftr_status ftr__batch_too_small(const ftr__batch_finder *f, int64_t batch) {
    const ftr_memory *m = &f->memory;
    return ftr__error(
        f->context, FTR_ERROR_OUT_OF_MEMORY,
        "find_batch: a batch of %lld needs %zu bytes, there are %zu: parameters %zu, gradients %zu, optimizer "
        "state %zu, activations %zu, workspace %zu, bookkeeping %zu",
        (long long)batch, m->total, f->search.memory, m->parameters, m->gradients, m->optimizer_state, m->activations,
        m->workspace, m->bookkeeping);
}

/* In multiples: `low` fits, `high` is the smallest number that is known not to, or beyond the largest. */
static ftr_status ftr__batch_search_between(ftr__batch_finder *f, int64_t low, int64_t high, ftr_memory *best,
                                            int64_t *found) {
    bool doubling = true;
    *best = f->memory;
    while (high - low > 1) {
        bool fits;
        const int64_t middle = doubling && low <= (high - 1) / 2 ? 2 * low : low + (high - low) / 2;
        const ftr_status status = ftr__batch_try(f, middle, &fits);
        if (status) return status;
        if (fits) *best = f->memory;
        *(fits ? &low : &high) = middle;
        doubling = doubling && fits;
    }
    *found = low;
    return FTR_OK;
}

ftr_status ftr_find_batch(ftr_context *context, const ftr_batch_search *search, int64_t *batch, ftr_memory *memory) {
    if (batch) *batch = 0;
    if (memory) memset(memory, 0, sizeof *memory);
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!search || !batch)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "find_batch: %s is NULL", search ? "batch" : "search");
    ftr__batch_finder f = {.context = context, .search = *search};
    ftr_status status = ftr__batch_defaults(&f);
    if (status) return status;
    const int64_t multiple = f.search.multiple, low = (f.search.min - 1) / multiple + 1;
    bool fits;
    status = ftr__batch_try(&f, low, &fits);
    if (status) return status;
    if (!fits) return ftr__batch_too_small(&f, low * multiple);
    ftr_memory best;
    int64_t found;
    status = ftr__batch_search_between(&f, low, f.search.max / multiple + 1, &best, &found);
    if (status) return status;
    ftr_error_clear(context); /* of batches that were too large */
    *batch = found * multiple;
    if (memory) *memory = best;
    return FTR_OK;
}
