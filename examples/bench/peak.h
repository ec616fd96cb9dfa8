/* What this machine can do, measured: multiply-adds a second at an instruction set, and memory bandwidth. POSIX
 * threads. */
#ifndef BENCH_PEAK_H
#define BENCH_PEAK_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

/* Each function does `turns` turns of PEAK_CHAINS independent chains, enough to hide the latency of two units of up to
 * 5 cycles, and returns a number that depends on all of it. */
enum { PEAK_CHAINS = 12, PEAK_TRIES = 100, PEAK_TURNS = 1000000, PEAK_BANDWIDTH_TRIES = 10 };

typedef float (*peak_fn)(int64_t turns);

/* The chains are named variables, lest a compiler keeps an array of them in memory; PEAK_HIDE hides that they are
 * equal. */
#define PEAK_EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define PEAK_DECLARE(i) v##i = start,
#if defined(__aarch64__)
#define PEAK_HIDE(i) __asm__("" : "+w"(v##i));
#else
#define PEAK_HIDE(i) __asm__("" : "+x"(v##i));
#endif
#define PEAK_BODY(type, start_value, step, join)                                                                       \
    const type start = start_value;                                                                                    \
    type PEAK_EACH(PEAK_DECLARE) sum = start;                                                                          \
    PEAK_EACH(PEAK_HIDE)                                                                                               \
    for (int64_t t = 0; t < turns; t++) {                                                                              \
        PEAK_EACH(step)                                                                                                \
    }                                                                                                                  \
    PEAK_EACH(join)                                                                                                    \
    float first;                                                                                                       \
    memcpy(&first, &sum, sizeof first);                                                                                \
    return first;

typedef float peak_float4 __attribute__((vector_size(16)));

/* 128 bits without fused multiply-add: what the portable code gets on x86-64. */
#define PEAK_STEP(i) v##i = v##i * start + start;
#define PEAK_JOIN(i) sum += v##i;
static float peak_portable(int64_t turns) {
    PEAK_BODY(peak_float4, ((peak_float4){0.5f, 0.5f, 0.5f, 0.5f}), PEAK_STEP, PEAK_JOIN)
}

#if defined(__x86_64__)
#define PEAK_STEP_AVX2(i) v##i = _mm256_fmadd_ps(v##i, start, start);
#define PEAK_JOIN_AVX2(i) sum = _mm256_add_ps(sum, v##i);
__attribute__((target("avx2,fma"))) static float peak_avx2(int64_t turns) {
    PEAK_BODY(__m256, _mm256_set1_ps(0.5f), PEAK_STEP_AVX2, PEAK_JOIN_AVX2)
}

#define PEAK_STEP_AVX512(i) v##i = _mm512_fmadd_ps(v##i, start, start);
#define PEAK_JOIN_AVX512(i) sum = _mm512_add_ps(sum, v##i);
__attribute__((target("avx512f"))) static float peak_avx512(int64_t turns) {
    PEAK_BODY(__m512, _mm512_set1_ps(0.5f), PEAK_STEP_AVX512, PEAK_JOIN_AVX512)
}

#define PEAK_STEP_BF16(i) v##i = _mm512_dpbf16_ps(v##i, factor, factor);
__attribute__((target("avx512f,avx512bf16"))) static float peak_avx512_bf16(int64_t turns) {
    const __m512bh factor = (__m512bh)_mm512_setzero_si512();
    PEAK_BODY(__m512, _mm512_set1_ps(0.5f), PEAK_STEP_BF16, PEAK_JOIN_AVX512)
}
#elif defined(__aarch64__)
#define PEAK_STEP_NEON(i) v##i = vfmaq_f32(start, v##i, start);
#define PEAK_JOIN_NEON(i) sum = vaddq_f32(sum, v##i);
static float peak_neon(int64_t turns) { PEAK_BODY(float32x4_t, vdupq_n_f32(0.5f), PEAK_STEP_NEON, PEAK_JOIN_NEON) }
#endif

static inline double peak_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* A thread's part: either multiply-adds, or a[i] = b[i] + 0.5 c[i] over `count` vectors. */
typedef struct peak_task {
    atomic_int *ready, *go; /* threads that wait; 1: begin, -1: give up */
    peak_fn multiply;
    int64_t turns;
    peak_float4 *a, *b, *c;
    size_t count;
    double begin, end;
    float result;
} peak_task;

