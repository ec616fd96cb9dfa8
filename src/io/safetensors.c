#include "io/safetensors.h"

#include "core/json.h"
#include "core/sort.h"
#include "io/file.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fasttrain reads and writes little-endian files as they are: it needs a little-endian machine"
#endif

#define FTR__SAFETENSORS_MAX_HEADER 100000000
#define FTR__SAFETENSORS_METADATA "__metadata__"

/* An element type of the format. */
typedef struct ftr__safetensors_type {
    const char *name;
    uint32_t bits;
    ftr_dtype dtype;
} ftr__safetensors_type;

/* In the order of the reference's enum `Dtype` (safetensors 0.8), which is the order of alignment that files are sorted
 * by. */
static const ftr__safetensors_type ftr__safetensors_types[] = {
    {"BOOL", 8, FTR_BOOL},
    {"F4", 4, FTR_DTYPE_NONE},
    {"F6_E2M3", 6, FTR_DTYPE_NONE},
    {"F6_E3M2", 6, FTR_DTYPE_NONE},
    {"U8", 8, FTR_U8},
    {"I8", 8, FTR_DTYPE_NONE},
    {"F8_E5M2", 8, FTR_DTYPE_NONE},
    {"F8_E4M3", 8, FTR_DTYPE_NONE},
    {"F8_E8M0", 8, FTR_DTYPE_NONE},
    {"F8_E4M3FNUZ", 8, FTR_DTYPE_NONE},
    {"F8_E5M2FNUZ", 8, FTR_DTYPE_NONE},
    {"I16", 16, FTR_DTYPE_NONE},
    {"U16", 16, FTR_DTYPE_NONE},
    {"F16", 16, FTR_F16},
    {"BF16", 16, FTR_BF16},
    {"I32", 32, FTR_I32},
    {"U32", 32, FTR_DTYPE_NONE},
    {"F32", 32, FTR_F32},
    {"C64", 64, FTR_DTYPE_NONE},
    {"F64", 64, FTR_F64},
    {"I64", 64, FTR_I64},
    {"U64", 64, FTR_DTYPE_NONE},
};

/* A tensor of an open file. Offsets count from the start of the data. */
typedef struct ftr__safetensors_tensor {
    const char *name;
    const ftr__safetensors_type *type;
    int32_t rank;
    int64_t *dim;
    int64_t begin, end;
} ftr__safetensors_tensor;

struct ftr_safetensors {
    ftr_context *context;
    const char *label; /* path for messages; only valid while the file is checked */
    ftr__arena arena;
    unsigned char *bytes; /* the whole file */
    size_t size;
    const unsigned char *data;        /* behind the header */
    int64_t count;                    /* of tensors */
    ftr__safetensors_tensor *tensors; /* sorted by name */
    const ftr__json *metadata;        /* object; NULL if there is none */
};

/* ------------------------------------------------------------------------------------------------------ messages -- */

#define FTR__SAFETENSORS_TEXT 80

/* "F32 [2, 3]", with "..." for what does not fit. */
static const char *ftr__safetensors_type_text(const ftr__safetensors_tensor *tensor, char text[FTR__SAFETENSORS_TEXT]) {
    const size_t used = (size_t)snprintf(text, FTR__SAFETENSORS_TEXT, "%s ", tensor->type->name);
    ftr__dims_text(tensor->rank, tensor->dim, text + used, FTR__SAFETENSORS_TEXT - used);
    return text;
}

/* The header is JSON but says something else than it should. `tensor` NULL: about the metadata; `value` NULL: missing.
 * */
