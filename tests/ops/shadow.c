#include "shadow.h"

#include "oracle_tools.h"
#include "tested.h"

/* As in test_ops.c. */
static const double TOLERANCE = 1e-5;
static const double FLOOR = 0.25;

static bool relative_to_each;
static int64_t compared;

static size_t bytes_of(const ftr_view *v) { return (size_t)v->count * ftr_dtype_size(v->dtype); }

/* A copy in the host's memory; as it will be, if it is taken before the kernel runs. */
static ftr_view copy_view(const ftr_kernel_call *call, const ftr_view *v) {
    ftr_view copy = *v;
    if (v->dtype != FTR_DTYPE_NONE) {
        copy.data = malloc(bytes_of(v) + 8);
        if (v->data && bytes_of(v)) { /* an empty one has none */
            tested_backend()->download(call->context, call->backend, copy.data, v->data, bytes_of(v));
        }
    }
    return copy;
}


/* Distance of a number of a half type to the next one. */
static double half_step(ftr_dtype dtype, double x) {
    int exponent;
    frexp(x, &exponent);
    exponent = x == 0 || exponent - 1 < 1 - half_bias(dtype) ? 1 - half_bias(dtype) : exponent - 1;
    return ldexp(1, exponent - half_fraction(dtype));
}

static double largest_half(ftr_dtype dtype) { return ldexp(2 - ldexp(1, -half_fraction(dtype)), half_bias(dtype)); }

/* `scale`: of the tensor, or of what was added up to it. */
static bool agree(ftr_dtype dtype, double found, double expected, double scale) {
    if (isnan(found) || isnan(expected)) {
        return isnan(found) && isnan(expected);
    }
    if (found == expected) {
        return true;
    }
    double tolerance = TOLERANCE * (relative_to_each ? fabs(expected) : scale) + 1.5e-45;
    if (is_half(dtype)) { /* the step behind the largest number leads to infinity */
        double largest = largest_half(dtype);
        found = isinf(found) ? copysign(largest + half_step(dtype, largest), found) : found;
        expected = isinf(expected) ? copysign(largest + half_step(dtype, largest), expected) : expected;
        return fabs(found - expected) <= half_step(dtype, expected) + tolerance;
    }
    return !isinf(found) && !isinf(expected) && fabs(found - expected) <= tolerance;
}

static double largest_of(const ftr_view *v) {
    double largest = 0;
    for (int64_t i = 0; i < v->count; i++) {
        double size = fabs(get(v, i));
        largest = isfinite(size) && size > largest ? size : largest;
    }
    return largest;
}

/* The largest element, or the largest term of what is added up: one input of a sum, or all if there is one sum; of
 * attention's gradients dy times value. */
static double scale_of(const ftr_kernel_call *call, const ftr_view *expected) {
    double scale = fmax(FLOOR, largest_of(expected)), sum = 0;
    if (call->op == FTR_OP_attention_grad) {
        return fmax(scale, largest_of(&call->in[0]) * largest_of(&call->in[3]));
    }
    for (int64_t i = 0; call->op == FTR_OP_sum && expected->count == 1 && i < call->in[0].count; i++) {
        sum += fabs(get(&call->in[0], i));
    }
    return fmax(scale, isfinite(sum) && sum > 0 ? sum : call->op == FTR_OP_sum ? largest_of(&call->in[0]) : 0);
}

static ftr_status compare_view(const ftr_kernel_call *call, const char *what, int32_t index, const ftr_view *found,
                               const ftr_view *expected) {
    bool real = is_float(found->dtype);
    double scale = real ? scale_of(call, expected) : 0;
    for (int64_t i = 0; i < found->count; i++) {
        double f = get(found, i), e = get(expected, i);
        if (real ? agree(found->dtype, f, e, scale) : get_int(found, i) == get_int(expected, i)) {
            continue;
        }
        return ftr_backend_error(call, FTR_ERROR_CALLBACK,
                                 "%s %d, %s [%lld of %lld]: %.9g, the oracle has %.9g (scale %.3g)", what, (int)index,
                                 ftr_dtype_name(found->dtype), (long long)i, (long long)found->count, f, e, scale);
    }
    return FTR_OK;
}

