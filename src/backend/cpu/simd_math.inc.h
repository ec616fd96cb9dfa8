/* ftr__simd_math of one instruction set. Included once a level; it has no include guard. The end of a row that does
 * not fill a vector goes through the same code as a part of one. */
#undef FTR__SIMD_MATH_FUNCTIONS

/* Columns are handled this many vectors at a time; partial sums span this many rows, so that rounding errors stay
 * small. */
#define FTR__COLUMN_VECTORS 4
#define FTR__COLUMN_BLOCK 64
/* Small loops over vectors that live in registers; clang unrolls them without being told. */
#if defined(__clang__)
#define FTR__UNROLL
#else
#define FTR__UNROLL _Pragma("GCC unroll 4")
#endif
/* Vectors in a block of a row's sum, for each of four partial sums. */
#define FTR__SUM_BLOCK 32

FTR__INLINE FTR__VF FTR__S(square_root)(FTR__VF x) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_sqrt_ps((__m512)x);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_sqrt_ps((__m256)x);
#elif FTR__SIMD_LEVEL == 1
    return (FTR__VF)vsqrtq_f32((float32x4_t)x);
#elif FTR__SIMD_LEVEL == 0 && defined(__x86_64__)
    return (FTR__VF)_mm_sqrt_ps((__m128)x);
#else
    FTR__VF root;
    for (int i = 0; i < FTR__W; i++) root[i] = __builtin_sqrtf(x[i]);
    return root;
#endif
}

FTR__INLINE FTR__VF FTR__S(keep_positive)(FTR__VF x) { return FTR__SELECT(x <= 0.0f, FTR__SPLAT(0.0f), x); }

FTR__INLINE FTR__VF FTR__S(maximum_of)(FTR__VF a, FTR__VF b) { return FTR__SELECT((a > b) | (a != a), a, b); }

FTR__INLINE FTR__VF FTR__S(minimum_of)(FTR__VF a, FTR__VF b) { return FTR__SELECT((a < b) | (a != a), a, b); }

/* 1 / x for x from 1 to 2, or NaN. An estimate of 14 bits and a step of Newton's: the division has less throughput. */
FTR__INLINE FTR__VF FTR__S(reciprocal_near_one)(FTR__VF x) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    const FTR__VF r = (FTR__VF)_mm512_rcp14_ps((__m512)x);
    return FTR__FMA(FTR__FMA(-x, r, FTR__SPLAT(1.0f)), r, r);
#else
    return 1.0f / x;
#endif
}

/* a / b, with an error of an ulp at most: where all b are normal, and so are their inverses, an estimate of 14 bits, a step of
 * Newton's and what is left of a. The division has less throughput. */
FTR__INLINE FTR__VF FTR__S(quotient)(FTR__VF a, FTR__VF b) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    const __m512 size = _mm512_abs_ps((__m512)b);
    const __mmask16 normal = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ) &
                             _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p100f), _CMP_LE_OQ);
    if (normal != 0xffff) return a / b;
    FTR__VF r = (FTR__VF)_mm512_rcp14_ps((__m512)b);
    r = FTR__FMA(FTR__FMA(-b, r, FTR__SPLAT(1.0f)), r, r);
    const FTR__VF q = a * r;
    return FTR__FMA(FTR__FMA(-b, q, a), r, q);
#else
    return a / b;
#endif
}

/* Limits to low..high, which NaN passes. */
FTR__INLINE FTR__VF FTR__S(clamped)(FTR__VF x, float low, float high) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_min_ps(_mm512_set1_ps(high), _mm512_max_ps(_mm512_set1_ps(low), (__m512)x));
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), (__m256)x));
#else
    x = FTR__SELECT(x < low, FTR__SPLAT(low), x);
    return FTR__SELECT(x > high, FTR__SPLAT(high), x);
#endif
}

/* e^r - 1 for |r| <= ln(2) / 2: r + r^2 P(r), P a minimax polynomial (relative error of e^r 4e-9). */
FTR__INLINE FTR__VF FTR__S(exponential_less_one)(FTR__VF r) {
    FTR__VF p = FTR__SPLAT(0.00138141739f);
    p = FTR__FMA(p, r, FTR__SPLAT(0.00836892147f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.0416684076f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.166665196f));
    p = FTR__FMA(p, r, FTR__SPLAT(0.49999994f));
    return FTR__FMA(p, r * r, r);
}

/* e^x = 2^n e^r with n = round(x / ln 2) and |r| <= ln(2) / 2. 2^n is applied in two halves, so that results below the
 * normal range are rounded once. */
FTR__INLINE FTR__VF FTR__S(exponential)(FTR__VF x) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    x = FTR__S(clamped)(x, -104.0f, 89.0f);
    const FTR__VF shifted = FTR__FMA(x, FTR__SPLAT(1.44269504089f), round);
    const FTR__VF whole = shifted - round;
    /* ln 2 in two parts; the first has few bits, so that its product is exact. */
    FTR__VF r = FTR__FMA(whole, FTR__SPLAT(-0.693359375f), x);
    r = FTR__FMA(whole, FTR__SPLAT(2.12194440e-4f), r);
    const FTR__VF p = FTR__S(exponential_less_one)(r) + 1.0f;
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_scalef_ps((__m512)p, (__m512)whole);
#else
    const FTR__VI n = (FTR__VI)((FTR__VU)shifted - (FTR__VU)round);
    const FTR__VI half = n >> 1;
    const FTR__VF first = (FTR__VF)(((FTR__VU)half + 127u) << 23);
    const FTR__VF second = (FTR__VF)(((FTR__VU)n - (FTR__VU)half + 127u) << 23);
    return p * first * second;
#endif
}

/* ln x = e ln 2 + ln(1 + f), x = 2^e (1 + f) with 1 + f from sqrt(1/2) to sqrt(2); ln(1 + f) = f - f^2 / 2 + f^3
 * P(f), P a minimax polynomial (relative error 4e-9). Subnormal x is scaled first. */
FTR__INLINE FTR__VF FTR__S(logarithm)(FTR__VF x) {
    const FTR__VI tiny = x < 1.17549435e-38f;
    const FTR__VU bits = (FTR__VU)FTR__SELECT(tiny, x * 8388608.0f, x) - 0x3f3504f3u;
    const FTR__VI exponent = ((FTR__VI)bits >> 23) - (tiny & 23);
    const FTR__VF e = __builtin_convertvector(exponent, FTR__VF);
    const FTR__VF f = (FTR__VF)((bits & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    const FTR__VF square = f * f;
    FTR__VF p = FTR__SPLAT(0.0674659833f);
    p = FTR__FMA(p, f, FTR__SPLAT(-0.116796538f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.118903235f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.124051355f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.142192245f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.166680068f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.200021341f));
    p = FTR__FMA(p, f, FTR__SPLAT(-0.250000089f));
    p = FTR__FMA(p, f, FTR__SPLAT(0.333333135f));
    FTR__VF r = f * square * p;
    r = FTR__FMA(e, FTR__SPLAT(-2.12194440e-4f), r);
    r = FTR__FMA(square, FTR__SPLAT(-0.5f), r) + f;
    r = FTR__FMA(e, FTR__SPLAT(0.693359375f), r);
    r = FTR__SELECT(x < __builtin_inff(), r, x); /* +inf and NaN */
    r = FTR__SELECT(x == 0.0f, FTR__SPLAT(-__builtin_inff()), r);
    return FTR__SELECT(x < 0.0f, FTR__SPLAT(__builtin_nanf("")), r);
}

/* x + x^3 P(x^2) for |x| < 0.625 (P minimax, relative error 9e-9), else 1 - 2 / (e^2|x| + 1) with the sign of x. */
FTR__INLINE FTR__VF FTR__S(hyperbolic_tangent)(FTR__VF x) {
    const FTR__VU sign = (FTR__VU)x & 0x80000000u;
    const FTR__VF size = (FTR__VF)((FTR__VU)x ^ sign);
    const FTR__VF large = 1.0f - 2.0f / (FTR__S(exponential)(size + size) + 1.0f);
    const FTR__VF square = x * x;
    FTR__VF p = FTR__SPLAT(-0.00570498686f);
    p = FTR__FMA(p, square, FTR__SPLAT(0.0206390861f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.0537397154f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.133314416f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.333332807f));
    const FTR__VF small = FTR__FMA(p * square, x, x);
    return FTR__SELECT(size < 0.625f, small, (FTR__VF)((FTR__VU)large | sign));
}

/* With e = e^-|x|: 1 / (1 + e) for x >= 0, e / (1 + e) below, which keeps its precision toward 0. */
FTR__INLINE FTR__VF FTR__S(logistic)(FTR__VF x) {
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u));
    return FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f)) * FTR__S(reciprocal_near_one)(1.0f + e);
}

/* Phi(-|x|) of the normal distribution, and e^(-x^2 / 2): the first is the second times N(|x|) / D(|x|), a minimax
 * rational function on 0..16 (relative error 7e-9); further out both are 0. All coefficients are positive: nothing
 * cancels. What rounding loses of x^2 is made up for, as the exponential would magnify it. */