static ftr_status ftr__safetensors_found(const ftr_safetensors *file, const char *tensor, const char *field,
                                         const ftr__json *value, const char *expected) {
    char found[64];
    if (!value) {
        snprintf(found, sizeof found, "nothing");
    } else if (value->type == FTR__JSON_NUMBER && value->as.number.is_integer) {
        snprintf(found, sizeof found, "%" PRId64, value->as.number.integer);
    } else if (value->type == FTR__JSON_NUMBER) {
        snprintf(found, sizeof found, "the number %.17g", value->as.number.value);
    } else if (value->type == FTR__JSON_STRING) {
        snprintf(found, sizeof found, "'%.40s'", value->as.string.text);
    } else {
        snprintf(found, sizeof found, "%s", ftr__json_type_text(value));
    }
    return ftr__error(file->context, FTR_ERROR_FORMAT,
                      "%s: InvalidHeaderDeserialization: %s%.100s%s%s: found %s, expected %s", file->label,
                      tensor ? "tensor '" : FTR__SAFETENSORS_METADATA, tensor ? tensor : "", tensor ? "'" : "", field,
                      found, expected);
}

/* ----------------------------------------------------------------------------------------------- reading: header -- */

/* The reference's first checks; on success the header is *length bytes behind the first 8. */
static ftr_status ftr__safetensors_header(const ftr_safetensors *file, size_t *length) {
    const char *label = file->label;
    if (file->size < 8)
        return ftr__error(file->context, FTR_ERROR_FORMAT, "%s: HeaderTooSmall: found %zu bytes, expected at least 8",
                          label, file->size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | file->bytes[i];
    if (n > FTR__SAFETENSORS_MAX_HEADER)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: HeaderTooLarge: found a header of %" PRIu64 " bytes, expected at most %d", label, n,
                          FTR__SAFETENSORS_MAX_HEADER);
    if (n > file->size - 8)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderLength: found a header of %" PRIu64
                          " bytes, expected at most the remaining %zu",
                          label, n, file->size - 8);
    *length = (size_t)n;
    const int64_t invalid = ftr__utf8_invalid_at((const char *)file->bytes + 8, *length);
    if (invalid >= 0)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeader: found 0x%02X at byte %" PRId64 " of the header, expected UTF-8", label,
                          file->bytes[8 + invalid], invalid);
    return FTR_OK;
}

/* Whether a text can be handed out as a C string. */
static bool ftr__safetensors_is_plain(const char *text, size_t length) { return !memchr(text, '\0', length); }

static ftr_status ftr__safetensors_read_metadata(ftr_safetensors *file, const ftr__json *metadata) {
    if (metadata->type == FTR__JSON_NULL) return FTR_OK; /* the reference takes it for none */
    if (metadata->type != FTR__JSON_OBJECT) return ftr__safetensors_found(file, NULL, "", metadata, "an object");
    for (const ftr__json *member = metadata->as.list.first; member; member = member->next) {
        if (member->type != FTR__JSON_STRING) return ftr__safetensors_found(file, NULL, "", member, "a string");
        if (!ftr__safetensors_is_plain(member->key, member->key_length) ||
            !ftr__safetensors_is_plain(member->as.string.text, member->as.string.length))
            return ftr__error(file->context, FTR_ERROR_FORMAT,
                              "%s: InvalidHeaderDeserialization: " FTR__SAFETENSORS_METADATA
                              ": found the character U+0000, expected none",
                              file->label);
    }
    file->metadata = metadata;
    return FTR_OK;
}

/* Integers of an array, which are not negative. */
static ftr_status ftr__safetensors_integers(const ftr_safetensors *file, const char *tensor, const char *field,
                                            const ftr__json *array, int64_t *integers) {
    for (const ftr__json *element = array->as.list.first; element; element = element->next) {
        if (element->type != FTR__JSON_NUMBER || !element->as.number.is_integer || element->as.number.integer < 0)
            return ftr__safetensors_found(file, tensor, field, element, "an integer from 0 to 9223372036854775807");
        *integers++ = element->as.number.integer;
    }
    return FTR_OK;
}

