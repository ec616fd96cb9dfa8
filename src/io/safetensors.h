/* safetensors in parts: what a file consists of before its bytes are written, and files that lie in memory. */
#ifndef FTR_IO_SAFETENSORS_H
#define FTR_IO_SAFETENSORS_H

#include "core/core.h"

/* A file to be written: the header, then the items' data in this order, without gaps. */
typedef struct ftr__safetensors_layout {
    const unsigned char *header; /* its length in 8 bytes included */
    size_t header_bytes;
    const int32_t *order; /* indices of items */
    int32_t count;
    size_t data_bytes;
} ftr__safetensors_layout;

/* Lays a file out as ftr_safetensors_write() writes it. The items' data are not looked at. Memory is the arena's; the
 * errors are those of ftr_safetensors_write() but for the writing. */
FTR_LIB ftr_status ftr__safetensors_lay_out(ftr_context *context, ftr__arena *arena, const char *path,
                                            const ftr_safetensors_item *items, int64_t count,
                                            const char *const *metadata, int64_t metadata_count,
                                            ftr__safetensors_layout *layout);

/* Opens a file whose bytes lie in memory of ftr__allocate(), which it takes over, on an error too. */
FTR_LIB ftr_status ftr__safetensors_take(ftr_context *context, const char *label, unsigned char *bytes, size_t size,
                                         ftr_safetensors **file);

#endif