static void *peak_thread(void *argument) {
    peak_task *task = argument;
    const peak_float4 half = {0.5f, 0.5f, 0.5f, 0.5f};
    for (size_t i = 0; i < task->count; i++)
        task->a[i] = task->b[i] = task->c[i] = half; /* pages of this thread's node */
    atomic_fetch_add(task->ready, 1);
    while (atomic_load(task->go) == 0) sched_yield();
    task->begin = peak_now();
    if (atomic_load(task->go) > 0 && task->multiply)
        task->result = task->multiply(task->turns);
    else
        for (size_t i = 0; i < task->count; i++) task->a[i] = task->b[i] + half * task->c[i];
    task->end = peak_now();
    return NULL;
}

/* Seconds from the first thread's begin to the last one's end; 0 if a thread cannot be made. */
static double peak_run(peak_task *tasks, int threads) {
    pthread_t *made = malloc((size_t)threads * sizeof *made);
    atomic_int ready = 0, go = 0;
    double begin = 1e300, end = 0;
    int count = 0;
    while (made && count < threads) {
        tasks[count].ready = &ready, tasks[count].go = &go;
        if (pthread_create(&made[count], NULL, peak_thread, &tasks[count])) break;
        count++;
    }
    while (count == threads && atomic_load(&ready) < threads) sched_yield();
    atomic_store(&go, count == threads ? 1 : -1);
    for (int i = 0; i < count; i++) {
        pthread_join(made[i], NULL);
        begin = tasks[i].begin < begin ? tasks[i].begin : begin;
        end = tasks[i].end > end ? tasks[i].end : end;
    }
    const bool all = made && count == threads;
    free(made);
    return all ? end - begin : 0;
}

/* Operations a second (a multiply-add is two), best of PEAK_TRIES; `simd` as ftr_context_simd_name() has it. With
 * `bf16` dot products of bf16, where the processor has them. 0 if there is no memory. */
static inline double peak_flops(const char *simd, bool bf16, int threads) {
    const double f32 = bf16 ? peak_flops(simd, false, threads) : 0; /* what a kernel can do after a conversion */
    peak_fn multiply = peak_portable;
    int lanes = 4;
#if defined(__x86_64__)
    if (strcmp(simd, "avx2") == 0) multiply = peak_avx2, lanes = 8;
    if (strcmp(simd, "avx512") == 0) multiply = peak_avx512, lanes = 16;
    if (strcmp(simd, "avx512") == 0 && bf16 && __builtin_cpu_supports("avx512bf16"))
        multiply = peak_avx512_bf16, lanes = 32;
#elif defined(__aarch64__)
    if (strcmp(simd, "neon") == 0) multiply = peak_neon;
#endif
    (void)simd, (void)bf16;
    peak_task *tasks = calloc((size_t)threads, sizeof *tasks);
    double best = f32;
    for (int try = 0; try < PEAK_TRIES && tasks; try++) {
        for (int i = 0; i < threads; i++) tasks[i] = (peak_task){.multiply = multiply, .turns = PEAK_TURNS};
        const double seconds = peak_run(tasks, threads);
        const double speed = seconds > 0 ? 2.0 * lanes * PEAK_CHAINS * (double)PEAK_TURNS * threads / seconds : 0;
        best = speed > best ? speed : best;
    }
    free(tasks);
    return best;
}

/* Bytes a second of a[i] = b[i] + 0.5 c[i] over three arrays of 128 MiB, read and written bytes counted (not the read
 * of a line before it is written), best of PEAK_BANDWIDTH_TRIES (McCalpin: STREAM, 1995). 0 if there is no memory. */
static inline double peak_bandwidth(int threads) {
    const size_t count = ((size_t)1 << 23) / (size_t)threads; /* vectors of 16 bytes */
    peak_float4 *memory = aligned_alloc(64, 3 * count * (size_t)threads * sizeof *memory);
    peak_task *tasks = calloc((size_t)threads, sizeof *tasks);
    double best = 0;
    for (int try = 0; try < PEAK_BANDWIDTH_TRIES && tasks && memory; try++) {
        for (int i = 0; i < threads; i++) {
            peak_float4 *part = memory + 3 * count * (size_t)i;
            tasks[i] = (peak_task){.a = part, .b = part + count, .c = part + 2 * count, .count = count};
        }
        const double seconds = peak_run(tasks, threads);
        const double speed = seconds > 0 ? 48.0 * (double)count * threads / seconds : 0;
        best = speed > best ? speed : best;
    }
    free(tasks), free(memory);
    return best;
}

#endif