static ftr_status ftr__safetensors_read_dtype(const ftr_safetensors *file, const ftr__json *entry,
                                              ftr__safetensors_tensor *tensor) {
    const ftr__json *dtype = ftr__json_find(entry, "dtype");
    if (dtype && dtype->type == FTR__JSON_STRING) {
        for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__safetensors_types); i++) {
            const ftr__safetensors_type *type = &ftr__safetensors_types[i];
            if (strlen(type->name) == dtype->as.string.length && strcmp(type->name, dtype->as.string.text) == 0)
                tensor->type = type;
        }
    }
    return tensor->type ? FTR_OK
                        : ftr__safetensors_found(file, entry->key, ": dtype", dtype, "an element type of the format");
}

/* An entry of the header, not yet compared with others and with the file. */
static ftr_status ftr__safetensors_read_entry(ftr_safetensors *file, const ftr__json *entry,
                                              ftr__safetensors_tensor *tensor) {
    tensor->name = entry->key;
    if (!ftr__safetensors_is_plain(entry->key, entry->key_length))
        return ftr__error(
            file->context, FTR_ERROR_FORMAT,
            "%s: InvalidHeaderDeserialization: tensor '%.100s...': found the character U+0000 in its name, "
            "expected none",
            file->label, entry->key);
    if (entry->type != FTR__JSON_OBJECT) return ftr__safetensors_found(file, entry->key, "", entry, "an object");
    ftr_status status = ftr__safetensors_read_dtype(file, entry, tensor);
    if (status != FTR_OK) return status;

    const ftr__json *shape = ftr__json_find(entry, "shape");
    if (!shape || shape->type != FTR__JSON_ARRAY)
        return ftr__safetensors_found(file, entry->key, ": shape", shape, "an array");
    const size_t size = (size_t)shape->as.list.count * sizeof(int64_t);
    tensor->rank = (int32_t)shape->as.list.count; /* fits: the header is at most 100 MB */
    tensor->dim = ftr__arena_alloc(&file->arena, size);
    if (!tensor->dim) return ftr__out_of_memory(file->context, file->label, size);
    status = ftr__safetensors_integers(file, entry->key, ": shape", shape, tensor->dim);
    if (status != FTR_OK) return status;

    const ftr__json *offsets = ftr__json_find(entry, "data_offsets");
    if (!offsets || offsets->type != FTR__JSON_ARRAY)
        return ftr__safetensors_found(file, entry->key, ": data_offsets", offsets, "an array");
    if (offsets->as.list.count != 2)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderDeserialization: tensor '%.100s': data_offsets: found %" PRId64
                          " elements, expected 2",
                          file->label, entry->key, offsets->as.list.count);
    int64_t range[2] = {0, 0};
    status = ftr__safetensors_integers(file, entry->key, ": data_offsets", offsets, range);
    tensor->begin = range[0];
    tensor->end = range[1];
    return status;
}