FTR__INLINE FTR__VF FTR__S(normal_tail)(FTR__VF x, FTR__VF *bell) {
    FTR__VF size = (FTR__VF)((FTR__VU)x & 0x7fffffffu);
    size = FTR__SELECT(size > 16.0f, FTR__SPLAT(16.0f), size);
    const FTR__VF high = (FTR__VF)((FTR__VU)size & 0xfffff000u); /* 12 bits: its square is exact */
    const FTR__VF rest = (size - high) * (size + high), square = high * high + rest;
    const FTR__VF lost = (high * high - square) + rest;
    const FTR__VF e = FTR__S(exponential)(square * -0.5f);
    *bell = FTR__FMA(e * lost, FTR__SPLAT(-0.5f), e);
    FTR__VF above = FTR__FMA(size, FTR__SPLAT(0.0042221112f), FTR__SPLAT(0.0413415904f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.185328864f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.441108223f));
    above = FTR__FMA(above, size, FTR__SPLAT(0.5f));
    FTR__VF below = FTR__FMA(size, FTR__SPLAT(0.0105831655f), FTR__SPLAT(0.103633538f));
    below = FTR__FMA(below, size, FTR__SPLAT(0.474999747f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.21117919f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.6801015f));
    below = FTR__FMA(below, size, FTR__SPLAT(1.0f));
    return *bell * (above / below);
}

/* x P(x^2) for |x| < 1 (P minimax, relative error 1e-9), else 1 - 2 Phi(-sqrt(2) |x|) with the sign of x. */
FTR__INLINE FTR__VF FTR__S(error_function)(FTR__VF x) {
    const FTR__VU sign = (FTR__VU)x & 0x80000000u;
    const FTR__VF size = (FTR__VF)((FTR__VU)x ^ sign), square = x * x;
    FTR__VF bell;
    const FTR__VF large = 1.0f - 2.0f * FTR__S(normal_tail)(x * 1.41421356f, &bell);
    FTR__VF p = FTR__SPLAT(7.85386114e-05f);
    p = FTR__FMA(p, square, FTR__SPLAT(-0.000801019356f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.00518832768f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.0268538119f));
    p = FTR__FMA(p, square, FTR__SPLAT(0.112835851f));
    p = FTR__FMA(p, square, FTR__SPLAT(-0.376126258f));
    p = FTR__FMA(p, square, FTR__SPLAT(1.12837917f));
    return FTR__SELECT(size < 1.0f, p * x, (FTR__VF)((FTR__VU)large | sign));
}

FTR__INLINE FTR__VF FTR__S(limited)(FTR__VF x, float low, float high) { return FTR__S(clamped)(x, low, high); }

FTR__INLINE FTR__VF FTR__S(gelu)(FTR__VF x) {
    FTR__VF bell;
    const FTR__VF tail = FTR__S(normal_tail)(x, &bell);
    return x * FTR__SELECT(x < 0.0f, tail, 1.0f - tail);
}

/* Phi(x) + x phi(x) */
FTR__INLINE FTR__VF FTR__S(gelu_slope)(FTR__VF x) {
    FTR__VF bell;
    const FTR__VF tail = FTR__S(normal_tail)(x, &bell);
    return FTR__FMA(x * bell, FTR__SPLAT(0.398942280f), FTR__SELECT(x < 0.0f, tail, 1.0f - tail));
}

/* (1 + tanh u) / 2 = 1 / (1 + e^-2u), with 2u = x (2 c + 2 c 0.044715 x^2) and c = sqrt(2 / pi). */
FTR__INLINE FTR__VF FTR__S(gelu_tanh)(FTR__VF x) {
    return x * FTR__S(logistic)(x * FTR__FMA(x * x, FTR__SPLAT(0.0713548163f), FTR__SPLAT(1.59576912f)));
}

/* s + x s (1 - s) d(2u)/dx with s = 1 / (1 + e^-2u). Beyond +-16 s is 0 or 1; x^2 must not overflow there. */
FTR__INLINE FTR__VF FTR__S(gelu_tanh_slope)(FTR__VF x) {
    x = FTR__S(limited)(x, -16.0f, 16.0f);
    const FTR__VF square = x * x;
    const FTR__VF twice_u = x * FTR__FMA(square, FTR__SPLAT(0.0713548163f), FTR__SPLAT(1.59576912f));
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)twice_u | 0x80000000u));
    const FTR__VF part = FTR__S(reciprocal_near_one)(1.0f + e);
    const FTR__VF inner = x * FTR__FMA(square, FTR__SPLAT(0.214064449f), FTR__SPLAT(1.59576912f));
    return FTR__FMA(inner, e * part, FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f))) * part;
}

/* x / (1 + e^-x). For x < 0 x e^x / (1 + e^x), the exponential in two halves so that only the result may underflow. */
FTR__INLINE FTR__VF FTR__S(silu)(FTR__VF x) {
    const FTR__VF half = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u) * 0.5f);
    return FTR__SELECT(x < 0.0f, x * half * half, x) *
           FTR__S(reciprocal_near_one)(FTR__FMA(half, half, FTR__SPLAT(1.0f)));
}

/* s + x s (1 - s) with s = 1 / (1 + e^-x). */
FTR__INLINE FTR__VF FTR__S(silu_slope)(FTR__VF x) {
    const FTR__VF e = FTR__S(exponential)((FTR__VF)((FTR__VU)x | 0x80000000u));
    const FTR__VF part = FTR__S(reciprocal_near_one)(1.0f + e);
    return FTR__FMA(x, e * part, FTR__SELECT(x < 0.0f, e, FTR__SPLAT(1.0f))) * part;
}

FTR__INLINE FTR__VF FTR__S(hardsigmoid)(FTR__VF x) { return FTR__S(limited)(x + 3.0f, 0.0f, 6.0f) * (1.0f / 6.0f); }

FTR__INLINE FTR__VF FTR__S(hardswish_grad)(FTR__VF d, FTR__VF x) {
    const FTR__VF inside = d * FTR__FMA(x, FTR__SPLAT(1.0f / 3.0f), FTR__SPLAT(0.5f));
    return FTR__SELECT(x <= -3.0f, FTR__SPLAT(0.0f), FTR__SELECT(x >= 3.0f, d, inside));
}

FTR__INLINE FTR__VF FTR__S(elu)(FTR__VF x, float alpha) {
    const FTR__VF far = FTR__S(exponential)(x) - 1.0f;
    const FTR__VF below = FTR__SELECT(x > -0.34657359f, FTR__S(exponential_less_one)(x), far);
    return FTR__SELECT(x > 0.0f, x, alpha * below);
}

/* max(z, 0) + log(1 + q) with z = beta x and q = e^-|z|; what is lost of q in 1 + q is added to the logarithm. */
FTR__INLINE FTR__VF FTR__S(softplus)(FTR__VF x, float beta, float threshold) {
    const FTR__VF z = x * beta, q = FTR__S(exponential)((FTR__VF)((FTR__VU)z | 0x80000000u)), sum = 1.0f + q;
    const FTR__VF log_sum = FTR__S(logarithm)(sum) + (q - (sum - 1.0f)) / sum;
    return FTR__SELECT(z > threshold, x, (FTR__SELECT(z > 0.0f, z, FTR__SPLAT(0.0f)) + log_sum) / beta);
}

/* Loops over a row: `body` computes the result from what `loads` has loaded at element i, where n - i are left. */
#define FTR__ROW_LOOP(loads, body, out)                                                                                \
    for (int64_t i = 0; i + FTR__W <= n; i += FTR__W) {                                                                \
        const int64_t left = FTR__W;                                                                                   \
        loads;                                                                                                         \
        const FTR__VF made = body;                                                                                     \
        FTR__STORE_SOME((out) + i, made, left);                                                                        \
    }                                                                                                                  \
    if (n % FTR__W) {                                                                                                  \
        const int64_t left = n % FTR__W, i = n - left;                                                                 \
        loads;                                                                                                         \
        const FTR__VF made = body;                                                                                     \
        FTR__STORE_SOME((out) + i, made, left);                                                                        \
    }

#define FTR__ROW_AHEAD 1024 /* elements that are asked for before they are needed */
#define FTR__ROW(name, p) const FTR__VF name = FTR__LOAD_SOME((p) + i, left)

#define FTR__BINARY_FUNCTION(name, body)                                                                               \
    static void FTR__S(name##_rows)(int64_t n, const float *a, const float *b, float *out) {                           \
        FTR__ROW_LOOP(FTR__ROW(u, a); FTR__ROW(v, b), body, out)                                                       \
    }                                                                                                                  \
    static void FTR__S(name##_right)(int64_t n, const float *a, const float *b, float *out) {                          \
        const FTR__VF v = FTR__SPLAT(*b);                                                                              \
        FTR__ROW_LOOP(FTR__ROW(u, a), body, out)                                                                       \
    }                                                                                                                  \
    static void FTR__S(name##_left)(int64_t n, const float *a, const float *b, float *out) {                           \
        const FTR__VF u = FTR__SPLAT(*a);                                                                              \
        FTR__ROW_LOOP(FTR__ROW(v, b), body, out)                                                                       \
    }

FTR__BINARY_FUNCTION(row_add, u + v)
FTR__BINARY_FUNCTION(row_sub, u - v)
FTR__BINARY_FUNCTION(row_mul, u *v)
FTR__BINARY_FUNCTION(row_div, u / v)
FTR__BINARY_FUNCTION(row_maximum, FTR__S(maximum_of)(u, v))
FTR__BINARY_FUNCTION(row_minimum, FTR__S(minimum_of)(u, v))

#define FTR__UNARY_FUNCTION(name, body)                                                                                \
    static void FTR__S(name)(int64_t n, const float *x, float *out) { FTR__ROW_LOOP(FTR__ROW(v, x), body, out) }

