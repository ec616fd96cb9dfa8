/* The CPU backend's insides: state, the SIMD tables, and the kernels by family. */
#ifndef FTR_BACKEND_CPU_CPU_H
#define FTR_BACKEND_CPU_CPU_H

#include "backend/cpu/simd.h"
#include "backend/cpu/simd_bf16.h"
#include "core/platform.h"
#include "core/threads.h"
#include "tensor/tensor.h"

/* Of Winograd's form of convolutions, by FASTTRAIN_WINOGRAD. */
typedef enum ftr__winograd_choice {
    FTR__WINOGRAD_AUTO = 0, /* where it pays */
    FTR__WINOGRAD_ON,       /* wherever it can be used, for tests */
    FTR__WINOGRAD_OFF
} ftr__winograd_choice;

typedef struct ftr__cpu {
    ftr__pool *pool;
    const ftr__simd *simd;
    ftr__simd_level level;
    ftr__winograd_choice winograd;
    const ftr__simd_bf16 *bf16; /* NULL: products of bf16 are computed in f32 */
    ftr__simd_gemm bf16_gemm;   /* simd->gemm with the tiles of `bf16` */
} ftr__cpu;

static inline const ftr__cpu *ftr__cpu_of(const ftr_kernel_call *call) { return (const ftr__cpu *)call->backend; }

/* Input `index`; NULL if it is missing. */
static inline const ftr_view *ftr__optional_input(const ftr_kernel_call *call, int32_t index) {
    return index < call->in_count && call->in[index].dtype != FTR_DTYPE_NONE ? &call->in[index] : NULL;
}

/* half.c: kernels on f16 and bf16. A call with such tensors has at most this many inputs and outputs. */
#define FTR__CPU_HALF_VIEWS 32

/* Place of a half type in the tables of ftr__simd_math. */
static inline int32_t ftr__half_index(ftr_dtype dtype) { return dtype == FTR_BF16; }

/* Runs an f32 kernel on a call that has f16 or bf16 tensors; `workspace` is the f32 kernel's (NULL: none). */
FTR_LIB ftr_status ftr__cpu_half_run(const ftr_kernel_call *call, ftr_status (*run)(const ftr_kernel_call *call));
FTR_LIB size_t ftr__cpu_half_workspace(const ftr_kernel_call *call, size_t (*workspace)(const ftr_kernel_call *call));

/* Ops whose kernels take f16 and bf16 themselves: those that move elements, pointwise ones, and steps of optimizers, whose
 * states may be bf16. */
#define FTR__CPU_HALF_KERNELS(X)                                                                                       \
    X(cast) X(stop_gradient) X(reshape) X(expand) X(transpose) X(concat) X(slice) X(slice_grad) X(pad)           \
    X(sgd_update) X(adamw_update) X(adam_update) X(rmsprop_update) X(adagrad_update) X(lamb_update)              \
    X(lars_update) X(lion_update) X(muon_update)                                                                       \
    X(add) X(sub) X(mul) X(div) X(pow) X(maximum) X(minimum) X(eq) X(ne) X(lt) X(le) X(gt) X(ge) X(where)              \
    X(neg) X(exp) X(log) X(sqrt) X(rsqrt) X(tanh) X(sigmoid) X(relu) X(abs) X(sign) X(sin) X(cos) X(floor) X(round)    \
    X(erf) X(clamp) X(gelu) X(silu) X(hardswish) X(hardsigmoid) X(leaky_relu) X(elu) X(softplus)                       \
    X(clamp_grad) X(gelu_grad) X(silu_grad) X(hardswish_grad) X(leaky_relu_grad) X(elu_grad) X(softplus_grad)          \
    X(tanh_grad) X(sigmoid_grad) X(relu_grad)

/* Whether a kernel takes this call's bf16 tensors as they are (matmul.c, conv.c). */
FTR_LIB bool ftr__cpu_matmul_takes_bf16(const ftr_kernel_call *call);
FTR_LIB bool ftr__cpu_conv2d_takes_bf16(const ftr_kernel_call *call);