/* Fills file->tensors in the order of names, which the index of the JSON object has. */
static ftr_status ftr__safetensors_read_entries(ftr_safetensors *file, const ftr__json *root) {
    const size_t size = (size_t)root->as.list.count * sizeof(*file->tensors);
    file->tensors = ftr__arena_alloc(&file->arena, size);
    if (!file->tensors) return ftr__out_of_memory(file->context, file->label, size);
    for (int64_t i = 0; i < root->as.list.count; i++) {
        const ftr__json *entry = root->as.list.by_key[i];
        ftr_status status = FTR_OK;
        if (strcmp(entry->key, FTR__SAFETENSORS_METADATA) == 0 &&
            entry->key_length == strlen(FTR__SAFETENSORS_METADATA)) {
            status = ftr__safetensors_read_metadata(file, entry);
        } else {
            status = ftr__safetensors_read_entry(file, entry, &file->tensors[file->count++]);
        }
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

static ftr_status ftr__safetensors_read_header(ftr_safetensors *file, size_t length) {
    const ftr__json *root = NULL;
    ftr__json_error error;
    const ftr_status status = ftr__json_parse(&file->arena, (const char *)file->bytes + 8, length, &root, &error);
    if (status == FTR_ERROR_OUT_OF_MEMORY) return ftr__out_of_memory(file->context, file->label, length);
    if (status != FTR_OK)
        return ftr__error(file->context, status, "%s: InvalidHeaderDeserialization: %s", file->label, error.message);
    if (root->type != FTR__JSON_OBJECT)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidHeaderDeserialization: the header: found %s, expected an object", file->label,
                          ftr__json_type_text(root));
    return ftr__safetensors_read_entries(file, root);
}

/* ---------------------------------------------------------------------------------------------- reading: offsets -- */

static int ftr__safetensors_compare_offsets(const void *a, const void *b) {
    const ftr__safetensors_tensor *left = a;
    const ftr__safetensors_tensor *right = b;
    if (left->begin != right->begin) return left->begin < right->begin ? -1 : 1;
    if (left->end != right->end) return left->end < right->end ? -1 : 1;
    return strcmp(left->name, right->name);
}

/* Whether a tensor's offsets start where the last one ended, and fit its type and shape. */
static ftr_status ftr__safetensors_check(const ftr_safetensors *file, const ftr__safetensors_tensor *tensor,
                                         int64_t start) {
    const char *label = file->label;
    if (tensor->begin != start || tensor->end < tensor->begin)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: InvalidOffset: tensor '%.100s': found data_offsets [%" PRId64 ", %" PRId64
                          "], expected a begin of %" PRId64 " and an end that is not less",
                          label, tensor->name, tensor->begin, tensor->end, start);
    char text[FTR__SAFETENSORS_TEXT];
    uint64_t bits = 1;
    bool overflow = false;
    for (int32_t i = 0; i < tensor->rank; i++) {
        overflow = overflow || __builtin_mul_overflow(bits, (uint64_t)tensor->dim[i], &bits);
    }
    if (overflow || __builtin_mul_overflow(bits, (uint64_t)tensor->type->bits, &bits))
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: ValidationOverflow: tensor '%.100s': found %s, expected fewer than 2^64 bits", label,
                          tensor->name, ftr__safetensors_type_text(tensor, text));
    if (bits % 8 != 0)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: MisalignedSlice: tensor '%.100s': found %s of %" PRIu64 " bits, expected whole bytes",
                          label, tensor->name, ftr__safetensors_type_text(tensor, text), bits);
    if ((uint64_t)(tensor->end - tensor->begin) != bits / 8)
        return ftr__error(
            file->context, FTR_ERROR_FORMAT,
            "%s: TensorInvalidInfo: tensor '%.100s': found %" PRId64 " bytes, expected %" PRIu64 " for %s", label,
            tensor->name, tensor->end - tensor->begin, bits / 8, ftr__safetensors_type_text(tensor, text));
    return FTR_OK;
}

/* The tensors must cover the data without holes and overlaps. */
static ftr_status ftr__safetensors_check_all(ftr_safetensors *file, size_t data_size) {
    const size_t size = (size_t)file->count * sizeof(void *);
    const void **by_offset = ftr__arena_alloc(&file->arena, size);
    if (!by_offset) return ftr__out_of_memory(file->context, file->label, size);
    for (int64_t i = 0; i < file->count; i++) by_offset[i] = &file->tensors[i];
    ftr__sort(by_offset, file->count, ftr__safetensors_compare_offsets);
    int64_t start = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const ftr__safetensors_tensor *tensor = by_offset[i];
        const ftr_status status = ftr__safetensors_check(file, tensor, start);
        if (status != FTR_OK) return status;
        start = tensor->end;
    }
    if ((uint64_t)start != data_size)
        return ftr__error(file->context, FTR_ERROR_FORMAT,
                          "%s: MetadataIncompleteBuffer: found %zu bytes of data, expected %" PRId64 " for all tensors",
                          file->label, data_size, start);
    return FTR_OK;
}

/* ------------------------------------------------------------------------------------------------ reading: files -- */