FTR__UNARY_FUNCTION(row_neg, -v)
FTR__UNARY_FUNCTION(row_exp, FTR__S(exponential)(v))
FTR__UNARY_FUNCTION(row_log, FTR__S(logarithm)(v))
FTR__UNARY_FUNCTION(row_sqrt, FTR__S(square_root)(v))
FTR__UNARY_FUNCTION(row_rsqrt, 1.0f / FTR__S(square_root)(v))
FTR__UNARY_FUNCTION(row_tanh, FTR__S(hyperbolic_tangent)(v))
FTR__UNARY_FUNCTION(row_sigmoid, FTR__S(logistic)(v))
FTR__UNARY_FUNCTION(row_relu, FTR__S(keep_positive)(v))

#define FTR__GRAD_FUNCTION(name, body)                                                                                 \
    static void FTR__S(name)(int64_t n, const float *dy, const float *y, float *dx) {                                  \
        FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), body, dx)                                                       \
    }

FTR__GRAD_FUNCTION(row_tanh_grad, d *(1.0f - v * v))
FTR__GRAD_FUNCTION(row_sigmoid_grad, d *v *(1.0f - v))
FTR__GRAD_FUNCTION(row_relu_grad, FTR__SELECT(v <= 0.0f, FTR__SPLAT(0.0f), d))

/* One body for vectors and for the row's end: these are long. */
#define FTR__ACTIVATION_FUNCTION(name, body)                                                                           \
    static void FTR__S(name)(int64_t n, const float *x, float a, float b, float *out) {                                \
        (void)a, (void)b;                                                                                              \
        for (int64_t i = 0; i < n; i += FTR__W) {                                                                      \
            const int64_t left = n - i;                                                                                \
            __builtin_prefetch(x + i + FTR__ROW_AHEAD);                                                                \
            __builtin_prefetch(out + i + FTR__ROW_AHEAD, 1);                                                           \
            FTR__ROW(v, x);                                                                                            \
            const FTR__VF made = body;                                                                                 \
            FTR__STORE_SOME(out + i, made, left);                                                                      \
        }                                                                                                              \
    }

FTR__ACTIVATION_FUNCTION(row_clamp, FTR__S(limited)(v, a, b))
FTR__ACTIVATION_FUNCTION(row_leaky_relu, FTR__SELECT(v > 0.0f, v, v *a))
FTR__ACTIVATION_FUNCTION(row_elu, FTR__S(elu)(v, a))
FTR__ACTIVATION_FUNCTION(row_softplus, FTR__S(softplus)(v, a, b))
FTR__ACTIVATION_FUNCTION(row_hardswish, v *FTR__S(hardsigmoid)(v))
FTR__ACTIVATION_FUNCTION(row_silu, FTR__S(silu)(v))
FTR__ACTIVATION_FUNCTION(row_gelu, FTR__S(gelu)(v))
FTR__ACTIVATION_FUNCTION(row_gelu_tanh, FTR__S(gelu_tanh)(v))
FTR__ACTIVATION_FUNCTION(row_hardsigmoid, FTR__S(hardsigmoid)(v))
FTR__ACTIVATION_FUNCTION(row_erf, FTR__S(error_function)(v))

#define FTR__SLOPE_FUNCTION(name, body)                                                                                \
    static void FTR__S(name)(int64_t n, const float *dy, const float *x, float a, float b, float *dx) {                \
        (void)a, (void)b;                                                                                              \
        for (int64_t i = 0; i < n; i += FTR__W) {                                                                      \
            const int64_t left = n - i;                                                                                \
            __builtin_prefetch(x + i + FTR__ROW_AHEAD);                                                                \
            __builtin_prefetch(dy + i + FTR__ROW_AHEAD);                                                               \
            __builtin_prefetch(dx + i + FTR__ROW_AHEAD, 1);                                                            \
            FTR__ROW(d, dy);                                                                                           \
            FTR__ROW(v, x);                                                                                            \
            const FTR__VF made = body;                                                                                 \
            FTR__STORE_SOME(dx + i, made, left);                                                                       \
        }                                                                                                              \
    }

FTR__SLOPE_FUNCTION(row_clamp_slope, FTR__SELECT((v > a) & (v < b), d, FTR__SPLAT(0.0f)))
FTR__SLOPE_FUNCTION(row_leaky_relu_slope, FTR__SELECT(v > 0.0f, d, d *a))
FTR__SLOPE_FUNCTION(row_elu_slope, FTR__SELECT(v > 0.0f, d, d *a *FTR__S(exponential)(v)))
FTR__SLOPE_FUNCTION(row_softplus_slope, FTR__SELECT(v *a > b, d, d *FTR__S(logistic)(v *a)))
FTR__SLOPE_FUNCTION(row_hardswish_slope, FTR__S(hardswish_grad)(d, v))
FTR__SLOPE_FUNCTION(row_silu_slope, d *FTR__S(silu_slope)(v))
FTR__SLOPE_FUNCTION(row_gelu_slope, d *FTR__S(gelu_slope)(v))
FTR__SLOPE_FUNCTION(row_gelu_tanh_slope, d *FTR__S(gelu_tanh_slope)(v))

static void FTR__S(exp_scale_add)(int64_t n, const float *x, float shift, float scale, float add, float *out) {
    FTR__ROW_LOOP(FTR__ROW(v, x), FTR__S(exponential)(v - shift) * scale + add, out)
}

static void FTR__S(subtract_twice)(int64_t n, const float *x, float a, float b, float *out) {
    FTR__ROW_LOOP(FTR__ROW(v, x), (v - a) - b, out)
}

static void FTR__S(softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx) {
    FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), v * (d - sum), dx)
}

static void FTR__S(log_softmax_grad)(int64_t n, const float *dy, const float *y, float sum, float *dx) {
    FTR__ROW_LOOP(FTR__ROW(d, dy); FTR__ROW(v, y), d - FTR__S(exponential)(v) * sum, dx)
}

static void FTR__S(axpy)(int64_t n, float a, const float *x, float *y) {
    const FTR__VF factor = FTR__SPLAT(a);
    FTR__ROW_LOOP(FTR__ROW(u, x); FTR__ROW(v, y), FTR__FMA(factor, u, v), y)
}

static void FTR__S(blend)(int64_t n, float a, const float *x, float *y) {
    const FTR__VF factor = FTR__SPLAT(a);
    FTR__ROW_LOOP(FTR__ROW(u, x); FTR__ROW(v, y), FTR__FMA(factor, u - v, v), y)
}

static void FTR__S(mix)(int64_t n, const float *const x[4], const float weight[4], float *y) {
    const FTR__VF wa = FTR__SPLAT(weight[0]), wb = FTR__SPLAT(weight[1]), wc = FTR__SPLAT(weight[2]);
    const FTR__VF wd = FTR__SPLAT(weight[3]);
    FTR__ROW_LOOP(FTR__ROW(a, x[0]); FTR__ROW(b, x[1]); FTR__ROW(c, x[2]);
                  FTR__ROW(d, x[3]), FTR__FMA(wd, d, FTR__FMA(wc, c, FTR__FMA(wb, b, wa * a))), y)
}

static void FTR__S(scatter_add)(int64_t channels, const float *dy, const int32_t *index, int32_t pixel, float *dx) {
    const int64_t n = channels;
    int64_t i = 0;
    for (; i + FTR__W <= n; i += FTR__W) {
        FTR__VI where;
        __builtin_memcpy(&where, index + i, sizeof where);
        FTR__STORE(dx + i, FTR__LOAD(dx + i) + FTR__SELECT(where == pixel, FTR__LOAD(dy + i), FTR__SPLAT(0.0f)));
    }
    for (; i < n; i++) dx[i] += index[i] == pixel ? dy[i] : 0.0f;
}

/* ------------------------------------------------------------------------------------------------ row reductions -- */

/* Half a vector of floats, and the same as doubles. */
typedef float FTR__S(vf_half) __attribute__((vector_size(2 * FTR__W)));
typedef double FTR__S(vd) __attribute__((vector_size(4 * FTR__W)));

/* In pairs, so that few additions wait for each other. */
FTR__INLINE double FTR__S(lanes_sum)(FTR__VF v) {
    FTR__S(vf_half) half[2];
    double lane[FTR__W / 2];
    __builtin_memcpy(half, &v, sizeof v);
    const FTR__S(vd) sums = __builtin_convertvector(half[0], FTR__S(vd)) + __builtin_convertvector(half[1], FTR__S(vd));
    __builtin_memcpy(lane, &sums, sizeof lane);
#if FTR__W == 16
    for (int i = 0; i < 4; i++) lane[i] += lane[i + 4];
#endif
#if FTR__W >= 8
    for (int i = 0; i < 2; i++) lane[i] += lane[i + 2];
#endif
    return lane[0] + lane[1];
}

/* Adds `body`, made of what is loaded at element i, over a row. An element that is not there must give 0 or be left
 * out by FTR__FIRST_LANES. */
#define FTR__ROW_SUM(loads, body)                                                                                      \
    double total = 0;                                                                                                  \
    int64_t at = 0;                                                                                                    \
    while (at + 4 * FTR__W <= n) {                                                                                     \
        FTR__VF partial[4] = {{0}, {0}, {0}, {0}};                                                                     \
        for (int block = 0; block < FTR__SUM_BLOCK && at + 4 * FTR__W <= n; block++, at += 4 * FTR__W)                 \
            for (int k = 0; k < 4; k++) {                                                                              \
                const int64_t i = at + k * FTR__W, left = FTR__W;                                                      \
                loads;                                                                                                 \
                partial[k] += body;                                                                                    \
            }                                                                                                          \
        total += FTR__S(lanes_sum)((partial[0] + partial[1]) + (partial[2] + partial[3]));                             \
    }                                                                                                                  \
    FTR__VF rest = {0};                                                                                                \
    for (; at < n; at += FTR__W) {                                                                                     \
        const int64_t i = at, left = n - at < FTR__W ? n - at : FTR__W;                                                \
        loads;                                                                                                         \
        rest += body;                                                                                                  \
    }                                                                                                                  \
    return total + FTR__S(lanes_sum)(rest)

