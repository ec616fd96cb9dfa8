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

/* A tensor of a file. `dtype` is FTR_DTYPE_NONE for an element type that fasttrain does not compute with (I16, say);
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

/* What ftr_load_weights() asks of a file.
 * STRICT: every variable is in the file and every tensor of the file in the graph, as PyTorch's load_state_dict(); but
 * "*.num_batches_tracked", which PyTorch's batch norms carry, may be extra.
 * BY_NAME: variables that the file lacks keep their values, tensors that the graph lacks are ignored; that nothing at
 * all is loaded is an error. */
typedef enum ftr_load_mode { FTR_LOAD_STRICT = 0, FTR_LOAD_BY_NAME } ftr_load_mode;

/* All fields may be 0. Patterns are compared with full names; '*' stands for any characters or none, dots included, '?'
 * for one character. */
typedef struct ftr_load_desc {
    ftr_load_mode mode;
    const char *const *skip; /* patterns of variables that are not read even if the file has them, a replaced head for
                              * instance: "classifier.*". Tensors of such names that the graph lacks are passed over
                              * too. A pattern that fits neither a variable nor a tensor of the file is an error */
    int32_t skip_count;
    const char *file_prefix; /* what stands before each variable's name in the file, "module." for instance; a tensor
                              * without it is one that the graph lacks. NULL: nothing */
} ftr_load_desc;

/* What became of a variable or of a tensor of the file. */
typedef enum ftr_load_outcome {
    FTR_LOAD_LOADED = 0, /* read; of a refused load: fits */
    FTR_LOAD_MISSING,    /* variables that the file lacks */
    FTR_LOAD_UNEXPECTED, /* tensors that the graph lacks, "*.num_batches_tracked" aside */
    FTR_LOAD_MISMATCHED, /* in both, but type, shape or a bool's byte does not fit */
    FTR_LOAD_SKIPPED,    /* passed over because of a pattern of `skip` */
    FTR_LOAD_OUTCOME_COUNT
} ftr_load_outcome;

/* Shapes are those of files: OIHW for convolution weights. */
typedef struct ftr_load_entry {
    const char *name;        /* a variable's full name; of a tensor that the graph lacks, its name in the file */
    const char *found_dtype; /* the file's word, "BF16" for instance; NULL: the file lacks it */
    int32_t found_rank;      /* may be more than FTR_MAX_RANK */
    const int64_t *found_dim;
    ftr_dtype expected_dtype; /* FTR_DTYPE_NONE: the graph lacks it */
    ftr_shape expected_shape;
    ftr_status fault; /* why the load is refused: FTR_ERROR_NAME, FTR_ERROR_DTYPE, FTR_ERROR_SHAPE or FTR_ERROR_DATA;
                       * FTR_OK if not for this one */
} ftr_load_entry;

/* What a load found, by outcome. */
typedef struct ftr_load_report ftr_load_report;

/* Reads parameters and buffers by name; convolution weights come as OIHW. `desc` NULL is strict, with nothing skipped.
 * A variable that is not skipped must have the file's shape and type in every mode, save that F16, BF16, F32 and F64
 * become the variable's floating-point type as in PyTorch: rounded to the nearest, ties to even, what is too large to
 * infinity. Nothing is changed on an error; the sentence names the first tensor that does not fit and how many more
 * there are. `report` may be NULL; *report is made if the load succeeds or names, types, shapes or values refuse it,
 * otherwise it becomes NULL. It is the caller's, who gives it back with ftr_load_report_destroy() before the context.
 * Errors: FTR_ERROR_INVALID_ARGUMENT, FTR_ERROR_NAME, FTR_ERROR_SHAPE, FTR_ERROR_DTYPE, FTR_ERROR_DATA (a bool that is
 * neither 0 nor 1), and those of ftr_safetensors_open(). */
FTR_API ftr_status ftr_load_weights(ftr_graph *graph, const char *path, const ftr_load_desc *desc,
                                    ftr_load_report **report);

/* Number of entries with this outcome; 0 for a NULL report. */
FTR_API int32_t ftr_load_report_count(const ftr_load_report *report, ftr_load_outcome outcome);

/* Entry number `index` with this outcome: variables in the order of declaration, then tensors that the graph lacks in
 * the order of names. False if out of range. The pointers live as long as the report. */
FTR_API bool ftr_load_report_at(const ftr_load_report *report, ftr_load_outcome outcome, int32_t index,
                                ftr_load_entry *entry);

/* Prints a line with the counts, then a line for each entry that was not loaded. */
FTR_API void ftr_load_report_print(const ftr_load_report *report, ftr_write_fn write, void *user);

/* Frees a report. NULL is allowed. */
FTR_API void ftr_load_report_destroy(ftr_load_report *report);

#ifdef __cplusplus
}
#endif

#endif
