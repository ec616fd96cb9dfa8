/* SIMD functions of the optimizers' steps: over a run of elements of one parameter. An element's result does not
 * depend on where in a run it stands; sums of a run do not depend on anything but the run. */
#ifndef FTR_BACKEND_CPU_SIMD_UPDATE_H
#define FTR_BACKEND_CPU_SIMD_UPDATE_H

#include <stdbool.h>
#include <stdint.h>

/* Constants of one step, computed in double. A gradient g is read as g * scale, limited to +-clip. Shares close to 1
 * are kept as what is missing to 1: rounded to single precision, 0.999 is off by 2e-5 of what it leaves. */
typedef struct ftr__update_step {
    float scale, clip;    /* clip is infinite if gradients are not limited */
    float lr;             /* Adam: over 1 - beta1^t; LAMB: times the parameter's ratio */
    float weight_decay;   /* that is added to the gradient or to the update */
    float decay;          /* what a parameter loses of itself: 0, or lr * weight decay if that is decoupled */
    float trust;          /* LARS: factor of the gradient; 1 for others */
    float momentum, fall; /* fall: 1 - momentum */
    float gradient;       /* weight of the gradient in the momentum */
    float fresh1, fresh2; /* 1 - beta1, 1 - beta2; RMSprop: fresh2 is 1 - alpha */
    float debias1;        /* 1 / (1 - beta1^t) */
    float debias2;        /* 1 / sqrt(1 - beta2^t) */
    float eps;            /* Adafactor: its square */
    float initial;        /* Adagrad: what the sum is before the first step */
    bool nesterov;
    bool first; /* what the momentum's or the sum's memory holds does not count */
} ftr__update_step;

/* A run. */
typedef struct ftr__update_run {
    int64_t n;
    float *p;
    const float *g;
    float *s[3]; /* states, in the order of ops.def */
} ftr__update_run;

typedef enum ftr__update_kind {
    FTR__UPDATE_SGD = 0, /* SGD and LARS: without and with momentum */
    FTR__UPDATE_SGD_MOMENTUM,
    FTR__UPDATE_ADAM, /* Adam and AdamW: without and with the largest second moment */
    FTR__UPDATE_ADAM_MAX,
    FTR__UPDATE_RMSPROP,
    FTR__UPDATE_RMSPROP_MOMENTUM,
    FTR__UPDATE_RMSPROP_CENTERED,
    FTR__UPDATE_RMSPROP_CENTERED_MOMENTUM,
    FTR__UPDATE_ADAGRAD,
    FTR__UPDATE_LION,
    FTR__UPDATE_LAMB, /* the parameter alone: the moments are updated already */
    FTR__UPDATE_COUNT
} ftr__update_kind;

typedef struct ftr__simd_update {
    void (*row[FTR__UPDATE_COUNT])(const ftr__update_step *step, const ftr__update_run *run);

    /* LAMB: updates the moments; sums[0] is the sum of p^2, sums[1] that of the update's squares. */
    void (*lamb_moments)(const ftr__update_step *step, const ftr__update_run *run, double sums[2]);

    /* Sum of squares of a gradient as it is read; and of each element, added to sum[i]. */
    double (*squares)(const ftr__update_step *step, int64_t n, const float *g);
    void (*add_squares)(const ftr__update_step *step, int64_t n, const float *g, float *sum);

    /* v += weight * (g^2 - v). */
    void (*blend_squares)(const ftr__update_step *step, int64_t n, float weight, const float *g, float *v);
    /* u = g / sqrt(max(x * y, eps)), x being one element if `single`: the sum of u^2, and p -= decay * p + rate * u. */
    double (*factored_squares)(const ftr__update_step *step, int64_t n, const float *g, const float *x, bool single,
                               const float *y);
    void (*factored_apply)(const ftr__update_step *step, int64_t n, const float *g, const float *x, bool single,
                           const float *y, float rate, float *p);

    /* Muon: b += gradient * (g - b); x = b or, with nesterov, g + momentum * (b - g). Returns the sum of x^2. */
    double (*muon_momentum)(const ftr__update_step *step, int64_t n, const float *g, float *b, float *x);
    /* p -= decay * p + rate * x. */
    void (*muon_apply)(int64_t n, float decay, float rate, const float *x, float *p);
    /* out = a * x + b * y. */
    void (*combine)(int64_t n, float a, const float *x, float b, const float *y, float *out);
} ftr__simd_update;

#endif