FTR__INLINE FTR__VF FTR__S(first_lanes)(FTR__VF v, int64_t n) {
    if (n >= FTR__W) return v;
    float lanes[FTR__W];
    __builtin_memcpy(lanes, &v, sizeof v);
    return FTR__S(load_part)(lanes, n);
}

static double FTR__S(row_sum)(int64_t n, const float *x) { FTR__ROW_SUM(FTR__ROW(v, x), v); }

static double FTR__S(row_dot)(int64_t n, const float *a, const float *b) {
    FTR__ROW_SUM(FTR__ROW(u, a); FTR__ROW(v, b), u * v);
}

static double FTR__S(exp_sum_only)(int64_t n, const float *x, float shift) {
    FTR__ROW_SUM(FTR__ROW(v, x), FTR__S(first_lanes)(FTR__S(exponential)(v - shift), left));
}

static double FTR__S(exp_sum)(int64_t n, const float *x, float shift, float *out) {
    if (!out) return FTR__S(exp_sum_only)(n, x, shift);
    FTR__ROW_SUM(FTR__ROW(v, x); const FTR__VF e = FTR__S(exponential)(v - shift);
                 FTR__STORE_SOME(out + i, e, left), FTR__S(first_lanes)(e, left));
}

/* Element i of 16 goes to partial sum i, so that the width does not matter; the square
 * of a float is exact in double, so that fusing does not matter either. */

FTR__INLINE void FTR__S(add_squares)(const float *x, FTR__S(vd) sums[32 / FTR__W]) {
    FTR__UNROLL
    for (int k = 0; k < 32 / FTR__W; k++) {
        FTR__S(vf_half) part;
        __builtin_memcpy(&part, x + k * (FTR__W / 2), sizeof part);
        const FTR__S(vd) wide = __builtin_convertvector(part, FTR__S(vd));
        sums[k] += wide * wide;
    }
}

static double FTR__S(sum_squares)(int64_t n, const float *x) {
    FTR__S(vd) sums[32 / FTR__W] = {{0}};
    float rest[16] = {0};
    double lanes[16];
    for (; n >= 16; n -= 16, x += 16) FTR__S(add_squares)(x, sums);
    for (int64_t i = 0; i < n; i++) rest[i] = x[i];
    FTR__S(add_squares)(rest, sums);
    __builtin_memcpy(lanes, sums, sizeof lanes);
    for (int width = 8; width > 0; width /= 2)
        for (int i = 0; i < width; i++) lanes[i] += lanes[i + width];
    return lanes[0];
}

static float FTR__S(row_maximum)(int64_t n, const float *x) {
    float best = -__builtin_inff();
    int64_t i = 0;
    if (n >= FTR__W) {
        FTR__VF most[2] = {FTR__LOAD(x), FTR__LOAD(x)};
        for (i = FTR__W; i + 2 * FTR__W <= n; i += 2 * FTR__W)
            for (int k = 0; k < 2; k++) most[k] = FTR__S(maximum_of)(FTR__LOAD(x + i + k * FTR__W), most[k]);
        most[0] = FTR__S(maximum_of)(most[0], most[1]);
        for (int k = 0; k < FTR__W; k++) best = most[0][k] > best || most[0][k] != most[0][k] ? most[0][k] : best;
    }
    for (; i < n; i++) best = x[i] > best || x[i] != x[i] ? x[i] : best;
    return best;
}

/* A vector's share of row_moments. */
FTR__INLINE void FTR__S(moments_take)(int64_t i, int64_t left, const float *x, float mean, const float *dy,
                                      const float *gamma, FTR__VF *sum, FTR__VF *product) {
    __builtin_prefetch(x + i + FTR__ROW_AHEAD);
    if (dy) __builtin_prefetch(dy + i + FTR__ROW_AHEAD);
    const FTR__VF apart = FTR__S(first_lanes)(FTR__LOAD_SOME(x + i, left) - mean, left);
    FTR__VF u = dy ? FTR__LOAD_SOME(dy + i, left) : apart;
    if (gamma) u *= FTR__LOAD_SOME(gamma + i, left);
    *sum += u;
    *product = FTR__FMA(u, apart, *product);
}

static void FTR__S(row_moments)(int64_t n, const float *x, float mean, const float *dy, const float *gamma,
                                double sums[2]) {
    sums[0] = sums[1] = 0;
    for (int64_t at = 0; at < n;) {
        FTR__VF sum[2] = {{0}, {0}}, product[2] = {{0}, {0}};
        for (int block = 0; block < FTR__SUM_BLOCK && at + 2 * FTR__W <= n; block++, at += 2 * FTR__W)
            for (int k = 0; k < 2; k++)
                FTR__S(moments_take)(at + k * FTR__W, FTR__W, x, mean, dy, gamma, &sum[k], &product[k]);
        for (; at < n && n - at < 2 * FTR__W; at += FTR__W)
            FTR__S(moments_take)(at, n - at < FTR__W ? n - at : FTR__W, x, mean, dy, gamma, &sum[0], &product[0]);
        sums[0] += FTR__S(lanes_sum)(sum[0] + sum[1]);
        sums[1] += FTR__S(lanes_sum)(product[0] + product[1]);
    }
}

static void FTR__S(row_norm)(int64_t n, const float *x, float mean, float scale, float shift, const float *gamma,
                             const float *beta, float *y) {
    const FTR__VF a = FTR__SPLAT(scale), b = FTR__SPLAT(shift);
    FTR__ROW_LOOP(__builtin_prefetch(y + i + FTR__ROW_AHEAD, 1); FTR__ROW(v, x); FTR__VF t = FTR__FMA(v - mean, a, b);
                  if (gamma) t *= FTR__LOAD_SOME(gamma + i, left); if (beta) t += FTR__LOAD_SOME(beta + i, left), t, y)
}

static void FTR__S(row_norm_grad)(int64_t n, const float *dy, const float *x, float mean, const float *gamma, float a,
                                  float b, float c, float *dx) {
    const FTR__VF fb = FTR__SPLAT(b), fc = FTR__SPLAT(c);
    FTR__ROW_LOOP(__builtin_prefetch(dx + i + FTR__ROW_AHEAD, 1); FTR__ROW(v, x); FTR__ROW(u, dy); FTR__VF t = u;
                  if (gamma) t *= FTR__LOAD_SOME(gamma + i, left), (t + FTR__FMA(v - mean, fb, fc)) * a, dx)
}

static void FTR__S(row_norm_sums)(int64_t n, const float *dy, const float *x, float mean, float scale, float *sum,
                                  float *product) {
    FTR__ROW_LOOP(
        __builtin_prefetch(x + i + FTR__ROW_AHEAD); __builtin_prefetch(dy + i + FTR__ROW_AHEAD); FTR__ROW(d, dy);
        FTR__ROW(v, x);
        FTR__STORE_SOME(product + i, FTR__FMA(d, (v - mean) * scale, FTR__LOAD_SOME(product + i, left)), left),
        d + FTR__LOAD_SOME(sum + i, left), sum)
}

/* --------------------------------------------------------------------------------------------- column reductions -- */

/* Rows of a matrix from which a whole vector can be read at a column after which `left` columns follow, for the last
 * rows end with the memory. */
FTR__INLINE int64_t FTR__S(safe_rows)(int64_t rows, int64_t left, int64_t stride) {
    if (left >= FTR__W) return rows;
    const int64_t short_rows = (FTR__W - left + stride - 1) / stride;
    return rows > short_rows ? rows - short_rows : 0;
}

typedef enum FTR__S(column_kind) {
    FTR__S(COLUMN_SUM),
    FTR__S(COLUMN_CENTERED),
    FTR__S(COLUMN_DEVIATION),
    FTR__S(COLUMN_MAXIMUM)
} FTR__S(column_kind);

/* Takes one vector of a row into `sum`. `kind` is a constant where this is inlined. */
FTR__INLINE FTR__VF FTR__S(column_take)(FTR__S(column_kind) kind, FTR__VF sum, FTR__VF value, FTR__VF center,
                                        FTR__VF mean) {
    if (kind == FTR__S(COLUMN_MAXIMUM)) return FTR__S(maximum_of)(value, sum);
    if (kind == FTR__S(COLUMN_SUM)) return sum + value;
    if (kind == FTR__S(COLUMN_CENTERED)) return sum + (value - center);
    const FTR__VF apart = (value - center) - mean;
    return FTR__FMA(apart, apart, sum);
}

/* A block of rows of one tile of `vectors` vectors; `left` columns are there, and whole vectors can be read from the
 * first `safe` rows. `vectors` and `kind` are constants where this is inlined. */
