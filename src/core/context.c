#include "core/core.h"

#include "core/platform.h"
#include "core/threads.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FTR__MAX_THREADS 1024
#define FTR__LARGE_PAGE ((size_t)2 << 20)

/* Large blocks lie on large pages where the system has them: kernels read rows that are pages apart, and each page's
 * translation takes its time. */
static void *ftr__system_allocate(void *user, size_t size, size_t alignment) {
    (void)user;
    const bool large = size >= 2 * FTR__LARGE_PAGE && alignment < FTR__LARGE_PAGE;
    const size_t unit = large ? FTR__LARGE_PAGE : alignment;
    if (size > SIZE_MAX - unit) return NULL;
    void *memory = aligned_alloc(unit, (size + unit - 1) / unit * unit);
    if (large && memory) ftr__use_large_pages(memory, size / unit * unit);
    return memory;
}

static void ftr__system_release(void *user, void *memory, size_t size, size_t alignment) {
    (void)user;
    (void)size;
    (void)alignment;
    free(memory);
}

static void ftr__stderr_write(void *user, ftr_log_level level, bool transient, const char *message) {
    (void)user;
    if (transient) {
        fprintf(stderr, "\r\x1b[K%s", message);
        fflush(stderr);
        return;
    }
    const char *prefix = level == FTR_LOG_WARNING ? "warning: " : level == FTR_LOG_ERROR ? "error: " : "";
    fprintf(stderr, "%s%s%s\n", ftr__stderr_is_terminal() ? "\r\x1b[K" : "", prefix, message);
}

const char *ftr_status_name(ftr_status status) {
    switch (status) {
    case FTR_OK: return "FTR_OK";
    case FTR_ERROR_INVALID_ARGUMENT: return "FTR_ERROR_INVALID_ARGUMENT";
    case FTR_ERROR_OUT_OF_MEMORY: return "FTR_ERROR_OUT_OF_MEMORY";
    case FTR_ERROR_INVALID_TENSOR: return "FTR_ERROR_INVALID_TENSOR";
    case FTR_ERROR_RANK: return "FTR_ERROR_RANK";
    case FTR_ERROR_SHAPE: return "FTR_ERROR_SHAPE";
    case FTR_ERROR_DTYPE: return "FTR_ERROR_DTYPE";
    case FTR_ERROR_NAME: return "FTR_ERROR_NAME";
    case FTR_ERROR_NOT_DIFFERENTIABLE: return "FTR_ERROR_NOT_DIFFERENTIABLE";
    case FTR_ERROR_UNSUPPORTED: return "FTR_ERROR_UNSUPPORTED";
    case FTR_ERROR_NOT_FED: return "FTR_ERROR_NOT_FED";
    case FTR_ERROR_DATA: return "FTR_ERROR_DATA";
    case FTR_ERROR_STATE: return "FTR_ERROR_STATE";
    case FTR_ERROR_IO: return "FTR_ERROR_IO";
    case FTR_ERROR_FORMAT: return "FTR_ERROR_FORMAT";
    case FTR_ERROR_THREAD: return "FTR_ERROR_THREAD";
    case FTR_ERROR_CALLBACK: return "FTR_ERROR_CALLBACK";
    case FTR_ERROR_NONFINITE: return "FTR_ERROR_NONFINITE";
    case FTR_ERROR_DEVICE: return "FTR_ERROR_DEVICE";
    }
    return "unknown status";
}

static uint64_t ftr__seed_or(uint64_t asked, uint64_t seed) { return asked != 0 ? asked : seed; }

/* Purposes have streams of their own (core/rng.h), so that they may share a seed. */
static ftr_seeds ftr__resolve_seeds(const ftr_seeds *asked, uint64_t seed) {
    return (ftr_seeds){.init = ftr__seed_or(asked->init, seed),
                       .order = ftr__seed_or(asked->order, seed),
                       .noise = ftr__seed_or(asked->noise, seed),
                       .augment = ftr__seed_or(asked->augment, seed),
                       .split = ftr__seed_or(asked->split, seed)};
}

/* Before there is a context its creator can only be told through the logger. */
static ftr_status ftr__context_refuse(ftr_context *draft) {
    ftr__log(draft, FTR_LOG_ERROR, "%s", draft->message);
    return draft->status;
}

/* The backend and its device. */
static ftr_status ftr__context_choose(const ftr_context_desc *desc, ftr_context *draft) {
    const char *name = desc->device ? desc->device : "cpu";
    draft->device = -1;
    draft->backend = desc->backend ? desc->backend : ftr_cpu_backend();
    if (desc->backend && desc->device)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: both backend '%s' and device '%s' are given",
                          desc->backend->name, name);
    if (strcmp(name, "cpu") == 0) return FTR_OK;
    int32_t number = 0;
    if (strncmp(name, "cuda:", 5) == 0) {
        const char *digit = name + 5;
        while (*digit >= '0' && *digit <= '9' && number < 1000) number = 10 * number + (*digit++ - '0');
        if (*digit || digit == name + 5 || number >= 1000) name = "";
        draft->device = number;
    } else if (strcmp(name, "cuda") != 0) {
        name = "";
    }
    if (!*name)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: device is '%s', expected cpu, cuda or cuda:NUMBER",
                          desc->device);
#ifdef FASTTRAIN_CUDA
    draft->backend = ftr_cuda_backend();
    return FTR_OK;
