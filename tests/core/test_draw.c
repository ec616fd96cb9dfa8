/* Numbers of distributions: the plain logarithm and exponential, units, indices, Beta against SciPy's quantiles, fixed bits. */
#ifdef FTR_TEST_SINGLE
#define FASTTRAIN_IMPLEMENTATION
#endif
#include "ftr_test.h"
#ifndef FTR_TEST_SINGLE
#include "core/draw.h"
#endif

enum { SAMPLES = 200000 };

static ftr__draw stream(uint64_t seed) { return (ftr__draw){ftr__rng_make(seed, FTR__RNG_MIX, 1, 2), 0}; }

/* In units of the last place of `expected`. */
static double distance(double found, double expected) {
    if (found == expected) {
        return 0;
    }
    return fabs(found - expected) / (nextafter(fabs(expected), INFINITY) - fabs(expected));
}

static void logarithm_and_exponential(void **state) {
    (void)state;
    ftr_test_rng rng = {7};
    for (int i = 0; i < 200000; i++) {
        double x = ldexp(ftr_test_uniform(&rng, 0.5, 1), (int)ftr_test_integer(&rng, -1000, 1000));
        double near = ftr_test_uniform(&rng, 0.4, 2.5), power = ftr_test_uniform(&rng, -700, 700);
        assert_true(distance(ftr__plain_log(x), log(x)) <= 4);
        assert_true(fabs(ftr__plain_log(near) - log(near)) <= 4 * 0x1p-53);
        assert_true(distance(ftr__plain_exp(power), exp(power)) <= 4);
    }
    assert_true(ftr__plain_log(1) == 0 && ftr__plain_exp(0) == 1);
    assert_true(isinf(ftr__plain_exp(711)) && ftr__plain_exp(-747) == 0 && ftr__plain_exp(-INFINITY) == 0);
    assert_true(fabs(ftr__plain_log(0x1p-1074) + 1074 * log(2)) < 1e-10);
}

static void units_and_indices(void **state) {
    (void)state;
    ftr__draw draw = stream(3);
    double mean = 0, chi = 0;
    int64_t seen[10] = {0};
    for (int i = 0; i < SAMPLES; i++) {
        double u = ftr__draw_unit(&draw);
        assert_true(u >= 0 && u < 1);
        mean += u / SAMPLES;
        seen[ftr__draw_index(&draw, 10)]++;
        assert_int_equal(ftr__draw_index(&draw, 1), 0);
    }
    for (int i = 0; i < 10; i++) {
        chi += pow((double)seen[i] - SAMPLES / 10.0, 2) / (SAMPLES / 10.0);
    }
    assert_true(fabs(mean - 0.5) < 5 / sqrt(12.0 * SAMPLES));
    assert_true(chi < 9 + 5 * sqrt(18));
    assert_int_equal(draw.next, 6 * SAMPLES);
}

/* Kolmogorov and Smirnov: the largest difference between the shares of numbers below the quantiles and what they should be.
 * Below 1.95 / sqrt(n) in all but one of 1000 samples. */
static void beta_has_its_quantiles(void **state) {
    (void)state;
    ftr_context *context = ftr_test_context();
    ftr_safetensors *file;
    ftr_safetensors_entry alphas, quantiles;
    FTR_TEST_OK(context, ftr_safetensors_open(context, FTR_TEST_DATA "/core/data/beta.safetensors", &file));
    assert_true(ftr_safetensors_find(file, "alpha", &alphas));
    assert_true(ftr_safetensors_find(file, "quantiles", &quantiles));
    for (int64_t a = 0; a < alphas.dim[0]; a++) {
        int64_t n = quantiles.dim[1], below[256] = {0}, above[256] = {0};
        double alpha, q[256], mean = 0, worst = 0;
        memcpy(&alpha, (const double *)alphas.data + a, sizeof alpha);
        memcpy(q, (const double *)quantiles.data + a * n, (size_t)n * sizeof *q);
        ftr__draw draw = stream(11 + (uint64_t)a);
        for (int i = 0; i < SAMPLES; i++) {
            double x = ftr__draw_beta(&draw, alpha);
            assert_true(x >= 0 && x <= 1);
            mean += x / SAMPLES;
            for (int64_t k = 0; k < n; k++) {
                below[k] += x <= q[k];
                above[k] += 1 - x <= q[k];
            }
        }
        for (int64_t k = 0; k < n; k++) {
            double expected = (double)(k + 1) / 256;
            worst = fmax(worst, fabs((double)below[k] / SAMPLES - expected));
            if (q[k] > 1e-12) { /* nearer to 1 than that doubles are too coarse */
                worst = fmax(worst, fabs((double)above[k] / SAMPLES - expected));
            }
        }
        if (worst > 1.95 / sqrt(SAMPLES)) {
            fail_msg("alpha %g: a difference of %g, expected below %g", alpha, worst, 1.95 / sqrt(SAMPLES));
        }
        assert_true(fabs(mean - 0.5) < 5 / sqrt(4 * (2 * alpha + 1) * SAMPLES));
    }
    ftr_safetensors_close(file);
    ftr_context_destroy(context);
}

static void extreme_alphas(void **state) {
    (void)state;
    ftr__draw draw = stream(5);
    int ends = 0;
    for (int i = 0; i < 1000; i++) {
        double tiny = ftr__draw_beta(&draw, 1e-300), small = ftr__draw_beta(&draw, 1e-4);
        double huge = ftr__draw_beta(&draw, 1e12);
        assert_true(tiny == 0 || tiny == 1);
        assert_true(small >= 0 && small <= 1);
        assert_true(fabs(huge - 0.5) < 1e-5);
        ends += tiny == 1;
    }
    assert_in_range(ends, 400, 600);
}

/* The bits on any machine. */
static void fixed_bits(void **state) {
    (void)state;
    static const double alphas[] = {0.2, 1, 2.5};
    static const double expected[3][4] = {
        {0x1.ff7fdc0346575p-1, 0x1.ff15dfcdbc709p-1, 0x1.ff5ef0eff1d8ep-1, 0x1.f1cbb9e6486ebp-1},
        {0x1.9a17fa48b1ce9p-2, 0x1.2a0f12c0f2852p-1, 0x1.79fe23eb859b1p-5, 0x1.5c11250501bb2p-2},
        {0x1.793c8c5060894p-2, 0x1.ac0f1c80974fap-3, 0x1.06507fb1750c5p-1, 0x1.e5618fd8471eep-3},
    };
    for (int a = 0; a < 3; a++) {
        ftr__draw draw = stream(1);
        for (int i = 0; i < 4; i++) {
            double x = ftr__draw_beta(&draw, alphas[a]);
            if (x != expected[a][i]) {
                fail_msg("alpha %g, number %d: %a, expected %a", alphas[a], i, x, expected[a][i]);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logarithm_and_exponential),
        cmocka_unit_test(units_and_indices),
        cmocka_unit_test(beta_has_its_quantiles),
        cmocka_unit_test(extreme_alphas),
        cmocka_unit_test(fixed_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
