#ifndef FTR_API_CONTEXT_H
#define FTR_API_CONTEXT_H

#include "api/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Context: everything that would be global in another library. Memory, threads, the logger, the seed and the last error
 * hang from it. Several contexts in one process do not know of each other. A context and all that was made from it are
 * used by one thread at a time. */
typedef struct ftr_context ftr_context;
struct ftr_backend;

/* Where all memory comes from. `allocate` returns memory aligned to `alignment` (a power of two, at most 64) or NULL;
 * `release` gets the size and alignment that were asked for. Both are called from the thread that uses the context,
 * never from worker threads. */
typedef struct ftr_allocator {
    void *user;
    void *(*allocate)(void *user, size_t size, size_t alignment);
    void (*release)(void *user, void *memory, size_t size, size_t alignment);
} ftr_allocator;

typedef enum ftr_log_level {
    FTR_LOG_DEBUG = 0,
    FTR_LOG_INFO,
    FTR_LOG_WARNING,
    FTR_LOG_ERROR,
    FTR_LOG_SILENT /* as a threshold only: nothing is logged */
} ftr_log_level;

/* Takes one message, without a line end. `transient` is set for a progress line that the next message replaces; an empty
 * transient message clears it. */
typedef struct ftr_logger {
    void *user;
    void (*write)(void *user, ftr_log_level level, bool transient, const char *message);
} ftr_logger;

/* Seeds by purpose, to change one thing and keep the others: the same first values with another order of samples, say. A
 * field that is 0 is the context's `seed`. Purposes are independent of each other with one seed as with several. */
typedef struct ftr_seeds {
    uint64_t init;    /* first values of parameters and buffers */
    uint64_t order;   /* order of samples in ftr_fit() */
    uint64_t noise;   /* dropout, stochastic depth, random tensors */
    uint64_t augment; /* ftr_mix_draw() */
    uint64_t split;   /* ftr_train_test_split(), ftr_k_fold() */
} ftr_seeds;

/* All fields may be 0: system allocator, messages to stderr, seed 0, one thread a core, the CPU backend. */
typedef struct ftr_context_desc {
    uint64_t seed;           /* with `seeds` the only source of randomness */
    ftr_seeds seeds;         /* those that are to differ from `seed` */
    int32_t threads;         /* of the CPU backend, the caller's included; 0 is one for each core the process may use */
    ftr_allocator allocator; /* allocate == NULL: aligned memory of the system */
    ftr_logger logger;       /* write == NULL: stderr */
    ftr_log_level log_level; /* messages below it are dropped; 0 shows everything, FTR_LOG_SILENT nothing */
    const struct ftr_backend *backend; /* of the program's own; NULL: that of `device` */
    /* NULL or "cpu"; "cuda": the GPU with the most free memory; "cuda:1": the second one. CUDA needs a program that was
     * compiled with FASTTRAIN_CUDA; otherwise FTR_ERROR_UNSUPPORTED. */
    const char *device;
} ftr_context_desc;

/* Makes a context. `desc` may be NULL. The caller owns *context and gives it back with ftr_context_destroy() after all
 * graphs and plans made from it.
 * Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_OUT_OF_MEMORY, FTR_ERROR_THREAD; *context is then NULL.
 * The environment variable FASTTRAIN_SIMD (portable, avx2, avx512, neon) lowers the instruction set that is used; a level
 * the CPU lacks, or an unknown word, is an FTR_ERROR_INVALID_ARGUMENT. FASTTRAIN_WINOGRAD (auto, on, off) is for 3x3
 * convolutions of the CPU backend: in Winograd's form F(4x4, 3x3) they need a third to a half of the time, and their rounding
 * errors are about twice those of the direct sum; an infinity or NaN in a 6x6 tile of the input reaches all of its 4x4 results.
 * "auto" takes it where it pays, "off" never. FASTTRAIN_BF16 (auto, on, off) is for matrix products and convolutions of bf16
 * tensors: dot products of pairs by avx512_bf16, which sum up in f32 and take subnormal numbers for 0, or f32 arithmetic on
 * widened numbers. "auto" takes the first on AMD's CPUs, where it is up to twice as fast; "on" wherever the CPU has it at the
 * instruction set in use. Thread safe. */
FTR_API ftr_status ftr_context_create(const ftr_context_desc *desc, ftr_context **context);

/* Frees a context. NULL is allowed. */
FTR_API void ftr_context_destroy(ftr_context *context);

/* The sentence that goes with the last failure on this context: it names the node or file, the field, what was found and
 * what was expected. "" when nothing failed yet. Owned by the context, valid until the next call on it. */
FTR_API const char *ftr_error_message(const ftr_context *context);

/* The code of the last failure; FTR_OK when nothing failed yet. */
FTR_API ftr_status ftr_error_status(const ftr_context *context);

/* Forgets the last failure. */
FTR_API void ftr_error_clear(ftr_context *context);

/* Number of threads in use, the caller's included. */
FTR_API int32_t ftr_context_threads(const ftr_context *context);

/* Name of the backend, such as "cpu". */
FTR_API const char *ftr_context_backend_name(const ftr_context *context);

/* Instruction set of the CPU backend: "portable", "avx2", "avx512" or "neon". */
FTR_API const char *ftr_context_simd_name(const ftr_context *context);

/* The seeds in use, none of them left to be derived; all 0 for NULL. */
FTR_API ftr_seeds ftr_context_seeds(const ftr_context *context);

/* Seconds on a clock that never goes back. Thread safe. */
FTR_API double ftr_time_seconds(void);

#ifdef __cplusplus
}
#endif

#endif