#else
    return ftr__error(draft, FTR_ERROR_UNSUPPORTED,
                      "context: device is '%s', but the program has no CUDA backend: compile it with -DFASTTRAIN_CUDA and "
                      "link it with fasttrain_cuda.cu",
                      desc->device);
#endif
}

/* Fills a context from its description. */
static ftr_status ftr__context_fill(const ftr_context_desc *desc, ftr_context *draft) {
    memset(draft, 0, sizeof *draft);
    draft->logger = desc->logger;
    draft->log_level = desc->log_level;
    if (!draft->logger.write) {
        draft->logger.write = ftr__stderr_write;
        draft->log_to_terminal = ftr__stderr_is_terminal();
    }
    draft->allocator = desc->allocator;
    if (!draft->allocator.allocate && !draft->allocator.release) {
        draft->allocator.allocate = ftr__system_allocate;
        draft->allocator.release = ftr__system_release;
    }
    if (!draft->allocator.allocate || !draft->allocator.release)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: allocator.%s is NULL, expected both or neither",
                          draft->allocator.allocate ? "release" : "allocate");
    if (desc->threads < 0 || desc->threads > FTR__MAX_THREADS)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: threads is %d, expected 0 to %d", desc->threads,
                          FTR__MAX_THREADS);
    if (desc->log_level < FTR_LOG_DEBUG || desc->log_level > FTR_LOG_SILENT)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: log_level is %d, expected %d to %d",
                          (int)desc->log_level, (int)FTR_LOG_DEBUG, (int)FTR_LOG_SILENT);
    draft->seed = desc->seed;
    draft->seeds = ftr__resolve_seeds(&desc->seeds, desc->seed);
    draft->threads = desc->threads ? desc->threads : ftr__core_count();
    if (ftr__context_choose(desc, draft)) return draft->status;
    if (draft->backend->version != FTR_BACKEND_VERSION)
        return ftr__error(draft, FTR_ERROR_INVALID_ARGUMENT, "context: backend has version %u, expected %d",
                          (unsigned)draft->backend->version, FTR_BACKEND_VERSION);
    return FTR_OK;
}

ftr_status ftr_context_create(const ftr_context_desc *desc, ftr_context **context) {
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    *context = NULL;
    const ftr_context_desc none = {0};
    ftr_context draft;
    if (ftr__context_fill(desc ? desc : &none, &draft)) return ftr__context_refuse(&draft);
    ftr_context *made = ftr__allocate(&draft, sizeof *made);
    if (!made) {
        ftr__out_of_memory(&draft, "context", sizeof *made);
        return ftr__context_refuse(&draft);
    }
    *made = draft;
    if (made->backend->open(made, made->threads, made->device, &made->backend_state)) {
        draft = *made;
        ftr__release(&draft, made, sizeof *made);
        return ftr__context_refuse(&draft);
    }
    *context = made;
    return FTR_OK;
}

void ftr_context_destroy(ftr_context *context) {
    if (!context) return;
    context->backend->close(context, context->backend_state);
    const ftr_context copy = *context;
    ftr__release(&copy, context, sizeof *context);
}

const char *ftr_error_message(const ftr_context *context) { return context ? context->message : ""; }

ftr_status ftr_error_status(const ftr_context *context) { return context ? context->status : FTR_OK; }

void ftr_error_clear(ftr_context *context) {
    if (!context) return;
    context->status = FTR_OK;
    context->message[0] = '\0';
}

int32_t ftr_context_threads(const ftr_context *context) { return context ? context->threads : 0; }

const char *ftr_context_backend_name(const ftr_context *context) { return context ? context->backend->name : ""; }

ftr_seeds ftr_context_seeds(const ftr_context *context) { return context ? context->seeds : (ftr_seeds){0}; }

ftr_status ftr__error(ftr_context *context, ftr_status status, const char *format, ...) {
    if (!context) return status;
    context->status = status;
    va_list args;
    va_start(args, format);
    vsnprintf(context->message, sizeof context->message, format, args);
    va_end(args);
    return status;
}

ftr_status ftr__out_of_memory(ftr_context *context, const char *what, size_t bytes) {
    return ftr__error(context, FTR_ERROR_OUT_OF_MEMORY, "%s: %zu bytes could not be allocated", what, bytes);
}

static bool ftr__log_wanted(const ftr_context *context, ftr_log_level level) {
    return context && level >= context->log_level && context->log_level != FTR_LOG_SILENT;
}

void ftr__log(const ftr_context *context, ftr_log_level level, const char *format, ...) {
    if (!ftr__log_wanted(context, level)) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    context->logger.write(context->logger.user, level, false, text);
}

void ftr__log_transient(const ftr_context *context, const char *format, ...) {
    if (!ftr__log_wanted(context, FTR_LOG_INFO)) return;
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    context->logger.write(context->logger.user, FTR_LOG_INFO, true, text);
}

ftr_status ftr_backend_fail(ftr_context *context, ftr_status status, const char *format, ...) {
    char text[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ftr__error(context, status, "%s", text);
}

ftr_status ftr_backend_error(const ftr_kernel_call *call, ftr_status status, const char *format, ...) {
    char text[FTR__MESSAGE_SIZE];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return ftr__error(call->context, status, "%s '%s': %s", ftr_op_name(call->op), call->name, text);
}