static ftr_status ftr__safetensors_read(ftr_safetensors *file) {
    size_t length = 0;
    ftr_status status = ftr__safetensors_header(file, &length);
    if (status == FTR_OK) status = ftr__safetensors_read_header(file, length);
    if (status == FTR_OK) status = ftr__safetensors_check_all(file, file->size - 8 - length);
    file->data = file->bytes + 8 + length;
    return status;
}

ftr_status ftr__safetensors_take(ftr_context *context, const char *label, unsigned char *bytes, size_t size,
                                 ftr_safetensors **file) {
    ftr_safetensors *opened = ftr__allocate(context, sizeof *opened);
    if (!opened) {
        ftr__release(context, bytes, size);
        return ftr__out_of_memory(context, label, sizeof *opened);
    }
    *opened = (ftr_safetensors){.context = context, .label = label, .bytes = bytes, .size = size};
    ftr__arena_init(&opened->arena, context);
    const ftr_status status = ftr__safetensors_read(opened);
    opened->label = NULL;
    if (status == FTR_OK) {
        *file = opened;
    } else {
        ftr_safetensors_close(opened);
    }
    return status;
}

ftr_status ftr_safetensors_open(ftr_context *context, const char *path, ftr_safetensors **file) {
    if (file) *file = NULL;
    if (!context || !path || !file)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_safetensors_open: context, path or file is NULL");
    unsigned char *bytes = NULL;
    size_t size = 0;
    const ftr_status status = ftr__file_read(context, path, &bytes, &size);
    return status == FTR_OK ? ftr__safetensors_take(context, path, bytes, size, file) : status;
}

ftr_status ftr_safetensors_parse(ftr_context *context, const char *label, const void *data, size_t bytes,
                                 ftr_safetensors **file) {
    if (file) *file = NULL;
    if (!context || !label || (!data && bytes > 0) || !file)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "ftr_safetensors_parse: context, label, data or file is NULL");
    unsigned char *copy = ftr__allocate(context, bytes);
    if (!copy) return ftr__out_of_memory(context, label, bytes);
    if (bytes > 0) memcpy(copy, data, bytes);
    return ftr__safetensors_take(context, label, copy, bytes, file);
}

void ftr_safetensors_close(ftr_safetensors *file) {
    if (!file) return;
    ftr__arena_free(&file->arena);
    ftr__release(file->context, file->bytes, file->size);
    ftr__release(file->context, file, sizeof *file);
}

int64_t ftr_safetensors_count(const ftr_safetensors *file) { return file ? file->count : 0; }

bool ftr_safetensors_at(const ftr_safetensors *file, int64_t index, ftr_safetensors_entry *entry) {
    if (!file || !entry || index < 0 || index >= file->count) return false;
    const ftr__safetensors_tensor *tensor = &file->tensors[index];
    *entry = (ftr_safetensors_entry){
        .name = tensor->name,
        .dtype_name = tensor->type->name,
        .dtype = tensor->type->dtype,
        .rank = tensor->rank,
        .dim = tensor->dim,
        .data = file->data + tensor->begin,
        .bytes = (size_t)(tensor->end - tensor->begin),
    };
    return true;
}