/* `found` is the backend's memory. */
static ftr_status compare_with_copy(const ftr_kernel_call *call, const char *what, int32_t index, const ftr_view *found,
                                    const ftr_view *expected) {
    if (tested_backend()->host_memory) {
        return compare_view(call, what, index, found, expected);
    }
    ftr_view copy = copy_view(call, found);
    ftr_status status = compare_view(call, what, index, &copy, expected);
    free(copy.data);
    return status;
}

static bool overlaps(const ftr_kernel_call *call, const ftr_view *in) {
    const char *a = in->data;
    for (int32_t k = 0; k < call->out_count; k++) {
        const char *b = call->out[k].data;
        if (a && b && a < b + bytes_of(&call->out[k]) && b < a + bytes_of(in)) {
            return true;
        }
    }
    return false;
}

static bool has_half(const ftr_kernel_call *call) {
    bool half = false;
    for (int32_t i = 0; i < call->in_count; i++) {
        half = half || is_half(call->in[i].dtype);
    }
    for (int32_t k = 0; k < call->out_count; k++) {
        half = half || is_half(call->out[k].dtype);
    }
    return half;
}

static ftr_status shadow_run(const ftr_kernel_call *call) {
    ftr_kernel_call twin = *call;
    ftr_view *in = calloc((size_t)call->in_count + 1, sizeof *in);
    ftr_view *out = calloc((size_t)call->out_count + 1, sizeof *out);
    for (int32_t i = 0; i < call->in_count; i++) {
        in[i] = copy_view(call, &call->in[i]);
    }
    for (int32_t k = 0; k < call->out_count; k++) {
        out[k] = call->out[k];
        out[k].data = calloc(1, bytes_of(&out[k]) + 8);
    }
    twin.in = in;
    twin.out = out;
    const ftr_kernel *oracle = &ftr_test_oracle_backend()->kernels[call->op];
    twin.workspace = calloc(1, (oracle->workspace ? oracle->workspace(&twin) : 0) + 8);
    ftr_status status = tested_backend()->kernels[call->op].run(call);
    ftr_status expected = oracle->run(&twin);
    if (status == FTR_OK && expected != FTR_OK) {
        status = ftr_backend_error(call, FTR_ERROR_CALLBACK, "the oracle fails, the backend does not");
    }
    for (int32_t k = 0; k < call->out_count && status == FTR_OK; k++) {
        status = compare_with_copy(call, "result", k, &call->out[k], &out[k]);
    }
    for (int32_t i = 0; i < call->in_count && status == FTR_OK; i++) { /* updates change some of theirs */
        if (in[i].data && !overlaps(call, &call->in[i])) {
            status = compare_with_copy(call, "input", i, &call->in[i], &in[i]);
        }
    }
    compared += has_half(call);
    for (int32_t i = 0; i < call->in_count; i++) {
        free(in[i].data);
    }
    for (int32_t k = 0; k < call->out_count; k++) {
        free(out[k].data);
    }
    free(twin.workspace);
    free(in);
    free(out);
    return status;
}

static ftr_status shadow_check(const ftr_kernel_call *call) {
    const ftr_kernel *kernel = &tested_backend()->kernels[call->op];
    return kernel->check ? kernel->check(call) : FTR_OK;
}

static size_t shadow_workspace(const ftr_kernel_call *call) {
    const ftr_kernel *kernel = &tested_backend()->kernels[call->op];
    return kernel->workspace ? kernel->workspace(call) : 0;
}

/* What runs node by node can be looked at behind each. */
static ftr_status shadow_begin_step(ftr_context *context, void *state, const ftr_plan *plan, int32_t variant, uint64_t step,
                                    bool node_by_node, bool *replay) {
    (void)node_by_node;
    return tested_backend()->begin_step(context, state, plan, variant, step, true, replay);
}

const ftr_backend *op_shadow_backend(bool each) {
    static ftr_kernel kernels[FTR_OP_COUNT];
    static ftr_backend backend;
    for (int32_t op = FTR_OP_NONE + 1; op < FTR_OP_COUNT; op++) {
        if (tested_backend()->kernels[op].run && ftr_test_oracle_backend()->kernels[op].run) {
            kernels[op] = (ftr_kernel){.run = shadow_run, .check = shadow_check, .workspace = shadow_workspace};
        }
    }
    backend = *tested_backend();
    backend.name = "shadow";
    backend.begin_step = backend.begin_step ? shadow_begin_step : NULL;
    backend.kernels = kernels;
    relative_to_each = each;
    return &backend;
}

int64_t op_shadow_count(void) { return compared; }