FTR__INLINE void FTR__S(column_tile)(FTR__S(column_kind) kind, int vectors, int64_t left, int64_t rows, int64_t safe,
                                     const float *x, int64_t stride, const float *center, const float *mean,
                                     float *out) {
    const bool maximum = kind == FTR__S(COLUMN_MAXIMUM);
    FTR__VF sum[FTR__COLUMN_VECTORS], c[FTR__COLUMN_VECTORS], m[FTR__COLUMN_VECTORS];
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        const int64_t at = v * FTR__W;
        sum[v] = maximum ? FTR__LOAD_SOME(out + at, left - at) : FTR__SPLAT(0.0f);
        c[v] = kind == FTR__S(COLUMN_SUM) || maximum ? FTR__SPLAT(0.0f) : FTR__LOAD_SOME(center + at, left - at);
        m[v] = kind == FTR__S(COLUMN_DEVIATION) ? FTR__LOAD_SOME(mean + at, left - at) : FTR__SPLAT(0.0f);
    }
    for (int64_t r = 0; r < rows; r++, x += stride) {
        FTR__UNROLL for (int v = 0; v < vectors; v++) {
            const bool whole = vectors > 1 || r < safe;
            const FTR__VF value = whole ? FTR__LOAD(x + v * FTR__W) : FTR__S(load_part)(x, left);
            sum[v] = FTR__S(column_take)(kind, sum[v], value, c[v], m[v]);
        }
    }
    FTR__UNROLL for (int v = 0; v < vectors; v++) {
        const int64_t at = v * FTR__W;
        if (!maximum) sum[v] += FTR__LOAD_SOME(out + at, left - at);
        FTR__STORE_SOME(out + at, sum[v], left - at);
    }
}

/* center and mean are read by the kinds that use them. Blocks of rows are the outer loop: they stay in the cache. */
FTR__INLINE void FTR__S(columns)(FTR__S(column_kind) kind, int64_t rows, int64_t count, const float *x, int64_t stride,
                                 const float *center, const float *mean, float *out) {
    const int64_t tile = FTR__COLUMN_VECTORS * FTR__W;
    for (int64_t begin = 0; begin < rows; begin += FTR__COLUMN_BLOCK) {
        const int64_t some = rows - begin < FTR__COLUMN_BLOCK ? rows - begin : FTR__COLUMN_BLOCK;
        const float *row = x + begin * stride;
        int64_t j = 0;
        for (; j + tile <= count; j += tile) FTR__S(column_tile)
        (kind, FTR__COLUMN_VECTORS, tile, some, some, row + j, stride, center + j, mean + j, out + j);
        for (; j < count; j += FTR__W) FTR__S(column_tile)
        (kind, 1, count - j, some, FTR__S(safe_rows)(rows, count - j, stride) - begin, row + j, stride, center + j,
         mean + j, out + j);
    }
}

static void FTR__S(column_sum)(int64_t rows, int64_t count, const float *x, int64_t stride, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_SUM), rows, count, x, stride, out, out, out);
}

static void FTR__S(column_centered_sum)(int64_t rows, int64_t count, const float *x, int64_t stride,
                                        const float *center, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_CENTERED), rows, count, x, stride, center, center, out);
}

static void FTR__S(column_deviation)(int64_t rows, int64_t count, const float *x, int64_t stride, const float *center,
                                     const float *mean, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_DEVIATION), rows, count, x, stride, center, mean, out);
}

static void FTR__S(column_maximum)(int64_t rows, int64_t count, const float *x, int64_t stride, float *out) {
    FTR__S(columns)(FTR__S(COLUMN_MAXIMUM), rows, count, x, stride, out, out, out);
}

/* ------------------------------------------------------------------------------------------------- normalization -- */

/* The activations that may follow a batch norm, and their slopes' products with d. `activation` is a constant where these are
 * used. */
FTR__INLINE FTR__VF FTR__S(norm_activate)(ftr_activation activation, FTR__VF u) {
    switch (activation) {
    case FTR_ACT_RELU: return FTR__S(keep_positive)(u);
    case FTR_ACT_RELU6: return FTR__S(limited)(u, 0.0f, 6.0f);
    case FTR_ACT_HARDSWISH: return u * FTR__S(hardsigmoid)(u);
    case FTR_ACT_SILU: return FTR__S(silu)(u);
    default: return u;
    }
}

FTR__INLINE FTR__VF FTR__S(norm_slope)(ftr_activation activation, FTR__VF d, FTR__VF u) {
    switch (activation) {
    case FTR_ACT_RELU: return FTR__SELECT(u <= 0.0f, FTR__SPLAT(0.0f), d);
    case FTR_ACT_RELU6: return FTR__SELECT((u > 0.0f) & (u < 6.0f), d, FTR__SPLAT(0.0f));
    case FTR_ACT_HARDSWISH: return FTR__S(hardswish_grad)(d, u);
    case FTR_ACT_SILU: return d * FTR__S(silu_slope)(u);
    default: return d;
    }
}

/* `with_residual` and `activation` are constants where this is inlined. */
FTR__INLINE void FTR__S(norm_rows)(bool with_residual, ftr_activation activation, int64_t rows, int64_t columns,
                                   const float *x, const float *mean, const float *scale, const float *shift,
                                   const float *residual, float *y) {
    for (int64_t r = 0; r < rows; r++) {
        const int64_t n = columns, row = r * columns;
        FTR__ROW_LOOP(__builtin_prefetch(x + row + i + FTR__ROW_AHEAD); FTR__ROW(v, x + row); FTR__ROW(m, mean);
                      FTR__ROW(a, scale); FTR__ROW(b, shift); FTR__VF t = FTR__FMA(v - m, a, b);
                      if (with_residual) t += FTR__LOAD_SOME(residual + row + i, left),
                      FTR__S(norm_activate)(activation, t), y + row)
    }
}

static void FTR__S(norm_apply)(int64_t rows, int64_t columns, const float *x, const float *mean, const float *scale,
                               const float *shift, const float *residual, ftr_activation activation, float *y) {
#define FTR__NORM_APPLY(with_residual, act)                                                                            \
    FTR__S(norm_rows)(with_residual, act, rows, columns, x, mean, scale, shift, residual, y)
    switch (activation) {
    case FTR_ACT_RELU:
        if (residual)
            FTR__NORM_APPLY(true, FTR_ACT_RELU);
        else
            FTR__NORM_APPLY(false, FTR_ACT_RELU);
        break;
    case FTR_ACT_RELU6: FTR__NORM_APPLY(false, FTR_ACT_RELU6); break;
    case FTR_ACT_HARDSWISH: FTR__NORM_APPLY(false, FTR_ACT_HARDSWISH); break;
    case FTR_ACT_SILU: FTR__NORM_APPLY(false, FTR_ACT_SILU); break;
    default:
        if (residual)
            FTR__NORM_APPLY(true, FTR_ACT_NONE);
        else
            FTR__NORM_APPLY(false, FTR_ACT_NONE);
    }
#undef FTR__NORM_APPLY
}

/* As norm_rows, a vector of all rows at a time, of which `left` elements are there, if not the whole. */
FTR__INLINE void FTR__S(norm_tile_vector)(bool whole, bool with_residual, ftr_activation activation, int64_t rows,
                                          int64_t j, int64_t left, const float *const *x, float *const *y,
                                          const float *const *residual, const float *mean, const float *scale,
                                          const float *shift) {
#define FTR__NORM_LOAD(p) (whole ? FTR__LOAD(p) : FTR__LOAD_SOME(p, left))
    const FTR__VF m = FTR__NORM_LOAD(mean + j), a = FTR__NORM_LOAD(scale + j), b = FTR__NORM_LOAD(shift + j);
    const int64_t next = rows > 1 ? rows * (y[1] - y[0]) : 0; /* to the rows below */
    for (int64_t r = 0; r < rows; r++) {
        if (x[r] != y[r]) __builtin_prefetch(y[r] + (j + next), 1);
        FTR__VF t = FTR__FMA(FTR__NORM_LOAD(x[r] + j) - m, a, b);
        if (with_residual) t += FTR__NORM_LOAD(residual[r] + j);
        t = FTR__S(norm_activate)(activation, t);
        if (whole)
            FTR__STORE(y[r] + j, t);
        else
            FTR__STORE_SOME(y[r] + j, t, left);
    }
#undef FTR__NORM_LOAD
}

FTR__INLINE void FTR__S(norm_tile_rows)(bool with_residual, ftr_activation activation, int64_t rows, int64_t columns,
                                        const float *const *x, float *const *y, const float *const *residual,
                                        const float *mean, const float *scale, const float *shift) {
    int64_t j = 0;
    for (; j + FTR__W <= columns; j += FTR__W)
        FTR__S(norm_tile_vector)(true, with_residual, activation, rows, j, FTR__W, x, y, residual, mean, scale, shift);
    if (j < columns) FTR__S(norm_tile_vector)
    (false, with_residual, activation, rows, j, columns - j, x, y, residual, mean, scale, shift);
}

static void FTR__S(norm_tile)(int64_t rows, int64_t columns, const float *const *x, float *const *y,
                              const float *const *residual, const float *mean, const float *scale, const float *shift,
                              ftr_activation activation) {
#define FTR__NORM_TILE_ROWS(with_residual, act)                                                                        \
    FTR__S(norm_tile_rows)(with_residual, act, rows, columns, x, y, residual, mean, scale, shift)
    switch (activation) {
    case FTR_ACT_RELU:
        if (residual)
            FTR__NORM_TILE_ROWS(true, FTR_ACT_RELU);
        else
            FTR__NORM_TILE_ROWS(false, FTR_ACT_RELU);
        break;
    case FTR_ACT_RELU6: FTR__NORM_TILE_ROWS(false, FTR_ACT_RELU6); break;
    case FTR_ACT_HARDSWISH: FTR__NORM_TILE_ROWS(false, FTR_ACT_HARDSWISH); break;
    case FTR_ACT_SILU: FTR__NORM_TILE_ROWS(false, FTR_ACT_SILU); break;
    default:
        if (residual)
            FTR__NORM_TILE_ROWS(true, FTR_ACT_NONE);
        else
            FTR__NORM_TILE_ROWS(false, FTR_ACT_NONE);
    }
#undef FTR__NORM_TILE_ROWS
}