bool ftr_safetensors_find(const ftr_safetensors *file, const char *name, ftr_safetensors_entry *entry) {
    if (!file || !name || !entry) return false;
    int64_t low = 0, high = file->count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        const int order = strcmp(file->tensors[middle].name, name);
        if (order == 0) return ftr_safetensors_at(file, middle, entry);
        if (order < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return false;
}

const char *ftr_safetensors_metadata(const ftr_safetensors *file, const char *key) {
    if (!file || !key || !file->metadata) return NULL;
    const ftr__json *value = ftr__json_find(file->metadata, key);
    return value ? value->as.string.text : NULL;
}

/* ------------------------------------------------------------------------------------------------------- writing -- */

/* A tensor to be written. */
typedef struct ftr__safetensors_output {
    const ftr_safetensors_item *item;
    int32_t type; /* index in ftr__safetensors_types */
    int64_t bytes;
} ftr__safetensors_output;

/* All that a file is made of. */
typedef struct ftr__safetensors_writer {
    ftr_context *context;
    const char *path;
    ftr__arena *arena;
    const void **outputs; /* ftr__safetensors_output, in the order of the file */
    int64_t count;
    const char *const *metadata;
    int64_t metadata_count;
} ftr__safetensors_writer;

static int ftr__safetensors_compare_names(const void *a, const void *b) {
    const ftr__safetensors_output *left = a;
    const ftr__safetensors_output *right = b;
    return strcmp(left->item->name, right->item->name);
}

static int ftr__safetensors_compare_alignment(const void *a, const void *b) {
    const ftr__safetensors_output *left = a;
    const ftr__safetensors_output *right = b;
    if (left->type != right->type) return left->type > right->type ? -1 : 1;
    return ftr__safetensors_compare_names(a, b);
}

static int ftr__safetensors_compare_keys(const void *a, const void *b) { return strcmp(a, b); }

static bool ftr__safetensors_is_utf8(const char *text) { return ftr__utf8_invalid_at(text, strlen(text)) < 0; }

static ftr_status ftr__safetensors_add(ftr__safetensors_writer *writer, const ftr_safetensors_item *item,
                                       ftr__safetensors_output *output) {
    ftr_context *context = writer->context;
    if (!item->name)
        return ftr__error(context, FTR_ERROR_NAME, "%s: item %td: name is NULL", writer->path,
                          (ptrdiff_t)writer->count);
    if (strcmp(item->name, FTR__SAFETENSORS_METADATA) == 0)
        return ftr__error(context, FTR_ERROR_NAME, "%s: tensor '%s': found the format's own name, expected another",
                          writer->path, item->name);
    if (!ftr__safetensors_is_utf8(item->name))
        return ftr__error(context, FTR_ERROR_NAME, "%s: item %td: found a name that is not UTF-8", writer->path,
                          (ptrdiff_t)writer->count);
    output->item = item;
    output->type = -1;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__safetensors_types); i++) {
        if (item->dtype != FTR_DTYPE_NONE && ftr__safetensors_types[i].dtype == item->dtype) output->type = i;
    }
    if (output->type < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: tensor '%.100s': dtype is %d, expected an element type", writer->path, item->name,
                          (int)item->dtype);
    const int64_t count = ftr_shape_count(&item->shape);
    if (count < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: tensor '%.100s': shape is out of range",
                          writer->path, item->name);
    output->bytes = count * (int64_t)ftr_dtype_size(item->dtype); /* fits: see ftr_shape_count() */
    writer->outputs[writer->count++] = output;
    return FTR_OK;
}

static ftr_status ftr__safetensors_add_all(ftr__safetensors_writer *writer, const ftr_safetensors_item *items,
                                           int64_t count) {
    writer->outputs = ftr__arena_alloc(writer->arena, (size_t)count * sizeof(*writer->outputs));
    ftr__safetensors_output *outputs = ftr__arena_alloc(writer->arena, (size_t)count * sizeof(*outputs));
    if (!writer->outputs || !outputs)
        return ftr__out_of_memory(writer->context, writer->path, (size_t)count * sizeof(*outputs));
    int64_t total = 0;
    for (int64_t i = 0; i < count; i++) {
        const ftr_status status = ftr__safetensors_add(writer, &items[i], &outputs[i]);
        if (status != FTR_OK) return status;
        if (outputs[i].bytes > INT64_MAX - total)
            return ftr__error(writer->context, FTR_ERROR_INVALID_ARGUMENT,
                              "%s: tensor '%.100s': the file is out of range", writer->path, items[i].name);
        total += outputs[i].bytes;
    }
    ftr__sort(writer->outputs, count, ftr__safetensors_compare_names);
    for (int64_t i = 1; i < count; i++) {
        if (ftr__safetensors_compare_names(writer->outputs[i - 1], writer->outputs[i]) != 0) continue;
        const ftr__safetensors_output *output = writer->outputs[i];
        return ftr__error(writer->context, FTR_ERROR_NAME, "%s: tensor '%.100s': found twice, expected once",
                          writer->path, output->item->name);
    }
    ftr__sort(writer->outputs, count, ftr__safetensors_compare_alignment);
    return FTR_OK;
}

