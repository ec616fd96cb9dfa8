/* Numbers drawn one after another from a stream of core/rng.h, of distributions that take a number of them that is not known
 * beforehand. They are made of +, -, *, / and square roots of doubles alone, none of them fused: the bits do not depend on
 * the machine, its math library or the compiler. */
#ifndef FTR_CORE_DRAW_H
#define FTR_CORE_DRAW_H

#include "core/rng.h"

typedef struct ftr__draw {
    ftr__rng rng;
    uint64_t next; /* number of the stream that comes next */
} ftr__draw;

/* [0, 1) with 53 bits, of two numbers of the stream: 2^26 times the upper 27 bits of the first, plus the upper 26 bits of the
 * second, all over 2^53. */
FTR_LIB double ftr__draw_unit(ftr__draw *draw);

/* 0 .. count - 1, count from 1 to 2^53: the integer part of count times a unit. */
FTR_LIB int64_t ftr__draw_index(ftr__draw *draw, int64_t count);

/* Beta(alpha, alpha), alpha above 0 and finite. Up to 1 by Joehnk (Metrika 8, 1964): units u and v until
 * u^(1/alpha) + v^(1/alpha) <= 1, the first's share of the sum. Above 1 the share of the first of two gamma numbers. */
FTR_LIB double ftr__draw_beta(ftr__draw *draw, double alpha);

/* Natural logarithm of a positive finite x, and e^x: within 4 units in the last place. */
FTR_LIB double ftr__plain_log(double x);
FTR_LIB double ftr__plain_exp(double x);

#endif