/* g of a vector of dy. `at` is its place in dy, x and y, j that in the channels. */
FTR__INLINE FTR__VF FTR__S(norm_gated)(ftr_activation activation, bool by_y, const ftr__norm_gate *gate, FTR__VF d,
                                       FTR__VF centered, int64_t at, int64_t j, int64_t lanes) {
    if (activation == FTR_ACT_NONE) return d;
    if (by_y) return FTR__SELECT(FTR__LOAD_SOME(gate->y + at, lanes) <= 0.0f, FTR__SPLAT(0.0f), d);
    const FTR__VF scale = FTR__LOAD_SOME(gate->scale + j, lanes), shift = FTR__LOAD_SOME(gate->shift + j, lanes);
    return FTR__S(norm_slope)(activation, d, FTR__FMA(centered, scale, shift));
}

/* Sums of up to FTR__COLUMN_BLOCK rows, in `block`, which is added at the end: vectors of a row one after the other, as they
 * lie in memory, four rows at a time. Without dy, g is x - mean. `activation`, by_y and whether there is dy are constants
 * where this is inlined. */
#define FTR__NORM_ROWS 4
#define FTR__NORM_AHEAD 8 /* rows that are asked for before they are needed */
FTR__INLINE void FTR__S(norm_grad_block)(ftr_activation activation, bool by_y, int64_t rows, int64_t columns,
                                         int64_t stride, const float *dy, const float *x, const ftr__norm_gate *gate,
                                         const float *mean, float *block) {
    int64_t r = 0;
    for (; r < rows; r += FTR__NORM_ROWS) {
        const int64_t some = rows - r < FTR__NORM_ROWS ? rows - r : FTR__NORM_ROWS;
        for (int64_t j = 0; j < columns; j += FTR__W) {
            const int64_t lanes = columns - j;
            const FTR__VF center = FTR__LOAD_SOME(mean + j, lanes);
            FTR__VF sum = FTR__LOAD(block + 2 * j), product = FTR__LOAD(block + 2 * j + FTR__W);
            for (int64_t i = 0; i < some; i++) {
                const int64_t at = (r + i) * stride + j;
                __builtin_prefetch(x + at + FTR__NORM_AHEAD * stride);
                if (dy) __builtin_prefetch(dy + at + FTR__NORM_AHEAD * stride);
                const FTR__VF v = FTR__LOAD_SOME(x + at, lanes) - center;
                const FTR__VF g =
                    dy ? FTR__S(norm_gated)(activation, by_y, gate, FTR__LOAD_SOME(dy + at, lanes), v, at, j, lanes)
                       : v;
                if (activation == FTR_ACT_SILU) FTR__STORE_SOME(gate->to + at, g, lanes);
                sum += g;
                product = FTR__FMA(g, v, product);
            }
            FTR__STORE(block + 2 * j, sum);
            FTR__STORE(block + 2 * j + FTR__W, product);
        }
    }
}

FTR__INLINE void FTR__S(norm_grad_columns)(ftr_activation activation, bool by_y, int64_t rows, int64_t columns,
                                           int64_t stride, const float *dy, const float *x, const ftr__norm_gate *gate,
                                           const float *mean, float *sum, float *product) {
    float block[2 * FTR__NORM_TILE];
    for (int64_t begin = 0; begin < rows; begin += FTR__COLUMN_BLOCK) {
        const int64_t some = rows - begin < FTR__COLUMN_BLOCK ? rows - begin : FTR__COLUMN_BLOCK, at = begin * stride;
        ftr__norm_gate here = *gate;
        if (by_y) here.y += at;
        if (activation == FTR_ACT_SILU) here.to += at;
        for (int64_t j = 0; j < 2 * columns; j += FTR__W) FTR__STORE(block + j, FTR__SPLAT(0.0f));
        if (columns % FTR__W) FTR__STORE(block + 2 * (columns - columns % FTR__W) + FTR__W, FTR__SPLAT(0.0f));
        FTR__S(norm_grad_block)
        (activation, by_y, some, columns, stride, dy ? dy + at : NULL, x + at, &here, mean, block);
        for (int64_t j = 0; j < columns; j += FTR__W) {
            const int64_t lanes = columns - j;
            FTR__STORE_SOME(sum + j, FTR__LOAD_SOME(sum + j, lanes) + FTR__LOAD(block + 2 * j), lanes);
            FTR__STORE_SOME(product + j, FTR__LOAD_SOME(product + j, lanes) + FTR__LOAD(block + 2 * j + FTR__W), lanes);
        }
    }
}
#undef FTR__NORM_ROWS
#undef FTR__NORM_AHEAD

FTR__INLINE void FTR__S(norm_grad_rows)(ftr_activation activation, bool by_y, int64_t rows, int64_t columns,
                                        const float *dy, const float *x, const ftr__norm_gate *gate, const float *mean,
                                        const float *a, const float *b, const float *c, float *dx) {
    for (int64_t r = 0; r < rows; r++) {
        const int64_t n = columns, row = r * columns;
        FTR__ROW_LOOP(__builtin_prefetch(x + row + i + FTR__ROW_AHEAD);
                      __builtin_prefetch(dy + row + i + FTR__ROW_AHEAD); FTR__ROW(d, dy + row); FTR__ROW(v, x + row);
                      FTR__ROW(m, mean); FTR__ROW(fa, a); FTR__ROW(fb, b); FTR__ROW(fc, c);
                      const FTR__VF centered = v - m;
                      const FTR__VF g = FTR__S(norm_gated)(activation, by_y, gate, d, centered, row + i, i, left),
                      FTR__FMA(g, fa, FTR__FMA(centered, fb, fc)), dx + row)
    }
}

/* FUNCTION(activation, by_y) with constants. */
#define FTR__BY_ACTIVATION(function)                                                                                   \
    switch (gate->activation) {                                                                                        \
    case FTR_ACT_RELU:                                                                                                 \
        if (gate->y)                                                                                                   \
            function(FTR_ACT_RELU, true);                                                                              \
        else                                                                                                           \
            function(FTR_ACT_RELU, false);                                                                             \
        break;                                                                                                         \
    case FTR_ACT_RELU6: function(FTR_ACT_RELU6, false); break;                                                         \
    case FTR_ACT_HARDSWISH: function(FTR_ACT_HARDSWISH, false); break;                                                 \
    case FTR_ACT_SILU: function(FTR_ACT_SILU, false); break;                                                           \
    default: function(FTR_ACT_NONE, false); break;                                                                     \
    }

static void FTR__S(norm_moments)(int64_t rows, int64_t columns, const float *x, int64_t stride, const float *center,
                                 float *sum, float *squares) {
    const ftr__norm_gate none = {.activation = FTR_ACT_NONE};
    FTR__S(norm_grad_columns)(FTR_ACT_NONE, false, rows, columns, stride, NULL, x, &none, center, sum, squares);
}

static void FTR__S(norm_grad_sums)(int64_t rows, int64_t columns, int64_t stride, const float *dy, const float *x,
                                   const ftr__norm_gate *gate, const float *mean, float *sum, float *product) {
#define FTR__NORM_SUMS(act, by_y)                                                                                      \
    FTR__S(norm_grad_columns)(act, by_y, rows, columns, stride, dy, x, gate, mean, sum, product)
    FTR__BY_ACTIVATION(FTR__NORM_SUMS)
#undef FTR__NORM_SUMS
}

static void FTR__S(norm_grad_apply)(int64_t rows, int64_t columns, const float *dy, const float *x,
                                    const ftr__norm_gate *gate, const float *mean, const float *a, const float *b,
                                    const float *c, float *dx) {
#define FTR__NORM_APPLY(act, by_y) FTR__S(norm_grad_rows)(act, by_y, rows, columns, dy, x, gate, mean, a, b, c, dx)
    FTR__BY_ACTIVATION(FTR__NORM_APPLY)
#undef FTR__NORM_APPLY
}
#undef FTR__BY_ACTIVATION

/* ------------------------------------------------------------------------------------------------------- pooling -- */

static void FTR__S(window_maximum)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                                   int32_t first_index, float *out, int32_t *index) {
    for (int64_t c = 0; c < channels; c += FTR__W) {
        const int64_t left = channels - c;
        FTR__VF best = FTR__SPLAT(-__builtin_inff());
        FTR__VI where = (FTR__VI){0} + first_index;
        for (int64_t h = 0; h < rows; h++)
            for (int64_t w = 0; w < columns; w++) {
                const FTR__VF v = FTR__LOAD_SOME(x + (h * width + w) * channels + c, left);
                const FTR__VI take = (v > best) | ((v != v) & (best == best));
                const FTR__VI here = (FTR__VI){0} + (first_index + (int32_t)(h * width + w));
                best = FTR__SELECT(take, v, best);
                where = (take & here) | (~take & where);
            }
        FTR__STORE_SOME(out + c, best, left);
        const int64_t lanes = left < FTR__W ? left : FTR__W;
        __builtin_memcpy(index + c, &where, (size_t)lanes * sizeof *index);
    }
}