static ftr_status ftr__safetensors_check_metadata(ftr__safetensors_writer *writer) {
    const int64_t count = writer->metadata_count;
    const void **keys = ftr__arena_alloc(writer->arena, (size_t)count * sizeof(*keys));
    if (!keys) return ftr__out_of_memory(writer->context, writer->path, (size_t)count * sizeof(*keys));
    for (int64_t i = 0; i < count; i++) {
        const char *key = writer->metadata[2 * i], *value = writer->metadata[2 * i + 1];
        if (!key || !value || !ftr__safetensors_is_utf8(key) || !ftr__safetensors_is_utf8(value))
            return ftr__error(writer->context, FTR_ERROR_NAME, "%s: metadata pair %td: found NULL or no UTF-8",
                              writer->path, (ptrdiff_t)i);
        keys[i] = key;
    }
    ftr__sort(keys, count, ftr__safetensors_compare_keys);
    for (int64_t i = 1; i < count; i++) {
        if (strcmp(keys[i - 1], keys[i]) == 0)
            return ftr__error(writer->context, FTR_ERROR_NAME, "%s: metadata '%.100s': found twice, expected once",
                              writer->path, (const char *)keys[i]);
    }
    return FTR_OK;
}

/* Writes the header, or only measures it. */
static void ftr__safetensors_put_header(const ftr__safetensors_writer *writer, ftr__json_writer *json) {
    const char *comma = "";
    ftr__json_put(json, "{");
    for (int64_t i = 0; i < writer->metadata_count; i++) {
        ftr__json_put(json, i == 0 ? "\"" FTR__SAFETENSORS_METADATA "\":{" : ",");
        ftr__json_put_string(json, writer->metadata[2 * i]);
        ftr__json_put(json, ":");
        ftr__json_put_string(json, writer->metadata[2 * i + 1]);
        if (i + 1 == writer->metadata_count) ftr__json_put(json, "}");
        comma = ",";
    }
    int64_t begin = 0;
    for (int64_t i = 0; i < writer->count; i++) {
        const ftr__safetensors_output *output = writer->outputs[i];
        ftr__json_put(json, comma);
        ftr__json_put_string(json, output->item->name);
        ftr__json_put(json, ":{\"dtype\":");
        ftr__json_put_string(json, ftr__safetensors_types[output->type].name);
        ftr__json_put(json, ",\"shape\":[");
        for (int32_t d = 0; d < output->item->shape.rank; d++) {
            if (d > 0) ftr__json_put(json, ",");
            ftr__json_put_integer(json, output->item->shape.dim[d]);
        }
        ftr__json_put(json, "],\"data_offsets\":[");
        ftr__json_put_integer(json, begin);
        ftr__json_put(json, ",");
        begin += output->bytes;
        ftr__json_put_integer(json, begin);
        ftr__json_put(json, "]}");
        comma = ",";
    }
    ftr__json_put(json, "}");
    while (json->length % 8 != 0) ftr__json_put(json, " ");
}

