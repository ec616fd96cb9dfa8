#ifndef FTR_API_BASE_H
#define FTR_API_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FTR_VERSION_MAJOR 0
#define FTR_VERSION_MINOR 1
#define FTR_VERSION_PATCH 0

/* Put in front of every public function. Define it before the header is included to add visibility or calling
 * convention attributes. */
#ifndef FTR_API
#define FTR_API extern
#endif

/* Behind a function whose argument number `text` is a format of printf() for those from number `first` on: the compiler
 * compares them. */
#if defined(__GNUC__) || defined(__clang__)
#define FTR_PRINTF(text, first) __attribute__((format(printf, text, first)))
#else
#define FTR_PRINTF(text, first)
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Status. Every call that can fail returns one; ftr_error_message() has the sentence that goes with the last failure.
 * Handles that are returned by graph builders are checked for the caller: the first failure sticks to the graph and
 * ftr_compile() returns it. */
typedef enum ftr_status {
    FTR_OK = 0,
    FTR_ERROR_INVALID_ARGUMENT,   /* a field of a description is outside what is documented for it */
    FTR_ERROR_OUT_OF_MEMORY,      /* the allocator hook returned NULL */
    FTR_ERROR_INVALID_TENSOR,     /* a null handle, or one that belongs to another graph */
    FTR_ERROR_RANK,               /* a tensor has another number of dimensions than the op takes */
    FTR_ERROR_SHAPE,              /* a dimension does not fit */
    FTR_ERROR_DTYPE,              /* an element type that the op does not take */
    FTR_ERROR_NAME,               /* a name that is missing, used twice or unknown */
    FTR_ERROR_NOT_DIFFERENTIABLE, /* a gradient was asked for through an op that has none */
    FTR_ERROR_UNSUPPORTED,        /* the backend has no kernel for the node; a file is of a newer format */
    FTR_ERROR_NOT_FED,            /* an input was never given data */
    FTR_ERROR_DATA,               /* the data itself is outside its range, for instance a label beyond the classes */
    FTR_ERROR_STATE,              /* a call that is not possible now, for instance a new parameter after compiling */
    FTR_ERROR_IO,                 /* a file could not be opened, read or written */
    FTR_ERROR_FORMAT,             /* a file's content breaks its format */
    FTR_ERROR_THREAD,             /* the operating system refused a thread */
    FTR_ERROR_CALLBACK,           /* a function of the caller's reported a failure */
    FTR_ERROR_NONFINITE,          /* a node gave an infinity or NaN, see ftr_nonfinite */
    FTR_ERROR_DEVICE              /* there is no device of the kind that was asked for, or it or its driver failed */
} ftr_status;

/* Name of a status, such as "FTR_ERROR_SHAPE". Never NULL. Thread safe. */
FTR_API const char *ftr_status_name(ftr_status status);

/* ------------------------------------------------------------------------------------------------------------------
 * Element types and shapes. */
typedef enum ftr_dtype {
    FTR_DTYPE_NONE = 0,
    FTR_F32,
    FTR_F64, /* for reference backends: the CPU backend has no f64 kernels */
    FTR_I32,
    FTR_I64,
    FTR_U8,
    FTR_BOOL, /* one byte, 0 or 1 */
    FTR_F16,  /* IEEE 754 binary16: 11 significant bits, 2^-24 to 65504 */
    FTR_BF16, /* the upper half of an f32: 8 significant bits, the range of f32 */
    FTR_DTYPE_COUNT
} ftr_dtype;

/* Bytes of one element; 0 for an unknown type. Thread safe. */
FTR_API size_t ftr_dtype_size(ftr_dtype dtype);

/* Name of a type, such as "f32". Never NULL. Thread safe. */
FTR_API const char *ftr_dtype_name(ftr_dtype dtype);

/* Converts `count` elements as ftr_cast() does, for instance floats into an f16 input's data. The two memories must not
 * overlap. False, and nothing is done, if a type is unknown. Thread safe. */
FTR_API bool ftr_convert(ftr_dtype from, const void *data, ftr_dtype to, void *result, int64_t count);

#define FTR_MAX_RANK 6

/* Sizes of a tensor, outermost first. Rank 0 is a scalar; a dimension may be 0. */
typedef struct ftr_shape {
    int32_t rank;
    int64_t dim[FTR_MAX_RANK];
} ftr_shape;

#define FTR__NTH(a, b, c, d, e, f, g, h, i, ...) i
#define FTR__COUNT_ARGS(...) FTR__NTH(__VA_ARGS__, 8, 7, 6, 5, 4, 3, 2, 1, 0)

/* FTR_SHAPE(64, 8, 8, 1): a shape from its dimensions, 1 to FTR_MAX_RANK of them. */
#ifdef __cplusplus
#define FTR_SHAPE(...) (ftr_shape{FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#else
#define FTR_SHAPE(...) ((ftr_shape){FTR__COUNT_ARGS(__VA_ARGS__), {__VA_ARGS__}})
#endif

/* The shape of a scalar: rank 0, one element. Thread safe. */
FTR_API ftr_shape ftr_scalar_shape(void);

/* Number of elements, the product of the dimensions; 1 for rank 0; -1 if the rank or a dimension is out of range or the
 * product overflows. Thread safe. */
FTR_API int64_t ftr_shape_count(const ftr_shape *shape);

/* Whether two shapes have the same rank and dimensions. Thread safe. */
FTR_API bool ftr_shape_equal(const ftr_shape *a, const ftr_shape *b);

/* ------------------------------------------------------------------------------------------------------------------
 * Text output: reports are handed to a function, in pieces, so that they can go to a file, a buffer or a window. */
typedef void (*ftr_write_fn)(void *user, const char *text, size_t length);

/* An ftr_write_fn whose `user` is a FILE* of the caller's. */
FTR_API void ftr_write_file(void *user, const char *text, size_t length);

#ifdef __cplusplus
}
#endif

#endif
