#ifndef FTR_API_OPTIM_H
#define FTR_API_OPTIM_H

#include "api/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Optimizers. A description by value; ftr_compile() writes its step into the graph. Below p is a parameter, g its
 * gradient, t the number of the step from 1; the defaults are those of the named class. */
typedef enum ftr_optimizer_kind {
    FTR_OPTIMIZER_NONE = 0,
    FTR_OPTIMIZER_SGD,
    FTR_OPTIMIZER_ADAMW,
    FTR_OPTIMIZER_ADAM,
    FTR_OPTIMIZER_RMSPROP,
    FTR_OPTIMIZER_ADAGRAD,
    FTR_OPTIMIZER_LAMB,
    FTR_OPTIMIZER_LARS,
    FTR_OPTIMIZER_LION,
    FTR_OPTIMIZER_ADAFACTOR,
    FTR_OPTIMIZER_MUON
} ftr_optimizer_kind;

/* Muon's learning rate of a matrix of R rows and C columns: lr times this factor. */
typedef enum ftr_muon_rate {
    FTR_MUON_RATE_ORIGINAL = 0,    /* sqrt(max(1, R / C)) */
    FTR_MUON_RATE_MATCH_RMS_ADAMW, /* 0.2 sqrt(max(R, C)) */
    FTR_MUON_RATE_SPECTRAL         /* sqrt(R / C) */
} ftr_muon_rate;

/* Settings of the parameters whose full names fit a pattern, from ftr_param_group_defaults(). A parameter belongs to
 * the first group that fits; one that fits none has the optimizer's settings. NaN: the optimizer's value. */
typedef struct ftr_param_group {
    uint32_t cookie;
    const char *pattern; /* '*' stands for any characters or none, dots included, '?' for one character */
    double lr_scale; /* the group's learning rate is the optimizer's, as a schedule may have set it, times this; 1 */
    double weight_decay, momentum, beta1, beta2, eps;
    ftr_optimizer_kind
        kind; /* under Muon FTR_OPTIMIZER_ADAMW trains the group by AdamW; NONE: as the optimizer decides */
} ftr_param_group;

/* A group without a pattern, which changes nothing. */
FTR_API ftr_param_group ftr_param_group_defaults(void);

/* From ftr_sgd(), ftr_adamw() or another of the functions below; then any field may be changed. Fields that another
 * kind uses do not count. */
typedef struct ftr_optimizer {
    uint32_t cookie;
    ftr_optimizer_kind kind;
    double lr;        /* learning rate; ftr_plan_set_lr() changes it between steps */
    double clip_norm; /* the norm of all gradients together is limited to it, as PyTorch's clip_grad_norm_: they are
                       * multiplied by min(1, clip_norm / (norm + 1e-6)) before clip_value looks at them; 0: off */
    double
        clip_value; /* each element of a gradient is limited to +-clip_value, as PyTorch's clip_grad_value_; 0: off */
    double
        weight_decay; /* SGD, Adam, RMSprop, Adagrad: added to the gradient (L2). LAMB, LARS: part of the update whose
                          * norm counts. Others: decoupled, p *= 1 - lr wd */
    double momentum;  /* SGD, RMSprop, LARS, Muon */
    double dampening; /* SGD, LARS; the first step's momentum is the whole gradient, as PyTorch's */
    bool nesterov;    /* SGD, LARS: needs momentum > 0 and dampening 0; Muon */
    double beta1, beta2;        /* Adam, AdamW, LAMB, Lion; Muon: those of its AdamW */
    double eps;                 /* all that divide; Adafactor: least root of a second moment; Muon: that of its AdamW */
    bool amsgrad;               /* Adam, AdamW: divide by the largest second moment so far */
    double alpha;               /* RMSprop: decay of the mean square */
    bool centered;              /* RMSprop: divide by the deviation, not the root of the mean square */
    double lr_decay;            /* Adagrad: lr / (1 + (t - 1) lr_decay) */
    double initial_accumulator; /* Adagrad: sum of squares before the first step */
    double max_grad_norm;       /* LAMB: the norm of all gradients together is limited to it; 0: off */
    double trust_coefficient;   /* LARS */
    bool trust_clip;            /* LAMB: the ratio is at most 1; LARS: the ratio over lr is at most 1 (LARC) */
    bool always_adapt;          /* LAMB, LARS: also parameters without weight decay; otherwise they take plain steps */
    double beta2_decay;         /* Adafactor: 1 - beta2 of step t is t^beta2_decay */
    double parameter_eps;       /* Adafactor: least scale of a parameter */
    double clip_threshold;      /* Adafactor: largest root mean square of an update, in units of the step */
    double ns_coefficients[3];  /* Muon: of the Newton-Schulz iteration */
    double ns_eps;              /* Muon: least norm that a matrix is divided by */
    int32_t ns_steps;           /* Muon */
    ftr_muon_rate rate;         /* Muon */
    double adamw_lr_scale;      /* Muon: the learning rate of its AdamW is lr times this */
    ftr_dtype state_dtype;      /* of momenta and moments: FTR_F32 (the default, and 0), or FTR_BF16 in half the memory:
                            * steps are computed in f32, and what they leave in the state is rounded to the nearest bf16,
                            * ties to even; parameters stay f32. A second moment then only falls with a beta2 of 0.996 or
                            * less (0.98 is a good one; a warning is logged above that), and Adagrad's sum ends at some
                            * 512 times what is added. Not for Adafactor, whose state is small */
    bool no_decay_norms_biases; /* parameters of rank 0 and 1 (of norms, biases) have no weight decay, unless the group
                                 * they are in says otherwise */
    const ftr_param_group *groups; /* read while a graph is compiled, not kept */
    int32_t group_count;
} ftr_optimizer;

