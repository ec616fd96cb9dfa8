#include "steps.h"

#include "optimizer_cases.h"
#include "schedule_cases.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A list of tensors to write. What it is given is copied. */
typedef struct results {
    ftr_safetensors_item items[512];
    int64_t count;
    bool full; /* or out of memory */
} results;

static void add(results *r, const char *name, ftr_dtype dtype, ftr_shape shape, const void *data) {
    const size_t bytes = (size_t)ftr_shape_count(&shape) * ftr_dtype_size(dtype);
    char *text = malloc(strlen(name) + 1);
    void *copy = malloc(bytes + 1);
    r->full = r->full || !text || !copy || r->count == (int64_t)(sizeof r->items / sizeof r->items[0]);
    if (r->full) {
        free(text);
        free(copy);
        return;
    }
    strcpy(text, name);
    memcpy(copy, data, bytes);
    r->items[r->count++] = (ftr_safetensors_item){.name = text, .dtype = dtype, .shape = shape, .data = copy};
}

static ftr_status write_results(ftr_context *context, results *r, const char *path, ftr_status status) {
    if (status == FTR_OK && r->full) status = FTR_ERROR_OUT_OF_MEMORY;
    if (status == FTR_OK) status = ftr_safetensors_write(context, path, r->items, r->count, NULL, 0);
    for (int64_t i = 0; i < r->count; i++) {
        free((void *)(uintptr_t)r->items[i].name);
        free((void *)(uintptr_t)r->items[i].data);
    }
    free(r);
    return status;
}

/* ---------------------------------------------------------------------------------------------------- optimizers -- */

enum { STEPS = 100, MOST = 512, PARAMETERS = OPTIMIZER_PARAMETERS };

/* Parameters whose gradients are what is fed: the loss is the sum of p * g. */
typedef struct model {
    ftr_graph *graph;
    ftr_plan *plan;
    ftr_tensor p[PARAMETERS], g[PARAMETERS];
} model;

static ftr_status make_model(ftr_context *context, const ftr_optimizer *optimizer, model *m) {
    m->graph = ftr_graph_create(context);
    if (!m->graph) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_tensor loss = {NULL, 0}, image = ftr_input(m->graph, "image", FTR_F32, FTR_SHAPE(1, 3, 3, 4));
    ftr_conv2d(image, "conv", 6, 3, &(ftr_conv2d_desc){.no_bias = true}); /* declares conv.weight as OHWI */
    for (int i = 0; i < PARAMETERS; i++) {
        const optimizer_parameter *of = &optimizer_parameters[i];
        char name[32];
        snprintf(name, sizeof name, "gradient of %s", of->name);
        m->g[i] = ftr_input(m->graph, name, FTR_F32, of->shape);
        m->p[i] = ftr_variable_find(m->graph, of->name);
        if (!ftr_is_valid(m->p[i])) m->p[i] = ftr_parameter(m->graph, of->name, FTR_F32, of->shape, (ftr_init){0});
        const ftr_tensor one = ftr_sum(ftr_mul(m->p[i], m->g[i]), ftr_all_axes(), false);
        loss = i > 0 ? ftr_add(loss, one) : one;
    }
    return ftr_compile(m->graph, &(ftr_compile_desc){.loss = loss, .optimizer = optimizer}, &m->plan);
}

/* Parameter number i's numbers of a step, times a factor. */
static size_t fill(int i, int step, float factor, float value[MOST]) {
    const int64_t count = ftr_shape_count(&optimizer_parameters[i].shape);
    for (int64_t k = 0; k < count; k++) value[k] = optimizer_number(i, step, k) * factor;
    return (size_t)count * sizeof *value;
}

static ftr_status run_optimizer(ftr_context *context, const optimizer_case *c, results *r) {
    const ftr_optimizer o = optimizer_of_case(c);
    model m = {.plan = NULL};
    float value[MOST];
    ftr_status status = make_model(context, &o, &m);
    for (int i = 0; i < PARAMETERS && status == FTR_OK; i++) {
        const size_t bytes = fill(i, 0, 0.5f, value);
        status = ftr_variable_write(m.p[i], value, bytes);
    }
    for (int s = 1; s <= STEPS && status == FTR_OK; s++) {
        float size = 1;
        for (int i = 0; i < PARAMETERS && status == FTR_OK; i++, size /= 4) {
            const size_t bytes = fill(i, s, size, value);
            status = ftr_feed(m.plan, m.g[i], value, bytes);
        }
        if (status == FTR_OK) status = ftr_step(m.plan, NULL);
    }
    for (int i = 0; i < PARAMETERS && status == FTR_OK; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s/%s", c->name, optimizer_parameters[i].name);
        status = ftr_variable_read(m.p[i], value, fill(i, 0, 0, value));
        add(r, name, FTR_F32, optimizer_parameters[i].shape, value);
    }
    ftr_plan_destroy(m.plan);
    ftr_graph_destroy(m.graph);
    return status;
}

ftr_status parity_optimizers(ftr_context *context, const char *path) {
    results *r = calloc(1, sizeof *r);
    if (!r) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_status status = FTR_OK;
    for (int i = 0; i < OPTIMIZER_CASES && status == FTR_OK; i++)
        if (!strstr(optimizer_cases[i].name, "skip")) status = run_optimizer(context, &optimizer_cases[i], r);
    return write_results(context, r, path, status);
}