/* The length of the header in 8 bytes, then the header. */
static ftr_status ftr__safetensors_make_header(const ftr__safetensors_writer *writer, ftr__safetensors_layout *layout) {
    ftr__json_writer json = {.text = NULL};
    ftr__safetensors_put_header(writer, &json);
    const size_t length = json.length;
    if (length > FTR__SAFETENSORS_MAX_HEADER)
        return ftr__error(writer->context, FTR_ERROR_INVALID_ARGUMENT,
                          "%s: HeaderTooLarge: found a header of %zu bytes, expected at most %d", writer->path, length,
                          FTR__SAFETENSORS_MAX_HEADER);
    unsigned char *header = ftr__arena_alloc(writer->arena, 8 + length);
    if (!header) return ftr__out_of_memory(writer->context, writer->path, 8 + length);
    for (int i = 0; i < 8; i++) header[i] = (unsigned char)((uint64_t)length >> (8 * i));
    json = (ftr__json_writer){.text = (char *)header + 8};
    ftr__safetensors_put_header(writer, &json);
    layout->header = header;
    layout->header_bytes = 8 + length;
    return FTR_OK;
}

static ftr_status ftr__safetensors_make_order(const ftr__safetensors_writer *writer, const ftr_safetensors_item *items,
                                              ftr__safetensors_layout *layout) {
    const size_t size = (size_t)writer->count * sizeof *layout->order;
    int32_t *order = ftr__arena_alloc(writer->arena, size);
    if (!order) return ftr__out_of_memory(writer->context, writer->path, size);
    for (int64_t i = 0; i < writer->count; i++) {
        const ftr__safetensors_output *output = writer->outputs[i];
        order[i] = (int32_t)(output->item - items);
        layout->data_bytes += (size_t)output->bytes;
    }
    layout->order = order;
    layout->count = (int32_t)writer->count; /* fits: a header of so many entries would be too large */
    return FTR_OK;
}

ftr_status ftr__safetensors_lay_out(ftr_context *context, ftr__arena *arena, const char *path,
                                    const ftr_safetensors_item *items, int64_t count, const char *const *metadata,
                                    int64_t metadata_count, ftr__safetensors_layout *layout) {
    ftr__safetensors_writer writer = {
        .context = context, .path = path, .arena = arena, .metadata = metadata, .metadata_count = metadata_count};
    *layout = (ftr__safetensors_layout){.count = 0};
    ftr_status status = ftr__safetensors_add_all(&writer, items, count);
    if (status == FTR_OK) status = ftr__safetensors_check_metadata(&writer);
    if (status == FTR_OK) status = ftr__safetensors_make_header(&writer, layout);
    return status == FTR_OK ? ftr__safetensors_make_order(&writer, items, layout) : status;
}

static ftr_status ftr__safetensors_write_file(ftr_context *context, const char *path, const ftr_safetensors_item *items,
                                              const ftr__safetensors_layout *layout) {
    for (int32_t i = 0; i < layout->count; i++) {
        const ftr_safetensors_item *item = &items[i];
        if (!item->data && ftr_shape_count(&item->shape) > 0)
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: tensor '%.100s': data is NULL", path,
                              item->name);
    }
    ftr__file_writer file;
    ftr__file_begin(&file, context, path);
    ftr__file_append(&file, layout->header, layout->header_bytes);
    for (int32_t i = 0; i < layout->count; i++) {
        const ftr_safetensors_item *item = &items[layout->order[i]];
        ftr__file_append(&file, item->data, (size_t)ftr_shape_count(&item->shape) * ftr_dtype_size(item->dtype));
    }
    return ftr__file_end(&file);
}

ftr_status ftr_safetensors_write(ftr_context *context, const char *path, const ftr_safetensors_item *items,
                                 int64_t count, const char *const *metadata, int64_t metadata_count) {
    if (!context || !path)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_safetensors_write: context or path is NULL");
    if (count < 0 || (count > 0 && !items) || metadata_count < 0 || (metadata_count > 0 && !metadata))
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "%s: items or metadata do not fit their counts", path);
    ftr__arena arena;
    ftr__arena_init(&arena, context);
    ftr__safetensors_layout layout;
    ftr_status status =
        ftr__safetensors_lay_out(context, &arena, path, items, count, metadata, metadata_count, &layout);
    if (status == FTR_OK) status = ftr__safetensors_write_file(context, path, items, &layout);
    ftr__arena_free(&arena);
    return status;
}
