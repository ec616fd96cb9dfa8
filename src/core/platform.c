#include "core/platform.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__APPLE__)
#include <mach/mach.h>
#endif

double ftr_time_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool ftr__stderr_is_terminal(void) { return isatty(fileno(stderr)) == 1; }

/* -------------------------------------------------------------------------------------------------- free memory -- */

#if defined(__linux__)
/* The beginning of a small file as text. False if it cannot be read. */
static bool ftr__read_start(const char *path, char *text, size_t size) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t got = file < 0 ? -1 : 1;
    while (got > 0 && used < size - 1) {
        got = read(file, text + used, size - 1 - used);
        if (got > 0) used += (size_t)got;
    }
    if (file >= 0) close(file);
    text[used] = '\0';
    return got >= 0;
}

/* The number behind a word at the beginning of a line; `missing` if there is none. */
static unsigned long long ftr__number_behind(const char *text, const char *word, unsigned long long missing) {
    const size_t length = strlen(word);
    for (const char *line = text; line; line = strchr(line, '\n'), line += line != NULL)
        if (strncmp(line, word, length) == 0) return strtoull(line + length, NULL, 10);
    return missing;
}

/* What a control group (version 2) leaves, its page cache counted as free; ULLONG_MAX without a limit. */
static unsigned long long ftr__group_free(const char *group) {
    char path[512], text[4096];
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", group);
    if (!ftr__read_start(path, text, sizeof text) || text[0] < '0' || text[0] > '9') return ULLONG_MAX;
    const unsigned long long limit = strtoull(text, NULL, 10);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.current", group);
    if (!ftr__read_start(path, text, sizeof text)) return ULLONG_MAX;
    unsigned long long used = strtoull(text, NULL, 10);
    snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.stat", group);
    if (ftr__read_start(path, text, sizeof text)) {
        const unsigned long long cache = ftr__number_behind(text, "inactive_file ", 0);
        used = used > cache ? used - cache : 0;
    }
    return limit > used ? limit - used : 0;
}

/* The tightest of the process's group and those above it. */
static unsigned long long ftr__groups_free(void) {
    char text[1024], group[256];
    unsigned long long least = ULLONG_MAX;
    if (!ftr__read_start("/proc/self/cgroup", text, sizeof text)) return least;
    const char *line = strstr(text, "0::/");
    if (!line) return least;
    snprintf(group, sizeof group, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    for (char *end = group + strlen(group);; end = strrchr(group, '/')) {
        if (!end) break;
        *end = '\0';
        const unsigned long long left = ftr__group_free(group);
        if (left < least) least = left;
        if (end == group) break;
    }
    return least;
}

size_t ftr__free_memory(void) {
    char text[4096];
    if (!ftr__read_start("/proc/meminfo", text, sizeof text)) return 0;
    const unsigned long long available = ftr__number_behind(text, "MemAvailable:", 0) * 1024,
                             group = ftr__groups_free();
    const unsigned long long left = group < available ? group : available;
    return left < SIZE_MAX ? (size_t)left : SIZE_MAX;
}
#elif defined(__APPLE__)
size_t ftr__free_memory(void) {
    vm_statistics64_data_t vm;
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    if (host_statistics64(mach_host_self(), HOST_VM_INFO64, (host_info64_t)&vm, &count) != KERN_SUCCESS) return 0;
    return ((size_t)vm.free_count + (size_t)vm.inactive_count) * (size_t)vm_kernel_page_size;
}
#else
size_t ftr__free_memory(void) { return 0; }
#endif

const char *ftr__simd_level_name(ftr__simd_level level) {
    switch (level) {
    case FTR__SIMD_PORTABLE: return "portable";
    case FTR__SIMD_NEON: return "neon";
    case FTR__SIMD_AVX2: return "avx2";
    case FTR__SIMD_AVX512: return "avx512";
    }
    return "unknown";
}

#if defined(__x86_64__)
/* Conversions between f16 and f32; every CPU with AVX2 has them, a virtual machine may hide them. */
static bool ftr__has_f16c(void) {
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    return c >> 29 & 1u;
}
#endif

/* With FASTTRAIN_EMULATE_AVX512 the 16-wide code is built from AVX2 instructions, so AVX2 is all that it needs. */
ftr__simd_level ftr__simd_detect(void) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && ftr__has_f16c();
#ifdef FASTTRAIN_EMULATE_AVX512
    return avx2 ? FTR__SIMD_AVX512 : FTR__SIMD_PORTABLE;
#else
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    return avx2 && avx512 ? FTR__SIMD_AVX512 : avx2 ? FTR__SIMD_AVX2 : FTR__SIMD_PORTABLE;
#endif
#elif defined(__aarch64__)
    return FTR__SIMD_NEON;
#else
    return FTR__SIMD_PORTABLE;
#endif
}

bool ftr__has_bf16(void) {
#if defined(__x86_64__) && !defined(FASTTRAIN_EMULATE_AVX512)
    unsigned a, b, c, d;
    if (ftr__simd_detect() != FTR__SIMD_AVX512) return false; /* which is told in leaf 7 */
    __cpuid_count(7, 0, a, b, c, d);
    if (a < 1) return false; /* the last subleaf */
    __cpuid_count(7, 1, a, b, c, d);
    return a >> 5 & 1u;
#else
    return false;
#endif
}

bool ftr__has_fast_bf16(void) {
#if defined(__x86_64__)
    unsigned most, b, c, d;
    __cpuid(0, most, b, c, d);
    return ftr__has_bf16() && b == 0x68747541u && d == 0x69746e65u && c == 0x444d4163u; /* AuthenticAMD */
#else
    return false;
#endif
}

void ftr__use_large_pages(void *memory, size_t size) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    (void)madvise(memory, size, MADV_HUGEPAGE);
#else
    (void)memory;
    (void)size;
#endif
}

const char *ftr__environment(const char *name) {
    const char *word = getenv(name);
    return word ? word : "";
}

/* AVX-512 includes AVX2, and everything includes portable C. */
static bool ftr__simd_includes(ftr__simd_level best, ftr__simd_level level) {
    return level == best || level == FTR__SIMD_PORTABLE || (best == FTR__SIMD_AVX512 && level == FTR__SIMD_AVX2);
}

ftr_status ftr__simd_choose(ftr_context *context, ftr__simd_level *level) {
    const ftr__simd_level best = ftr__simd_detect();
    *level = best;
    const char *word = ftr__environment("FASTTRAIN_SIMD");
    if (!*word) return FTR_OK;
    for (int i = FTR__SIMD_PORTABLE; i <= FTR__SIMD_AVX512; i++) {
        const ftr__simd_level candidate = (ftr__simd_level)i;
        if (strcmp(word, ftr__simd_level_name(candidate)) != 0) continue;
        if (!ftr__simd_includes(best, candidate))
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "FASTTRAIN_SIMD is '%s', but this CPU has '%s'",
                              word, ftr__simd_level_name(best));
        *level = candidate;
        return FTR_OK;
    }
    return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                      "FASTTRAIN_SIMD is '%s', expected portable, neon, avx2 or avx512", word);
}
