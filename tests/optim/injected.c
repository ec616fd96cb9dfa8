#include "injected.h"

enum { FOUND_INF = 3, GRAD_SCALE = 2, MAX_IN = 512 };

/* A real backend and its copy. */
typedef struct wrapped {
    const ftr_backend *real;
    ftr_backend backend;
    ftr_kernel kernels[FTR_OP_COUNT];
} wrapped;

injected inject = {1, 0};

static ftr_status run(const wrapped *of, const ftr_kernel_call *call) {
    ftr_view in[MAX_IN];
    ftr_kernel_call changed = *call;
    assert_true(call->in_count < MAX_IN);
    memcpy(in, call->in, (size_t)call->in_count * sizeof *in);
    ftr_view found = {&inject.found_inf, FTR_F32, ftr_scalar_shape(), 1};
    ftr_view scale = {&inject.grad_scale, FTR_F32, ftr_scalar_shape(), 1};
    if (call->op == FTR_OP_count_update) {
        changed.in_count = 2;
        in[1] = found;
    } else if (call->op == FTR_OP_clip_scale) {
        in[0] = scale; /* it goes on to the update */
    } else {
        in[FOUND_INF] = found;
        in[GRAD_SCALE] = in[GRAD_SCALE].dtype == FTR_DTYPE_NONE ? scale : in[GRAD_SCALE];
    }
    changed.in = in;
    return of->real->kernels[call->op].run(&changed);
}

static wrapped cpu, other;
static ftr_status run_cpu(const ftr_kernel_call *call) { return run(&cpu, call); }
static ftr_status run_other(const ftr_kernel_call *call) { return run(&other, call); }

static bool is_optimizer(int op) {
    const char *name = ftr_op_name((ftr_op)op), *end = strstr(name, "_update");
    bool plain = op == FTR_OP_ema_update || op == FTR_OP_accumulate_update || op == FTR_OP_average_update ||
                 op == FTR_OP_swap_update || op == FTR_OP_scale_update;
    return op == FTR_OP_clip_scale || (end && end[7] == 0 && !plain);
}

const ftr_backend *injected_backend(const ftr_backend *real) {
    wrapped *of = real == ftr_cpu_backend() ? &cpu : &other;
    of->real = real;
    of->backend = *real;
    of->backend.kernels = of->kernels;
    for (int op = 0; op < FTR_OP_COUNT; op++) {
        of->kernels[op] = real->kernels[op];
        if (is_optimizer(op)) {
            of->kernels[op].run = of == &cpu ? run_cpu : run_other;
        }
    }
    return &of->backend;
}
