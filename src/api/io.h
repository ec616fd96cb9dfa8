#ifndef FTR_API_IO_H
#define FTR_API_IO_H

#include "api/graph.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * safetensors (format: github.com/huggingface/safetensors). A file is checked completely before any of it is used; errors
 * carry the names of the reference implementation. Files hold PyTorch's layout, OIHW for convolution weights. */
typedef struct ftr_safetensors ftr_safetensors;

/* A tensor of a file. `dtype` is FTR_DTYPE_NONE for an element type that fasttrain does not compute with (BF16, say);
 * dtype_name has the file's word. The data lie in the file's memory, in C order, not necessarily aligned. */
typedef struct ftr_safetensors_entry {
    const char *name;
    const char *dtype_name;
    ftr_dtype dtype;
    int32_t rank; /* as in the file; may be more than FTR_MAX_RANK, dim then points to all of them all the same */
    const int64_t *dim;
    const void *data;
    size_t bytes;
} ftr_safetensors_entry;

/* Reads and checks a file. The caller owns *file. Errors: FTR_ERROR_IO, FTR_ERROR_FORMAT (the sentence starts with the path
 * and the reference's error name, such as "InvalidHeaderLength"), FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_safetensors_open(ftr_context *context, const char *path, ftr_safetensors **file);

/* As ftr_safetensors_open(), from memory, which is copied. `label` stands for the path in messages. */
FTR_API ftr_status ftr_safetensors_parse(ftr_context *context, const char *label, const void *data, size_t bytes,
                                         ftr_safetensors **file);

/* Frees a file. NULL is allowed. */
FTR_API void ftr_safetensors_close(ftr_safetensors *file);

/* Number of tensors. */
FTR_API int64_t ftr_safetensors_count(const ftr_safetensors *file);

/* Tensor number `index` in the order of names. False if out of range. The pointers live as long as the file. */
FTR_API bool ftr_safetensors_at(const ftr_safetensors *file, int64_t index, ftr_safetensors_entry *entry);

/* The tensor of this name. False if there is none. */
FTR_API bool ftr_safetensors_find(const ftr_safetensors *file, const char *name, ftr_safetensors_entry *entry);

/* The value of a key of __metadata__; NULL if there is none. Owned by the file. */
FTR_API const char *ftr_safetensors_metadata(const ftr_safetensors *file, const char *key);

/* One tensor to be written. */
typedef struct ftr_safetensors_item {
    const char *name;
    ftr_dtype dtype;
    ftr_shape shape;
    const void *data;
} ftr_safetensors_item;

/* Writes a file as the reference does: sorted by alignment, then name; header padded to 8 bytes. metadata is
 * key, value, key, value ... (metadata_count pairs) or NULL. The file appears complete or not at all: it is written beside
 * `path`, flushed and renamed. Errors: FTR_ERROR_IO, FTR_ERROR_NAME (a name twice, or "__metadata__"),
 * FTR_ERROR_OUT_OF_MEMORY. */
FTR_API ftr_status ftr_safetensors_write(ftr_context *context, const char *path, const ftr_safetensors_item *items,
                                         int64_t count, const char *const *metadata, int64_t metadata_count);

/* Writes all parameters and buffers of a graph; a PyTorch module with the same names loads the file with
 * load_state_dict(). Convolution weights become OIHW. Errors as ftr_safetensors_write(). */
FTR_API ftr_status ftr_save_weights(ftr_graph *graph, const char *path);

/* Reads parameters and buffers by name; convolution weights come as OIHW. Every variable of the graph must be in the file
 * with its type and shape; entries that the graph lacks are an error too, except "*.num_batches_tracked", which PyTorch's
 * batch norms carry. Nothing is changed on an error. Errors: FTR_ERROR_NAME, FTR_ERROR_SHAPE, FTR_ERROR_DTYPE, FTR_ERROR_DATA (a bool that is
 * neither 0 nor 1), and those
 * of ftr_safetensors_open(). */
FTR_API ftr_status ftr_load_weights(ftr_graph *graph, const char *path);

#ifdef __cplusplus
}
#endif

#endif