/* Stochastic gradient descent without momentum or decay, as torch.optim.SGD. */
FTR_API ftr_optimizer ftr_sgd(double lr);

/* Adam: betas 0.9 and 0.999, eps 1e-8, no weight decay, as torch.optim.Adam (Kingma, Ba, 2015; amsgrad: Reddi, Kale,
 * Kumar, 2018). g += wd p;  m, v: means of g and g^2;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps). */
FTR_API ftr_optimizer ftr_adam(double lr);

/* AdamW: betas 0.9 and 0.999, eps 1e-8, weight decay 0.01, as torch.optim.AdamW (Loshchilov, Hutter, 2019).
 * p *= 1 - lr wd;  p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps). */
FTR_API ftr_optimizer ftr_adamw(double lr);

/* RMSprop: alpha 0.99, eps 1e-8, no momentum, as torch.optim.RMSprop (Hinton, 2012; centered: Graves, 2013).
 * g += wd p;  v: mean of g^2 (centered: less the mean of g, squared);  p -= lr * g / (sqrt(v) + eps). With momentum the
 * quotient goes into a sum, b = momentum b + quotient, and p -= lr * b. */
FTR_API ftr_optimizer ftr_rmsprop(double lr);

/* Adagrad: eps 1e-10, as torch.optim.Adagrad (Duchi, Hazan, Singer, 2011).
 * g += wd p;  s += g^2;  p -= lr / (1 + (t - 1) lr_decay) * g / (sqrt(s) + eps). */
FTR_API ftr_optimizer ftr_adagrad(double lr);

/* LAMB: betas 0.9 and 0.999, eps 1e-6, weight decay 0.01, max_grad_norm 1, as timm.optim.Lamb (You et al., 2020, in
 * NVIDIA's form, which limits the norm of all gradients together first).
 * u = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + wd p;  p -= lr * |p| / |u| * u.
 * Norms are a tensor's; their ratio is 1 where one of them is 0, and for parameters without weight decay unless
 * always_adapt. */
FTR_API ftr_optimizer ftr_lamb(double lr);

/* LARS: trust coefficient 0.001, eps 1e-8, no momentum, no weight decay, as timm.optim.Lars (You, Gitman, Ginsburg,
 * 2017). g = (g + wd p) * trust |p| / (|g| + wd |p| + eps);  then as SGD.
 * The factor is 1 where a norm is 0, and for parameters without weight decay unless always_adapt: set weight_decay, and
 * momentum. */
FTR_API ftr_optimizer ftr_lars(double lr);

/* Lion: betas 0.9 and 0.99, no weight decay, as timm.optim.Lion (Chen et al., 2023).
 * p *= 1 - lr wd;  p -= lr * sign(b1 m + (1 - b1) g);  m = b2 m + (1 - b2) g. */
FTR_API ftr_optimizer ftr_lion(double lr);

/* Adafactor: beta2_decay -0.8, eps 2^-23, parameter_eps 1e-3, clip_threshold 1, no weight decay, as
 * torch.optim.Adafactor in f32 (Shazeer, Stern, 2018).
 * u = g / max(sqrt(v), eps);  p *= 1 - lr wd;
 * p -= max(parameter_eps, rms(p)) * min(lr, 1 / sqrt(t)) / max(1, rms(u) / clip_threshold) * u.
 * In place of the second moment v of a tensor of rank 2 or more, its means over the last dimension and over the one
 * before are kept, of which v is the product; v of other tensors is kept whole. For the weight of a convolution the two
 * are height and width, PyTorch's last, whatever the order in memory. */
FTR_API ftr_optimizer ftr_adafactor(double lr);

/* Muon: momentum 0.95 with Nesterov's correction, weight decay 0.1, five Newton-Schulz steps with coefficients 3.4445,
 * -4.775, 2.0315, ns_eps 1e-7, as torch.optim.Muon (Jordan et al., 2024).
 * b = momentum b + (1 - momentum) g;  x = b, or momentum b + (1 - momentum) g with nesterov;  x /= max(|x|, ns_eps);
 * ns_steps times x = c0 x + (c1 a + c2 a^2) x with a = x x^T;  p *= 1 - lr wd;  p -= lr * factor(rate) * x.
 * It trains matrices: parameters of rank 2, and weights of convolutions as matrices of one row an output channel. (The
 * iteration turns a permutation of the columns into the same permutation of its result: the order in memory does not
 * matter.) All other parameters, and groups of kind FTR_OPTIMIZER_ADAMW (embeddings and the last layer, usually), are
 * trained by AdamW with betas 0.9 and 0.999, eps 1e-8 and the same weight decay. The iteration runs in f32; PyTorch's,
 * in bfloat16, differs from it by some 0.4 % of the largest element after a hundred steps. */
FTR_API ftr_optimizer ftr_muon(double lr);

#ifdef __cplusplus
}
#endif

#endif
