/* What the machine can do: the product's own tile on blocks in the nearest cache, and a sum over arrays in memory. The
 * largest of several rounds counts, because other programs only ever make it smaller. */
#include "backend/cpu/cpu.h"

#include <string.h>

#define FTR__MACHINE_ROUNDS 6
#define FTR__MACHINE_DEPTH 128        /* of the blocks: 128 * (14 + 32) floats are 23 KiB */
#define FTR__MACHINE_TILES 2000       /* of a task */
#define FTR__MACHINE_TASKS 4          /* a thread */
#define FTR__MACHINE_FLOATS (8 << 20) /* of an array */
#define FTR__MACHINE_CHUNK (1 << 16)  /* floats of a task */

typedef struct ftr__machine_job {
    const ftr__simd_gemm *simd;
    float *blocks; /* A, B and C of a worker */
    size_t block;  /* floats of them */
    float *x, *y;
} ftr__machine_job;

static void ftr__machine_product(void *arg, int64_t task, int32_t worker) {
    const ftr__machine_job *job = arg;
    float *a = job->blocks + (size_t)worker * job->block, *b = a + FTR__MACHINE_DEPTH * FTR__GEMM_MAX_MR;
    float *c = b + FTR__MACHINE_DEPTH * FTR__GEMM_MAX_NR;
    ftr__gemm_tile tile = {.ahead = b};
    (void)task;
    for (int32_t i = 0; i < FTR__GEMM_MAX_MR; i++) tile.c[i] = c + i * FTR__GEMM_MAX_NR;
    for (int32_t i = 0; i < FTR__MACHINE_TILES; i++)
        job->simd->tile(FTR__MACHINE_DEPTH, a, job->simd->mr, b, job->simd->nr, &tile);
}

static void ftr__machine_sum(void *arg, int64_t task, int32_t worker) {
    const ftr__machine_job *job = arg;
    (void)worker;
    job->simd->accumulate(FTR__MACHINE_CHUNK, job->x + task * FTR__MACHINE_CHUNK, job->y + task * FTR__MACHINE_CHUNK);
}

/* The best rate of a job that does `amount` in all. */
static double ftr__machine_rate(ftr__pool *pool, int64_t tasks, ftr__task_fn task, ftr__machine_job *job,
                                double amount) {
    double best = 0.0;
    for (int32_t round = 0; round < FTR__MACHINE_ROUNDS; round++) {
        const double start = ftr_time_seconds();
        ftr__pool_run(pool, tasks, task, job);
        const double seconds = ftr_time_seconds() - start;
        if (seconds > 0.0 && amount / seconds > best) best = amount / seconds;
    }
    return best;
}

ftr_status ftr__cpu_measure(ftr_context *context, void *state, ftr_machine *machine) {
    const ftr__cpu *cpu = state;
    const ftr__simd_gemm *simd = &cpu->simd->gemm;
    const int64_t tasks = (int64_t)ftr__pool_threads(cpu->pool) * FTR__MACHINE_TASKS;
    ftr__machine_job job = {.simd = simd};
    job.block = FTR__MACHINE_DEPTH * (FTR__GEMM_MAX_MR + FTR__GEMM_MAX_NR) + FTR__GEMM_MAX_MR * FTR__GEMM_MAX_NR;
    const size_t arrays = (size_t)FTR__MACHINE_FLOATS * 2;
    const size_t blocks = job.block * (size_t)ftr__pool_threads(cpu->pool), bytes = (arrays + blocks) * sizeof(float);
    float *memory = ftr__allocate(context, bytes);
    if (!memory) return ftr__out_of_memory(context, "measure_machine", bytes);
    memset(memory, 0, bytes);
    job.x = memory;
    job.y = memory + FTR__MACHINE_FLOATS;
    job.blocks = memory + arrays;
    const double work = 2.0 * (double)(simd->mr * simd->nr) * FTR__MACHINE_DEPTH * FTR__MACHINE_TILES;
    machine->flops = ftr__machine_rate(cpu->pool, tasks, ftr__machine_product, &job, (double)tasks * work);
    machine->bandwidth = ftr__machine_rate(cpu->pool, FTR__MACHINE_FLOATS / FTR__MACHINE_CHUNK, ftr__machine_sum, &job,
                                           3.0 * FTR__MACHINE_FLOATS * sizeof(float));
    ftr__release(context, memory, bytes);
    return FTR_OK;
}