static void FTR__S(window_mean)(int64_t channels, const float *x, int64_t rows, int64_t columns, int64_t width,
                                float divisor, float *out) {
    for (int64_t c = 0; c < channels; c += FTR__W) {
        const int64_t left = channels - c;
        FTR__VF sum = {0};
        for (int64_t h = 0; h < rows; h++)
            for (int64_t w = 0; w < columns; w++) sum += FTR__LOAD_SOME(x + (h * width + w) * channels + c, left);
        FTR__STORE_SOME(out + c, sum / divisor, left);
    }
}

/* ------------------------------------------------------------------------------------------------------- dropout -- */

typedef uint64_t FTR__S(vw) __attribute__((vector_size(4 * FTR__W)));

/* Products of the lower halves of 64-bit numbers. */
FTR__INLINE FTR__S(vw) FTR__S(multiply_wide)(FTR__S(vw) a, FTR__S(vw) b) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__S(vw))_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__S(vw))_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif FTR__SIMD_LEVEL == 0 && defined(__x86_64__)
    return (FTR__S(vw))_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffffu) * (b & 0xffffffffu);
#endif
}

/* The upper halves as lower ones; what the upper ones become does not matter. */
FTR__INLINE FTR__S(vw) FTR__S(upper_half)(FTR__S(vw) a) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__S(vw))_mm512_movehdup_ps((__m512)a);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__S(vw))_mm256_movehdup_ps((__m256)a);
#else
    return a >> 32;
#endif
}

/* Philox 4x32-10 for FTR__W blocks from `block` on, one a lane, as ftr__philox(). Lane l of numbers[k] is number k
 * of block block + l. `counter` is the upper half. Even and odd blocks are computed apart (c and d), each number in the lower half of 64 bits, as
 * multiplications have it; what is in the upper halves does not matter. */
FTR__INLINE void FTR__S(philox)(const uint32_t key[2], const uint32_t counter[2], uint64_t block, FTR__VU numbers[4]) {
    const FTR__S(vw) zero = {0}, factor0 = zero + 0xD2511F53u, factor1 = zero + 0xCD9E8D57u;
    const uint64_t even[8] = {0, 2, 4, 6, 8, 10, 12, 14};
    FTR__S(vw) c0, c2 = zero + counter[0], c3 = zero + counter[1], d2 = c2, d3 = c3;
    __builtin_memcpy(&c0, even, sizeof c0);
    c0 += block;
    FTR__S(vw) d0 = c0 + 1, c1 = c0 >> 32, d1 = d0 >> 32;
    FTR__S(vw) key0 = zero + key[0], key1 = zero + key[1];
    for (int round = 0; round < 10; round++, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
        const FTR__S(vw) c_first = FTR__S(multiply_wide)(c0, factor0), c_second = FTR__S(multiply_wide)(c2, factor1);
        const FTR__S(vw) d_first = FTR__S(multiply_wide)(d0, factor0), d_second = FTR__S(multiply_wide)(d2, factor1);
        c0 = FTR__S(upper_half)(c_second) ^ (c1 ^ key0), c2 = FTR__S(upper_half)(c_first) ^ (c3 ^ key1);
        d0 = FTR__S(upper_half)(d_second) ^ (d1 ^ key0), d2 = FTR__S(upper_half)(d_first) ^ (d3 ^ key1);
        c1 = c_second, c3 = c_first;
        d1 = d_second, d3 = d_first;
    }
    numbers[0] = (FTR__VU)((c0 & 0xffffffffu) | (d0 << 32));
    numbers[1] = (FTR__VU)((c1 & 0xffffffffu) | (d1 << 32));
    numbers[2] = (FTR__VU)((c2 & 0xffffffffu) | (d2 << 32));
    numbers[3] = (FTR__VU)((c3 & 0xffffffffu) | (d3 << 32));
}

static void FTR__S(dropout)(int64_t n, const ftr__dropout_stream *stream, uint64_t block, const float *x, float *y) {
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        uint32_t lanes[4][FTR__W];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        __builtin_memcpy(lanes, numbers, sizeof lanes);
        const int64_t some = n - i < 4 * FTR__W ? n - i : 4 * FTR__W;
        for (int64_t k = 0; k < some; k++) {
            const uint32_t number = lanes[k % 4][k / 4];
            const uint32_t keep =
                0u - (uint32_t)(number >= stream->threshold); /* a mask: a branch is guessed wrongly */
            const float scaled = x[i + k] * stream->scale;
            uint32_t bits;
            __builtin_memcpy(&bits, &scaled, sizeof bits);
            bits &= keep;
            __builtin_memcpy(&y[i + k], &bits, sizeof bits);
        }
    }
}

/* --------------------------------------------------------------------------------------------------- conversions -- */

/* Vectors of 16-bit integers, the elements zero-extended to 32 bits and back. */
typedef uint16_t FTR__S(vh) __attribute__((vector_size(2 * FTR__W)));
#define FTR__VH FTR__S(vh)

FTR__INLINE FTR__VU FTR__S(select_bits)(FTR__VI mask, FTR__VU a, FTR__VU b) {
    return ((FTR__VU)mask & a) | (~(FTR__VU)mask & b);
}

/* Normal numbers get the exponent's other bias; the largest exponent stays the largest, and a NaN becomes quiet; below the
 * normal range the fraction counts multiples of 2^-24. */
FTR__INLINE FTR__VF FTR__S(widen_f16)(FTR__VH x) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VF)_mm512_cvtph_ps((__m256i)x);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VF)_mm256_cvtph_ps((__m128i)x);
#else
    const FTR__VU bits = __builtin_convertvector(x, FTR__VU), size = bits & 0x7fffu, shifted = size << 13;
    const FTR__VF small = __builtin_convertvector((FTR__VI)size, FTR__VF) * 0x1p-24f;
    FTR__VU result = FTR__S(select_bits)(size < 0x400u, (FTR__VU)small, shifted + (112u << 23));
    result = FTR__S(select_bits)(size >= 0x7c00u, shifted | 0x7f800000u, result);
    result = FTR__S(select_bits)(size > 0x7c00u, result | 0x400000u, result);
    return (FTR__VF)(result | (bits & 0x8000u) << 16);
#endif
}

/* Adding half of the last kept bit, less a bit if the kept part is even, and cutting rounds to the nearest, ties to even;
 * a carry goes into the exponent. Below the normal range the sum with 1/2, whose last bit is 2^-24, is what rounds. */