/* Which function runs an op and which sizes its workspace (0: none): X(op, run, workspace). An op that is missing here is not supported. */
#define FTR__CPU_KERNELS(X)                                                                                      \
    /* pointwise.c */                                                                                            \
    X(add, ftr__cpu_binary, 0)                                                                          \
    X(sub, ftr__cpu_binary, 0)                                                                          \
    X(mul, ftr__cpu_binary, 0)                                                                          \
    X(div, ftr__cpu_binary, 0)                                                                          \
    X(pow, ftr__cpu_binary, 0)                                                                          \
    X(maximum, ftr__cpu_binary, 0)                                                                      \
    X(eq, ftr__cpu_compare, 0)                                                                          \
    X(ne, ftr__cpu_compare, 0)                                                                          \
    X(lt, ftr__cpu_compare, 0)                                                                          \
    X(le, ftr__cpu_compare, 0)                                                                          \
    X(gt, ftr__cpu_compare, 0)                                                                          \
    X(ge, ftr__cpu_compare, 0)                                                                          \
    X(where, ftr__cpu_where, 0)                                                                         \
    X(neg, ftr__cpu_unary, 0)                                                                           \
    X(exp, ftr__cpu_unary, 0)                                                                           \
    X(log, ftr__cpu_unary, 0)                                                                           \
    X(sqrt, ftr__cpu_unary, 0)                                                                          \
    X(rsqrt, ftr__cpu_unary, 0)                                                                         \
    X(tanh, ftr__cpu_unary, 0)                                                                          \
    X(sigmoid, ftr__cpu_unary, 0)                                                                       \
    X(relu, ftr__cpu_unary, 0)                                                                          \
    X(minimum, ftr__cpu_binary, 0)                                                                      \
    X(abs, ftr__cpu_plain, 0)                                                                           \
    X(sign, ftr__cpu_plain, 0)                                                                          \
    X(sin, ftr__cpu_plain, 0)                                                                           \
    X(cos, ftr__cpu_plain, 0)                                                                           \
    X(floor, ftr__cpu_plain, 0)                                                                         \
    X(round, ftr__cpu_plain, 0)                                                                         \
    X(erf, ftr__cpu_activation, 0)                                                                      \
    X(clamp, ftr__cpu_activation, 0)                                                                    \
    X(gelu, ftr__cpu_activation, 0)                                                                     \
    X(silu, ftr__cpu_activation, 0)                                                                     \
    X(hardswish, ftr__cpu_activation, 0)                                                                \
    X(hardsigmoid, ftr__cpu_activation, 0)                                                              \
    X(leaky_relu, ftr__cpu_activation, 0)                                                               \
    X(elu, ftr__cpu_activation, 0)                                                                      \
    X(softplus, ftr__cpu_activation, 0)                                                                 \
    X(clamp_grad, ftr__cpu_activation_slope, 0)                                                         \
    X(gelu_grad, ftr__cpu_activation_slope, 0)                                                          \
    X(silu_grad, ftr__cpu_activation_slope, 0)                                                          \
    X(hardswish_grad, ftr__cpu_activation_slope, 0)                                                     \
    X(leaky_relu_grad, ftr__cpu_activation_slope, 0)                                                    \
    X(elu_grad, ftr__cpu_activation_slope, 0)                                                           \
    X(softplus_grad, ftr__cpu_activation_slope, 0)                                                      \
    X(stop_gradient, ftr__cpu_reshape, 0)                                                               \
    X(cast, ftr__cpu_cast, 0)                                                                           \
    X(tanh_grad, ftr__cpu_activation_grad, 0)                                                           \
    X(sigmoid_grad, ftr__cpu_activation_grad, 0)                                                        \
    X(relu_grad, ftr__cpu_activation_grad, 0)                                                           \
    /* reduce.c */                                                                                               \
    X(sum, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                  \
    X(mean, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                 \
    X(max, ftr__cpu_reduce, ftr__cpu_reduce_workspace)                                                  \
    X(argmax, ftr__cpu_argmax, 0)                                                                       \
    /* matmul.c */                                                                                               \
    X(matmul, ftr__cpu_matmul, ftr__cpu_matmul_workspace)                                               \
    X(linear, ftr__cpu_linear, ftr__cpu_linear_workspace)                                               \
    /* conv.c */                                                                                                 \
    X(conv2d, ftr__cpu_conv2d, ftr__cpu_conv2d_workspace)                                               \
    X(conv2d_grad_input, ftr__cpu_conv2d_grad_input, ftr__cpu_conv2d_grad_input_workspace)              \
    X(conv2d_grad_weight, ftr__cpu_conv2d_grad_weight, ftr__cpu_conv2d_grad_weight_workspace)           \
    /* norm.c */                                                                                                 \
    X(batch_norm, ftr__cpu_batch_norm, ftr__cpu_batch_norm_workspace)                                   \
    X(batch_norm_grad, ftr__cpu_batch_norm_grad, ftr__cpu_batch_norm_grad_workspace)                    \
    /* row_norm.c */                                                                                             \
    X(layer_norm, ftr__cpu_row_norm, 0)                                                                 \
    X(layer_norm_grad, ftr__cpu_row_norm_grad, ftr__cpu_row_norm_grad_workspace)                        \
    X(rms_norm, ftr__cpu_row_norm, 0)                                                                   \
    X(rms_norm_grad, ftr__cpu_row_norm_grad, ftr__cpu_row_norm_grad_workspace)                          \
    X(group_norm, ftr__cpu_group_norm, ftr__cpu_group_norm_workspace)                                   \
    X(group_norm_grad, ftr__cpu_group_norm_grad, ftr__cpu_group_norm_grad_workspace)                    \
    /* pool.c */                                                                                                 \
    X(max_pool2d, ftr__cpu_max_pool2d, 0)                                                               \
    X(max_pool2d_grad, ftr__cpu_max_pool2d_grad, 0)                                                     \
    X(avg_pool2d, ftr__cpu_avg_pool2d, 0)                                                               \
    X(avg_pool2d_grad, ftr__cpu_avg_pool2d_grad, 0)                                                     \
    X(adaptive_avg_pool2d, ftr__cpu_adaptive_avg_pool2d, 0)                                             \
    X(adaptive_avg_pool2d_grad, ftr__cpu_adaptive_avg_pool2d_grad, 0)                                   \
    /* resize.c */                                                                                      \
    X(resize2d, ftr__cpu_resize2d, ftr__cpu_resize2d_workspace)                                         \
    X(resize2d_grad, ftr__cpu_resize2d_grad, ftr__cpu_resize2d_workspace)                               \
    /* random.c */                                                                                               \
    X(dropout, ftr__cpu_dropout, 0)                                                                     \
    X(stochastic_depth, ftr__cpu_stochastic_depth, 0)                                                   \
    X(random_uniform, ftr__cpu_random, 0)                                                               \
    X(random_normal, ftr__cpu_random, 0)                                                                \
    /* mix.c */                                                                                                  \
    X(mix_draw, ftr__cpu_mix_draw, 0)                                                                   \
    X(mix, ftr__cpu_mix, 0)                                                                             \
    X(mix_grad, ftr__cpu_mix_grad, ftr__cpu_mix_grad_workspace)                                         \
    /* attention.c */                                                                                            \
    X(attention, ftr__cpu_attention, ftr__cpu_attention_workspace)                                      \
    X(attention_grad, ftr__cpu_attention_grad, ftr__cpu_attention_grad_workspace)                       \
    X(rotary, ftr__cpu_rotary, ftr__cpu_rotary_workspace)                                               \
    /* shape.c */                                                                                                \
    X(reshape, ftr__cpu_reshape, 0)                                                                     \
    X(expand, ftr__cpu_expand, 0)                                                                       \
    X(transpose, ftr__cpu_transpose, 0)                                                                 \
    X(concat, ftr__cpu_concat, 0)                                                                       \
    X(slice, ftr__cpu_slice, 0)                                                                         \
    X(slice_grad, ftr__cpu_slice_grad, 0)                                                               \
    X(pad, ftr__cpu_pad, 0)                                                                             \
    /* loss.c */                                                                                                 \
    X(softmax, ftr__cpu_softmax, 0)                                                                     \
    X(softmax_grad, ftr__cpu_softmax_grad, 0)                                                           \
    X(log_softmax, ftr__cpu_softmax, 0)                                                                 \
    X(log_softmax_grad, ftr__cpu_softmax_grad, 0)                                                       \
    X(cross_entropy, ftr__cpu_cross_entropy, ftr__cpu_cross_entropy_workspace)                          \
    X(cross_entropy_grad, ftr__cpu_cross_entropy_grad, 0)                                               \
    X(nll, ftr__cpu_cross_entropy, ftr__cpu_cross_entropy_workspace)                                    \
    X(nll_grad, ftr__cpu_cross_entropy_grad, 0)                                                         \
    /* index.c */                                                                                       \
    X(embedding, ftr__cpu_embedding, ftr__cpu_embedding_workspace)                                      \
    X(embedding_grad, ftr__cpu_embedding_grad, ftr__cpu_embedding_grad_workspace)                       \
    X(gather, ftr__cpu_gather, ftr__cpu_gather_workspace)                                               \
    X(scatter_add, ftr__cpu_scatter_add, ftr__cpu_scatter_add_workspace)                                \
    X(one_hot, ftr__cpu_one_hot, ftr__cpu_one_hot_workspace)                                            \
    X(topk, ftr__cpu_topk, 0)                                                                           \
    /* scan.c */                                                                                        \
    X(cumsum, ftr__cpu_cumsum, 0)                                                                       \
    X(prod, ftr__cpu_prod, 0)                                                                           \
    X(prod_grad, ftr__cpu_prod_grad, 0)                                                                 \
    X(logsumexp, ftr__cpu_logsumexp, 0)                                                                 \
    X(logsumexp_grad, ftr__cpu_logsumexp_grad, 0)                                                       \
    /* update.c */                                                                                               \
    X(ema_update, ftr__cpu_ema_update, 0)                                                               \
    X(count_update, ftr__cpu_count_update, 0)                                                           \
    X(sgd_update, ftr__cpu_sgd_update, 0)                                                               \
    X(adamw_update, ftr__cpu_adam_update, 0)                                                            \
    X(adam_update, ftr__cpu_adam_update, 0)                                                             \
    X(rmsprop_update, ftr__cpu_rmsprop_update, 0)                                                       \
    X(adagrad_update, ftr__cpu_adagrad_update, 0)                                                       \
    X(lion_update, ftr__cpu_lion_update, 0)                                                             \
    /* average.c */                                                                                     \
    X(accumulate_update, ftr__cpu_accumulate_update, 0)                                                 \
    X(average_update, ftr__cpu_average_update, 0)                                                       \
    X(swap_update, ftr__cpu_swap_update, 0)                                                             \
    /* update_norms.c */                                                                                \
    X(lamb_update, ftr__cpu_lamb_update, ftr__cpu_lamb_update_workspace)                                \
    X(lars_update, ftr__cpu_lars_update, ftr__cpu_lars_update_workspace)                                \
    X(clip_scale, ftr__cpu_clip_scale, ftr__cpu_clip_scale_workspace)                                   \
    /* adafactor.c, muon.c */                                                                           \
    X(adafactor_update, ftr__cpu_adafactor_update, ftr__cpu_adafactor_update_workspace)                 \
    X(muon_update, ftr__cpu_muon_update, ftr__cpu_muon_update_workspace)                              \
    /* scaling.c */                                                                                              \
    X(grad_norm, ftr__cpu_grad_norm, ftr__cpu_grad_norm_workspace)                                               \
    X(scale_update, ftr__cpu_scale_update, 0)

#define FTR__CPU_RUN(name) FTR_LIB ftr_status name(const ftr_kernel_call *call);
#define FTR__CPU_WORKSPACE(name) FTR_LIB size_t name(const ftr_kernel_call *call);

FTR__CPU_RUN(ftr__cpu_binary)
FTR__CPU_RUN(ftr__cpu_compare)
FTR__CPU_RUN(ftr__cpu_where)
FTR__CPU_RUN(ftr__cpu_unary)
FTR__CPU_RUN(ftr__cpu_cast)
FTR__CPU_RUN(ftr__cpu_activation_grad)
FTR__CPU_RUN(ftr__cpu_plain)
FTR__CPU_RUN(ftr__cpu_activation)
FTR__CPU_RUN(ftr__cpu_activation_slope)
FTR__CPU_RUN(ftr__cpu_reduce)
FTR__CPU_WORKSPACE(ftr__cpu_reduce_workspace)
FTR__CPU_RUN(ftr__cpu_argmax)
FTR__CPU_RUN(ftr__cpu_matmul)
FTR__CPU_WORKSPACE(ftr__cpu_matmul_workspace)
FTR__CPU_RUN(ftr__cpu_linear)
FTR__CPU_WORKSPACE(ftr__cpu_linear_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d_grad_input)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_grad_input_workspace)
FTR__CPU_RUN(ftr__cpu_conv2d_grad_weight)
FTR__CPU_WORKSPACE(ftr__cpu_conv2d_grad_weight_workspace)
FTR__CPU_RUN(ftr__cpu_batch_norm)
FTR__CPU_WORKSPACE(ftr__cpu_batch_norm_workspace)
FTR__CPU_RUN(ftr__cpu_batch_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_batch_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_row_norm)
FTR__CPU_RUN(ftr__cpu_row_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_row_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_group_norm)
FTR__CPU_WORKSPACE(ftr__cpu_group_norm_workspace)
FTR__CPU_RUN(ftr__cpu_group_norm_grad)
FTR__CPU_WORKSPACE(ftr__cpu_group_norm_grad_workspace)
FTR__CPU_RUN(ftr__cpu_max_pool2d)
FTR__CPU_RUN(ftr__cpu_max_pool2d_grad)
FTR__CPU_RUN(ftr__cpu_avg_pool2d)
FTR__CPU_RUN(ftr__cpu_avg_pool2d_grad)
FTR__CPU_RUN(ftr__cpu_adaptive_avg_pool2d)
FTR__CPU_RUN(ftr__cpu_adaptive_avg_pool2d_grad)
FTR__CPU_RUN(ftr__cpu_resize2d)
FTR__CPU_RUN(ftr__cpu_resize2d_grad)
FTR__CPU_WORKSPACE(ftr__cpu_resize2d_workspace)
/* ftr_kernel.kept of a convolution and of a linear layer. */
FTR_LIB size_t ftr__cpu_conv2d_kept(const ftr_kernel_call *call);
FTR_LIB size_t ftr__cpu_linear_kept(const ftr_kernel_call *call);

/* ftr_kernel.algorithm of a convolution or one of its gradients. */
FTR_LIB const char *ftr__cpu_conv2d_algorithm(const ftr_kernel_call *call);

/* ftr_backend.measure */
FTR_LIB ftr_status ftr__cpu_measure(ftr_context *context, void *state, ftr_machine *machine);

FTR__CPU_RUN(ftr__cpu_dropout)
FTR__CPU_RUN(ftr__cpu_stochastic_depth)
FTR__CPU_RUN(ftr__cpu_random)
FTR__CPU_RUN(ftr__cpu_mix_draw)
FTR__CPU_RUN(ftr__cpu_mix)
FTR__CPU_RUN(ftr__cpu_mix_grad)
FTR__CPU_WORKSPACE(ftr__cpu_mix_grad_workspace)
FTR__CPU_RUN(ftr__cpu_attention)
FTR__CPU_WORKSPACE(ftr__cpu_attention_workspace)
FTR__CPU_RUN(ftr__cpu_attention_grad)
FTR__CPU_WORKSPACE(ftr__cpu_attention_grad_workspace)
FTR__CPU_RUN(ftr__cpu_rotary)
FTR__CPU_WORKSPACE(ftr__cpu_rotary_workspace)
FTR__CPU_RUN(ftr__cpu_reshape)
FTR__CPU_RUN(ftr__cpu_expand)
FTR__CPU_RUN(ftr__cpu_transpose)
FTR__CPU_RUN(ftr__cpu_concat)
FTR__CPU_RUN(ftr__cpu_slice)
FTR__CPU_RUN(ftr__cpu_slice_grad)
FTR__CPU_RUN(ftr__cpu_pad)
FTR__CPU_RUN(ftr__cpu_softmax)
FTR__CPU_RUN(ftr__cpu_softmax_grad)
FTR__CPU_RUN(ftr__cpu_cross_entropy)
FTR__CPU_WORKSPACE(ftr__cpu_cross_entropy_workspace)
FTR__CPU_RUN(ftr__cpu_cross_entropy_grad)
FTR__CPU_RUN(ftr__cpu_embedding)
FTR__CPU_WORKSPACE(ftr__cpu_embedding_workspace)
FTR__CPU_RUN(ftr__cpu_embedding_grad)
FTR__CPU_WORKSPACE(ftr__cpu_embedding_grad_workspace)
FTR__CPU_RUN(ftr__cpu_gather)
FTR__CPU_WORKSPACE(ftr__cpu_gather_workspace)
FTR__CPU_RUN(ftr__cpu_scatter_add)
FTR__CPU_WORKSPACE(ftr__cpu_scatter_add_workspace)
FTR__CPU_RUN(ftr__cpu_one_hot)
FTR__CPU_WORKSPACE(ftr__cpu_one_hot_workspace)
FTR__CPU_RUN(ftr__cpu_topk)
FTR__CPU_RUN(ftr__cpu_cumsum)
FTR__CPU_RUN(ftr__cpu_prod)
FTR__CPU_RUN(ftr__cpu_prod_grad)
FTR__CPU_RUN(ftr__cpu_logsumexp)
FTR__CPU_RUN(ftr__cpu_logsumexp_grad)
FTR__CPU_RUN(ftr__cpu_ema_update)
FTR__CPU_RUN(ftr__cpu_count_update)
FTR__CPU_RUN(ftr__cpu_accumulate_update)
FTR__CPU_RUN(ftr__cpu_average_update)
FTR__CPU_RUN(ftr__cpu_swap_update)
FTR__CPU_RUN(ftr__cpu_sgd_update)
FTR__CPU_RUN(ftr__cpu_adam_update)
FTR__CPU_RUN(ftr__cpu_rmsprop_update)
FTR__CPU_RUN(ftr__cpu_adagrad_update)
FTR__CPU_RUN(ftr__cpu_lion_update)
FTR__CPU_RUN(ftr__cpu_lamb_update)
FTR__CPU_WORKSPACE(ftr__cpu_lamb_update_workspace)
FTR__CPU_RUN(ftr__cpu_lars_update)
FTR__CPU_WORKSPACE(ftr__cpu_lars_update_workspace)
FTR__CPU_RUN(ftr__cpu_clip_scale)
FTR__CPU_WORKSPACE(ftr__cpu_clip_scale_workspace)
FTR__CPU_RUN(ftr__cpu_adafactor_update)
FTR__CPU_WORKSPACE(ftr__cpu_adafactor_update_workspace)
FTR__CPU_RUN(ftr__cpu_muon_update)
FTR__CPU_WORKSPACE(ftr__cpu_muon_update_workspace)
FTR__CPU_RUN(ftr__cpu_grad_norm)
FTR__CPU_WORKSPACE(ftr__cpu_grad_norm_workspace)
FTR__CPU_RUN(ftr__cpu_scale_update)

#endif
