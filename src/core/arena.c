#include "core/core.h"

#include <string.h>

#define FTR__CHUNK_SIZE ((size_t)16 * 1024)

struct ftr__arena_chunk {
    ftr__arena_chunk *next;
    size_t size; /* of the whole chunk, this head included */
    size_t used;
};

void *ftr__allocate(const ftr_context *context, size_t size) {
    return context->allocator.allocate(context->allocator.user, size ? size : 1, FTR__ALIGNMENT);
}

void ftr__release(const ftr_context *context, void *memory, size_t size) {
    if (memory) context->allocator.release(context->allocator.user, memory, size ? size : 1, FTR__ALIGNMENT);
}

void *ftr_backend_allocate(ftr_context *context, size_t size) { return ftr__allocate(context, size); }

void ftr_backend_release(ftr_context *context, void *memory, size_t size) { ftr__release(context, memory, size); }

void ftr__arena_init(ftr__arena *arena, const ftr_context *context) {
    arena->context = context;
    arena->chunks = NULL;
    arena->bytes = 0;
}

void ftr__arena_free(ftr__arena *arena) {
    for (ftr__arena_chunk *chunk = arena->chunks; chunk;) {
        ftr__arena_chunk *next = chunk->next;
        ftr__release(arena->context, chunk, chunk->size);
        chunk = next;
    }
    arena->chunks = NULL;
    arena->bytes = 0;
}

static size_t ftr__round_up_16(size_t size) { return (size + 15) / 16 * 16; }

static ftr__arena_chunk *ftr__arena_add_chunk(ftr__arena *arena, size_t need) {
    const size_t head = ftr__round_up_16(sizeof(ftr__arena_chunk));
    size_t size = FTR__CHUNK_SIZE;
    if (need > size - head) size = head + need;
    ftr__arena_chunk *chunk = ftr__allocate(arena->context, size);
    if (!chunk) return NULL;
    chunk->size = size;
    chunk->used = head;
    chunk->next = arena->chunks;
    arena->chunks = chunk;
    arena->bytes += size;
    return chunk;
}

void *ftr__arena_alloc(ftr__arena *arena, size_t size) {
    if (size > SIZE_MAX / 2) return NULL;
    size = ftr__round_up_16(size ? size : 1);
    ftr__arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < size) chunk = ftr__arena_add_chunk(arena, size);
    if (!chunk) return NULL;
    unsigned char *memory = (unsigned char *)chunk + chunk->used;
    chunk->used += size;
    return memset(memory, 0, size);
}

char *ftr__arena_string(ftr__arena *arena, const char *text) {
    const size_t size = strlen(text) + 1;
    char *copy = ftr__arena_alloc(arena, size);
    return copy ? memcpy(copy, text, size) : NULL;
}

bool ftr__arena_grow(ftr__arena *arena, void **array, int32_t count, int32_t *capacity, size_t element_size) {
    if (count < *capacity) return true;
    if (*capacity > INT32_MAX / 2) return false;
    const int32_t wanted = *capacity ? *capacity * 2 : 16;
    void *larger = ftr__arena_alloc(arena, (size_t)wanted * element_size);
    if (!larger) return false;
    if (*capacity > 0) memcpy(larger, *array, (size_t)count * element_size);
    *array = larger;
    *capacity = wanted;
    return true;
}