FTR__INLINE FTR__VH FTR__S(narrow_f16)(FTR__VF x) {
#if FTR__SIMD_LEVEL == 3 && !defined(FASTTRAIN_EMULATE_AVX512)
    return (FTR__VH)_mm512_maskz_cvtps_ph((__mmask16)0xffff, (__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif FTR__SIMD_LEVEL == 2
    return (FTR__VH)_mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
#else
    const FTR__VU bits = (FTR__VU)x, size = bits & 0x7fffffffu;
    const FTR__VU small = (FTR__VU)((FTR__VF)size + 0.5f) - 0x3f000000u;
    const FTR__VU rounded = (size + 0xfffu + (size >> 13 & 1u) - (112u << 23)) >> 13;
    FTR__VU result = FTR__S(select_bits)(size < (113u << 23), small, rounded);
    result = FTR__S(select_bits)(size >= 0x47800000u, (FTR__VU){0} + 0x7c00u, result); /* 65536 and more */
    result = FTR__S(select_bits)(size > 0x7f800000u, 0x7e00u | (size >> 13 & 0x3ffu), result);
    return __builtin_convertvector(result | (bits >> 16 & 0x8000u), FTR__VH);
#endif
}

FTR__INLINE FTR__VF FTR__S(widen_bf16)(FTR__VH x) { return (FTR__VF)(__builtin_convertvector(x, FTR__VU) << 16); }

/* In integers at every level: the instruction that AVX-512 has for it takes numbers below the normal range for 0. */
FTR__INLINE FTR__VH FTR__S(narrow_bf16)(FTR__VF x) {
    const FTR__VU bits = (FTR__VU)x, rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const FTR__VI is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return __builtin_convertvector(FTR__S(select_bits)(is_nan, bits >> 16 | 0x40u, rounded), FTR__VH);
}

#define FTR__CONVERSIONS(type)                                                                                         \
    static void FTR__S(row_widen_##type)(int64_t n, const uint16_t *x, float *out) {                                   \
        FTR__VH v;                                                                                                     \
        for (; n >= FTR__W; n -= FTR__W, x += FTR__W, out += FTR__W) {                                                 \
            __builtin_memcpy(&v, x, sizeof v);                                                                         \
            FTR__STORE(out, FTR__S(widen_##type)(v));                                                                  \
        }                                                                                                              \
        if (n == 0) return;                                                                                            \
        uint16_t part[FTR__W] = {0};                                                                                   \
        for (int64_t i = 0; i < n; i++) part[i] = x[i];                                                                \
        __builtin_memcpy(&v, part, sizeof v);                                                                          \
        FTR__S(store_part)(out, FTR__S(widen_##type)(v), n);                                                           \
    }                                                                                                                  \
    static void FTR__S(row_narrow_##type)(int64_t n, const float *x, uint16_t *out) {                                  \
        FTR__VH v;                                                                                                     \
        for (; n >= FTR__W; n -= FTR__W, x += FTR__W, out += FTR__W) {                                                 \
            v = FTR__S(narrow_##type)(FTR__LOAD(x));                                                                   \
            __builtin_memcpy(out, &v, sizeof v);                                                                       \
        }                                                                                                              \
        if (n == 0) return;                                                                                            \
        uint16_t part[FTR__W];                                                                                         \
        v = FTR__S(narrow_##type)(FTR__S(load_part)(x, n));                                                            \
        __builtin_memcpy(part, &v, sizeof v);                                                                          \
        for (int64_t i = 0; i < n; i++) out[i] = part[i];                                                              \
    }

FTR__CONVERSIONS(f16)
FTR__CONVERSIONS(bf16)

/* ------------------------------------------------------------------------------------------------ random tensors -- */

/* [0, 1) with 24 bits, as ftr__rng_uniform(). */
FTR__INLINE FTR__VF FTR__S(unit)(FTR__VU number) {
    return __builtin_convertvector((FTR__VI)(number >> 8), FTR__VF) * FTR__SPLAT(0x1p-24f);
}

/* Lane l of made[k] is element 4 l + k. */
FTR__INLINE void FTR__S(store_blocks)(int64_t n, const FTR__VF made[4], float *out) {
    float lanes[4][FTR__W];
    __builtin_memcpy(lanes, made, sizeof lanes);
    for (int64_t k = 0; k < 4 * FTR__W && k < n; k++) out[k] = lanes[k % 4][k / 4];
}

static void FTR__S(random_uniform)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out) {
    const FTR__VF low = FTR__SPLAT(stream->offset), range = FTR__SPLAT(stream->scale), most = FTR__SPLAT(stream->most);
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        FTR__VF made[4];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        for (int k = 0; k < 4; k++) made[k] = FTR__S(minimum_of)(FTR__FMA(range, FTR__S(unit)(numbers[k]), low), most);
        FTR__S(store_blocks)(n - i, made, out + i);
    }
}

/* Cosine and sine of 2 pi v for v in [0, 1): of the angle to the nearest quarter turn, at most pi / 4, by minimax
 * polynomials (relative error 9e-9), then turned. v has 24 bits, so that the difference is exact. */
FTR__INLINE void FTR__S(turn)(FTR__VF v, FTR__VF *cosine, FTR__VF *sine) {
    const FTR__VF round = FTR__SPLAT(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const FTR__VF shifted = v * 4.0f + round;
    const FTR__VU quarter = (FTR__VU)shifted - (FTR__VU)round;
    const FTR__VF a = (v - (shifted - round) * 0.25f) * FTR__SPLAT(6.28318530718f), square = a * a;
    FTR__VF s = FTR__FMA(FTR__SPLAT(-0.000195152825f), square, FTR__SPLAT(0.0083321603f));
    s = FTR__FMA(s, square, FTR__SPLAT(-0.166666552f));
    s = FTR__FMA(s * square, a, a);
    FTR__VF c = FTR__FMA(FTR__SPLAT(2.44331568e-05f), square, FTR__SPLAT(-0.00138873165f));
    c = FTR__FMA(c, square, FTR__SPLAT(0.0416666456f));
    c = FTR__FMA(c * square, square, FTR__FMA(square, FTR__SPLAT(-0.5f), FTR__SPLAT(1.0f)));
    const FTR__VI odd = (FTR__VI)(quarter & 1u) != 0;
    *cosine = (FTR__VF)((FTR__VU)FTR__SELECT(odd, s, c) ^ ((quarter + 1u) & 2u) << 30);
    *sine = (FTR__VF)((FTR__VU)FTR__SELECT(odd, c, s) ^ (quarter & 2u) << 30);
}

static void FTR__S(random_normal)(int64_t n, const ftr__random_stream *stream, uint64_t block, float *out) {
    const FTR__VF mean = FTR__SPLAT(stream->offset), deviation = FTR__SPLAT(stream->scale);
    for (int64_t i = 0; i < n; i += 4 * FTR__W, block += FTR__W) {
        FTR__VU numbers[4];
        FTR__VF made[4];
        FTR__S(philox)(stream->key, stream->counter, block, numbers);
        for (int k = 0; k < 4; k += 2) {
            const FTR__VF log = FTR__S(logarithm)(1.0f - FTR__S(unit)(numbers[k]));
            const FTR__VF radius = deviation * FTR__S(square_root)(log * -2.0f);
            FTR__VF cosine, sine;
            FTR__S(turn)(FTR__S(unit)(numbers[k + 1]), &cosine, &sine);
            made[k] = FTR__FMA(radius, cosine, mean);
            made[k + 1] = FTR__FMA(radius, sine, mean);
        }
        FTR__S(store_blocks)(n - i, made, out + i);
    }
}

#define FTR__SIMD_MATH_BINARY(name)                                                                                    \
    { FTR__S(name##_rows), FTR__S(name##_right), FTR__S(name##_left) }
/* ------------------------------------------------------------------------------------------------------- copying -- */

/* Whole cache lines are written past the caches, which would otherwise be read first. */
static void FTR__S(row_stream)(size_t bytes, const unsigned char *x, unsigned char *out) {
#if FTR__SIMD_LEVEL >= 2
    const size_t head = (size_t)(-(uintptr_t)out & 63u);
    if (bytes >= head + 64) {
        __builtin_memcpy(out, x, head);
        bytes -= head, x += head, out += head;
        for (; bytes >= 64; bytes -= 64, x += 64, out += 64) {
            _mm256_stream_si256((__m256i *)(void *)out, _mm256_loadu_si256((const __m256i *)(const void *)x));
            _mm256_stream_si256((__m256i *)(void *)(out + 32),
                                _mm256_loadu_si256((const __m256i *)(const void *)(x + 32)));
        }
        _mm_sfence(); /* such writes wait for no lock */
    }
#endif
    __builtin_memcpy(out, x, bytes);
}

#define FTR__SIMD_MATH_FUNCTIONS                                                                                       \
    {                                                                                                                  \
        .binary = {FTR__SIMD_MATH_BINARY(row_add),     FTR__SIMD_MATH_BINARY(row_sub),                                 \
                   FTR__SIMD_MATH_BINARY(row_mul),     FTR__SIMD_MATH_BINARY(row_div),                                 \
                   FTR__SIMD_MATH_BINARY(row_maximum), FTR__SIMD_MATH_BINARY(row_minimum)},                            \
        .unary = {FTR__S(row_neg),   FTR__S(row_exp),  FTR__S(row_log),     FTR__S(row_sqrt),                          \
                  FTR__S(row_rsqrt), FTR__S(row_tanh), FTR__S(row_sigmoid), FTR__S(row_relu)},                         \
        .activation_grad = {FTR__S(row_tanh_grad), FTR__S(row_sigmoid_grad), FTR__S(row_relu_grad)},                   \
        .row_moments = FTR__S(row_moments), .row_norm = FTR__S(row_norm), .row_norm_grad = FTR__S(row_norm_grad),      \
        .row_norm_sums = FTR__S(row_norm_sums),                                                                        \
        .activation = {FTR__S(row_clamp),       FTR__S(row_leaky_relu), FTR__S(row_elu),  FTR__S(row_softplus),        \
                       FTR__S(row_hardswish),   FTR__S(row_silu),       FTR__S(row_gelu), FTR__S(row_gelu_tanh),       \
                       FTR__S(row_hardsigmoid), FTR__S(row_erf)},                                                      \
        .activation_slope = {FTR__S(row_clamp_slope),    FTR__S(row_leaky_relu_slope), FTR__S(row_elu_slope),          \
                             FTR__S(row_softplus_slope), FTR__S(row_hardswish_slope),  FTR__S(row_silu_slope),         \
                             FTR__S(row_gelu_slope),     FTR__S(row_gelu_tanh_slope)},                                 \
        .sum = FTR__S(row_sum), .dot = FTR__S(row_dot), .sum_squares = FTR__S(sum_squares),                            \
        .maximum = FTR__S(row_maximum), .column_sum = FTR__S(column_sum),                                              \
        .column_centered_sum = FTR__S(column_centered_sum), .column_deviation = FTR__S(column_deviation),              \
        .column_maximum = FTR__S(column_maximum), .norm_apply = FTR__S(norm_apply), .norm_tile = FTR__S(norm_tile),    \
        .norm_moments = FTR__S(norm_moments), .norm_grad_sums = FTR__S(norm_grad_sums),                                \
        .norm_grad_apply = FTR__S(norm_grad_apply), .exp_sum = FTR__S(exp_sum),                                        \
        .exp_scale_add = FTR__S(exp_scale_add), .subtract_twice = FTR__S(subtract_twice),                              \
        .softmax_grad = FTR__S(softmax_grad), .log_softmax_grad = FTR__S(log_softmax_grad), .axpy = FTR__S(axpy),      \
        .blend = FTR__S(blend), .mix = FTR__S(mix), .window_maximum = FTR__S(window_maximum),                          \
        .window_mean = FTR__S(window_mean), .scatter_add = FTR__S(scatter_add), .dropout = FTR__S(dropout),            \
        .random_uniform = FTR__S(random_uniform), .random_normal = FTR__S(random_normal),                              \
        .widen = {FTR__S(row_widen_f16), FTR__S(row_widen_bf16)},                                                      \
        .narrow = {FTR__S(row_narrow_f16), FTR__S(row_narrow_bf16)}, .stream = FTR__S(row_stream),                     \
    }

#undef FTR__COLUMN_VECTORS
#undef FTR__CONVERSIONS
#undef FTR__VH
#undef FTR__COLUMN_BLOCK
#undef FTR__SUM_BLOCK
#undef FTR__ROW_LOOP
#undef FTR__ROW
#undef FTR__ROW_AHEAD
#undef FTR__BINARY_FUNCTION
#undef FTR__UNARY_FUNCTION
#undef FTR__GRAD_FUNCTION
#undef FTR__ACTIVATION_FUNCTION
#undef FTR__SLOPE_FUNCTION
#undef FTR__ROW_SUM
