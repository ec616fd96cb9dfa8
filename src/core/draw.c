#include "core/draw.h"

#include <math.h>

/* A product that no compiler fuses with what comes after it. */
static double ftr__plain_product(double a, double b) {
    volatile double product = a * b;
    return product;
}

/* The sum of coefficient[i] z^i. */
static double ftr__plain_polynomial(const double *coefficient, int32_t count, double z) {
    double sum = 0.0;
    for (int32_t i = count - 1; i >= 0; i--) sum = coefficient[i] + ftr__plain_product(sum, z);
    return sum;
}

#define FTR__LN2_HIGH 0x1.62e42fefa38p-1 /* ends in zeros: products with small integers are exact */
#define FTR__LN2_LOW 0x1.ef35793c7673p-45

/* x = m 2^e with m from sqrt(1/2) to sqrt(2); log m = 2 artanh s of s = (m - 1) / (m + 1), whose series has odd powers. */
double ftr__plain_log(double x) {
    static const double odd[] = {1.0,        1.0 / 3.0,  1.0 / 5.0,  1.0 / 7.0,  1.0 / 9.0,  1.0 / 11.0,
                                 1.0 / 13.0, 1.0 / 15.0, 1.0 / 17.0, 1.0 / 19.0, 1.0 / 21.0, 1.0 / 23.0};
    int exponent;
    double m = frexp(x, &exponent);
    if (m < 0x1.6a09e667f3bcdp-1) {
        m *= 2.0;
        exponent--;
    }
    const double s = (m - 1.0) / (m + 1.0), e = (double)exponent;
    const double series = ftr__plain_polynomial(odd, FTR__ARRAY_LENGTH(odd), ftr__plain_product(s, s));
    const double small = ftr__plain_product(2.0 * s, series) + ftr__plain_product(e, FTR__LN2_LOW);
    return ftr__plain_product(e, FTR__LN2_HIGH) + small;
}

/* x = k log 2 + r with |r| up to log(2) / 2; e^r by Taylor's series. */
double ftr__plain_exp(double x) {
    static const double inverse_factorial[] = {1.0,
                                               1.0,
                                               1.0 / 2.0,
                                               1.0 / 6.0,
                                               1.0 / 24.0,
                                               1.0 / 120.0,
                                               1.0 / 720.0,
                                               1.0 / 5040.0,
                                               1.0 / 40320.0,
                                               1.0 / 362880.0,
                                               1.0 / 3628800.0,
                                               1.0 / 39916800.0,
                                               1.0 / 479001600.0,
                                               1.0 / 6227020800.0,
                                               1.0 / 87178291200.0,
                                               1.0 / 1307674368000.0};
    if (x > 710.0) return (double)INFINITY;
    if (x < -746.0) return 0.0;
    const double k = floor(ftr__plain_product(x, 0x1.71547652b82fep0) + 0.5);
    const double r = (x - ftr__plain_product(k, FTR__LN2_HIGH)) - ftr__plain_product(k, FTR__LN2_LOW);
    return ldexp(ftr__plain_polynomial(inverse_factorial, FTR__ARRAY_LENGTH(inverse_factorial), r), (int)k);
}

double ftr__draw_unit(ftr__draw *draw) {
    const uint32_t high = ftr__rng_at(&draw->rng, draw->next) >> 5, low = ftr__rng_at(&draw->rng, draw->next + 1) >> 6;
    draw->next += 2;
    return (double)((uint64_t)high << 26 | low) * 0x1p-53;
}

int64_t ftr__draw_index(ftr__draw *draw, int64_t count) {
    const int64_t index = (int64_t)ftr__plain_product(ftr__draw_unit(draw), (double)count);
    return index < count ? index : count - 1; /* the product may have been rounded up */
}

/* Standard normal, by the polar method (Marsaglia and Bray, SIAM Review 6, 1964); the second of its two numbers is left. */
static double ftr__draw_normal(ftr__draw *draw) {
    double x, size;
    do {
        x = 2.0 * ftr__draw_unit(draw) - 1.0;
        const double y = 2.0 * ftr__draw_unit(draw) - 1.0;
        size = ftr__plain_product(x, x) + ftr__plain_product(y, y);
    } while (size >= 1.0 || size == 0.0);
    return ftr__plain_product(x, sqrt(ftr__plain_product(-2.0, ftr__plain_log(size)) / size));
}

/* Gamma of shape 1 or more and scale 1 (Marsaglia and Tsang: A Simple Method for Generating Gamma Variables, ACM TOMS 26,
 * 2000), by the exact test alone. */
static double ftr__draw_gamma(ftr__draw *draw, double shape) {
    const double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        const double x = ftr__draw_normal(draw), base = 1.0 + ftr__plain_product(c, x);
        const double u = 1.0 - ftr__draw_unit(draw);
        if (base <= 0.0) continue;
        const double v = ftr__plain_product(ftr__plain_product(base, base), base);
        const double half_square = 0.5 * ftr__plain_product(x, x);
        const double rest = ftr__plain_product(d, 1.0 - v + ftr__plain_log(v));
        if (ftr__plain_log(u) < half_square + rest) return ftr__plain_product(d, v);
    }
}

double ftr__draw_beta(ftr__draw *draw, double alpha) {
    if (alpha > 1.0) {
        const double a = ftr__draw_gamma(draw, alpha), b = ftr__draw_gamma(draw, alpha);
        return a / (a + b);
    }
    for (;;) { /* by logarithms: for a small alpha both powers may be below the smallest double */
        const double u = ftr__plain_log(1.0 - ftr__draw_unit(draw)), v = ftr__plain_log(1.0 - ftr__draw_unit(draw));
        if (ftr__plain_exp(u / alpha) + ftr__plain_exp(v / alpha) <= 1.0)
            return 1.0 / (1.0 + ftr__plain_exp((v - u) / alpha));
    }
}