/* ----------------------------------------------------------------------------------------------------- schedules -- */

static const double BASE = 0.3; /* as in make_optimizers.py */

static ftr_status run_schedules(ftr_context *context, const double *metric, results *r) {
    double rates[SCHEDULE_LENGTH];
    ftr_status status = FTR_OK;
    for (int i = 0; i < SCHEDULE_CASES && status == FTR_OK; i++) {
        const ftr_schedule s = schedule_cases[i].make();
        status = ftr_schedule_check(context, &s);
        for (int t = 0; t < SCHEDULE_LENGTH; t++) rates[t] = ftr_schedule_lr(&s, BASE, t);
        add(r, schedule_cases[i].name, FTR_F64, FTR_SHAPE(SCHEDULE_LENGTH), rates);
    }
    for (int i = 0; i < PLATEAU_CASES && status == FTR_OK; i++) {
        ftr_plateau p = plateau_cases[i].make();
        double lr = BASE;
        status = ftr_plateau_check(context, &p);
        for (int t = 0; t < SCHEDULE_LENGTH; t++) rates[t] = lr = ftr_plateau_step(&p, lr, metric[t]);
        add(r, plateau_cases[i].name, FTR_F64, FTR_SHAPE(SCHEDULE_LENGTH), rates);
    }
    return status;
}

ftr_status parity_schedules(ftr_context *context, const char *input, const char *path) {
    ftr_safetensors *file = NULL;
    ftr_safetensors_entry entry;
    double metric[SCHEDULE_LENGTH];
    ftr_status status = ftr_safetensors_open(context, input, &file);
    if (status != FTR_OK) return status;
    if (!ftr_safetensors_find(file, "metric", &entry) || entry.bytes != sizeof metric) status = FTR_ERROR_NAME;
    if (status == FTR_OK) memcpy(metric, entry.data, sizeof metric);
    ftr_safetensors_close(file);
    results *r = calloc(1, sizeof *r);
    if (!r) return FTR_ERROR_OUT_OF_MEMORY;
    if (status == FTR_OK) status = run_schedules(context, metric, r);
    return write_results(context, r, path, status);
}

/* -------------------------------------------------------------------------------------------------- loss scaling -- */

enum { SCALER_RUNS = 20, SCALER_STEPS = 24 };

/* SGD with momentum on the loss sum(p x): gradients x, infinite in step `bad`; as scaler_run() of
 * tests/amp/make_goldens.py. */
static ftr_status run_scaler(ftr_context *context, int bad, results *r) {
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor p = ftr_parameter(graph, "p", FTR_F32, FTR_SHAPE(3), (ftr_init){0});
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(3));
    ftr_optimizer sgd = ftr_sgd(0.125);
    sgd.momentum = 0.5;
    ftr_scaler_desc scaler = ftr_scaler_defaults();
    scaler.scaling = FTR_SCALING_DYNAMIC;
    scaler.growth_interval = 5;
    const ftr_compile_desc desc = {
        .loss = ftr_sum(ftr_mul(p, x), ftr_all_axes(), false), .optimizer = &sgd, .scaler = &scaler};
    ftr_plan *plan = NULL;
    float scales[SCALER_STEPS], after[SCALER_STEPS][3];
    uint8_t skipped[SCALER_STEPS];
    ftr_status status = ftr_compile(graph, &desc, &plan);
    if (status == FTR_OK) status = ftr_variable_write(p, (const float[]){0.5f, -1.5f, 2.0f}, 3 * sizeof(float));
    for (int s = 0; s < SCALER_STEPS && status == FTR_OK; s++) {
        const float value[3] = {0.25f * (float)(s % 5) - 0.5f, 1.0f, s == bad ? (float)INFINITY : -0.75f};
        ftr_step_info info = {.skipped = false};
        status = ftr_feed(plan, x, value, sizeof value);
        if (status == FTR_OK) status = ftr_step(plan, &info);
        if (status == FTR_OK) status = ftr_variable_read(p, after[s], sizeof after[s]);
        scales[s] = (float)info.loss_scale;
        skipped[s] = info.skipped;
    }
    const struct {
        const char *what;
        ftr_dtype dtype;
        ftr_shape shape;
        const void *data;
    } list[] = {{"scales", FTR_F32, FTR_SHAPE(SCALER_STEPS), scales},
                {"skipped", FTR_U8, FTR_SHAPE(SCALER_STEPS), skipped},
                {"parameters", FTR_F32, FTR_SHAPE(SCALER_STEPS, 3), after}};
    for (int i = 0; i < 3 && status == FTR_OK; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d/%s", bad, list[i].what);
        add(r, name, list[i].dtype, list[i].shape, list[i].data);
    }
    ftr_plan_destroy(plan);
    ftr_graph_destroy(graph);
    return status;
}

ftr_status parity_scaler(ftr_context *context, const char *path) {
    results *r = calloc(1, sizeof *r);
    if (!r) return FTR_ERROR_OUT_OF_MEMORY;
    ftr_status status = FTR_OK;
    for (int k = 0; k < SCALER_RUNS && status == FTR_OK; k++) status = run_scaler(context, k, r);
    return write_results(context, r, path, status);
}
