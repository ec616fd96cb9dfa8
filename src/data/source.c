/* Data sources: descriptions checked once, samples read through a function; arrays in memory are one such function. */
#include "data/data.h"

#include <string.h>

/* Errors of a source start with its name, or with the call's when it has none. */
static const char *ftr__source_label(const char *name) { return name && *name ? name : "?"; }

static ftr_status ftr__check_field(ftr_context *context, const char *source, const ftr_field *fields, int32_t index) {
    const ftr_field *field = &fields[index];
    if (!field->name || !*field->name)
        return ftr__error(context, FTR_ERROR_NAME, "source '%s': field %d has no name", source, (int)index);
    for (int32_t i = 0; i < index; i++)
        if (strcmp(fields[i].name, field->name) == 0)
            return ftr__error(context, FTR_ERROR_NAME, "source '%s': fields %d and %d are both named '%s'", source,
                              (int)i, (int)index, field->name);
    if (ftr_dtype_size(field->dtype) == 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has the unknown dtype %d",
                          source, field->name, (int)field->dtype);
    if (field->shape.rank < 0 || field->shape.rank >= FTR_MAX_RANK)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has rank %d, expected 0 to %d",
                          source, field->name, (int)field->shape.rank, FTR_MAX_RANK - 1);
    char text[FTR__SHAPE_TEXT];
    if (ftr_shape_count(&field->shape) < 0)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has the impossible shape %s",
                          source, field->name, ftr__shape_text(&field->shape, text));
    return FTR_OK;
}

static ftr_status ftr__check_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                    int32_t field_count) {
    const char *label = ftr__source_label(name);
    if (!name || !*name) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing");
    if (count < 1)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': count is %lld, expected 1 or more", label,
                          (long long)count);
    if (field_count < 1 || field_count > FTR_MAX_FIELDS)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field_count is %d, expected 1 to %d",
                          label, (int)field_count, FTR_MAX_FIELDS);
    if (!fields) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': fields is NULL", label);
    for (int32_t i = 0; i < field_count; i++) {
        ftr_status status = ftr__check_field(context, label, fields, i);
        if (status != FTR_OK) return status;
    }
    return FTR_OK;
}

/* A source whose description has been checked; read and user are the caller's to set. */
static ftr_status ftr__source_new(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                                  int32_t field_count, ftr_source **result) {
    ftr_source *source = ftr__allocate(context, sizeof *source);
    if (!source) return ftr__out_of_memory(context, "source", sizeof *source);
    memset(source, 0, sizeof *source);
    source->context = context;
    ftr__arena_init(&source->arena, context);
    source->count = count;
    source->field_count = field_count;
    source->name = ftr__arena_string(&source->arena, name);
    bool complete = source->name != NULL;
    for (int32_t i = 0; i < field_count; i++) {
        ftr__source_field *field = &source->fields[i];
        field->name = ftr__arena_string(&source->arena, fields[i].name);
        field->dtype = fields[i].dtype;
        field->shape = fields[i].shape;
        field->bytes = ftr_shape_count(&field->shape) * (int64_t)ftr_dtype_size(field->dtype);
        complete = complete && field->name;
    }
    if (!complete) {
        ftr_source_destroy(source);
        return ftr__out_of_memory(context, "source: names", strlen(name));
    }
    *result = source;
    return FTR_OK;
}

ftr_status ftr_source_create(ftr_context *context, const ftr_source_desc *desc, ftr_source **source) {
    if (source) *source = NULL;
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!source) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_source_create: source is NULL");
    if (!desc) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_source_create: desc is NULL");
    ftr_status status = ftr__check_source(context, desc->name, desc->count, desc->fields, desc->field_count);
    if (status != FTR_OK) return status;
    if (!desc->read) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': read is NULL", desc->name);
    status = ftr__source_new(context, desc->name, desc->count, desc->fields, desc->field_count, source);
    if (status != FTR_OK) return status;
    (*source)->user = desc->user;
    (*source)->read = desc->read;
    return FTR_OK;
}

static ftr_status ftr__memory_source_read(void *user, int64_t index, void *const *fields) {
    const ftr_source *source = user;
    for (int32_t i = 0; i < source->field_count; i++) {
        const ftr__source_field *field = &source->fields[i];
        if (field->bytes > 0) memcpy(fields[i], field->data + index * field->bytes, (size_t)field->bytes);
    }
    return FTR_OK;
}

ftr_status ftr_memory_source(ftr_context *context, const char *name, int64_t count, const ftr_field *fields,
                             const void *const *data, int32_t field_count, ftr_source **source) {
    if (source) *source = NULL;
    if (!context) return FTR_ERROR_INVALID_ARGUMENT;
    if (!source) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_memory_source: source is NULL");
    ftr_status status = ftr__check_source(context, name, count, fields, field_count);
    if (status != FTR_OK) return status;
    if (!data) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': data is NULL", name);
    for (int32_t i = 0; i < field_count; i++)
        if (!data[i])
            return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': field '%s' has no data", name,
                              fields[i].name);
    status = ftr__source_new(context, name, count, fields, field_count, source);
    if (status != FTR_OK) return status;
    for (int32_t i = 0; i < field_count; i++) {
        ftr__source_field *field = &(*source)->fields[i];
        field->data = data[i];
        if (field->bytes > 0 && count > INT64_MAX / field->bytes) {
            status = ftr__error(context, FTR_ERROR_INVALID_ARGUMENT,
                                "source '%s': %lld samples of field '%s' are more than memory can hold", name,
                                (long long)count, field->name);
            ftr_source_destroy(*source);
            *source = NULL;
            return status;
        }
    }
    (*source)->user = *source;
    (*source)->read = ftr__memory_source_read;
    return FTR_OK;
}

static ftr_status ftr__subset_check(const ftr_source *parent, const char *name, const int64_t *indices, int64_t count) {
    ftr_context *context = parent->context;
    if (!name || !*name) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source: name is missing");
    if (count < 1 || count > INT64_MAX / (int64_t)sizeof *indices)
        return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': count is %lld, expected 1 or more", name,
                          (long long)count);
    if (!indices) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "source '%s': indices is NULL", name);
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < 0 || indices[i] >= parent->count)
            return ftr__error(context, FTR_ERROR_DATA,
                              "source '%s': index %lld is %lld, source '%s' has samples 0 to %lld", name, (long long)i,
                              (long long)indices[i], parent->name, (long long)parent->count - 1);
    return FTR_OK;
}

ftr_status ftr_source_subset(ftr_source *parent, const char *name, const int64_t *indices, int64_t count,
                             ftr_source **source) {
    if (source) *source = NULL;
    if (!parent) return FTR_ERROR_INVALID_ARGUMENT;
    ftr_context *context = parent->context;
    if (!source) return ftr__error(context, FTR_ERROR_INVALID_ARGUMENT, "ftr_source_subset: source is NULL");
    ftr_status status = ftr__subset_check(parent, name, indices, count);
    if (status != FTR_OK) return status;
    ftr_field fields[FTR_MAX_FIELDS];
    for (int32_t i = 0; i < parent->field_count; i++)
        fields[i] = (ftr_field){parent->fields[i].name, parent->fields[i].dtype, parent->fields[i].shape};
    ftr_source *made = NULL;
    status = ftr__source_new(context, name, count, fields, parent->field_count, &made);
    if (status != FTR_OK) return status;
    const size_t bytes = (size_t)count * sizeof *indices;
    int64_t *copy = ftr__arena_alloc(&made->arena, bytes);
    if (!copy) {
        ftr_source_destroy(made);
        return ftr__out_of_memory(context, "source: indices", bytes);
    }
    memcpy(copy, indices, bytes);
    made->indices = copy;
    made->parent = parent;
    *source = made;
    return FTR_OK;
}

void ftr_source_destroy(ftr_source *source) {
    if (!source) return;
    ftr__arena_free(&source->arena);
    ftr__release(source->context, source, sizeof *source);
}

int64_t ftr_source_count(const ftr_source *source) { return source ? source->count : 0; }

int32_t ftr__source_find(const ftr_source *source, const char *name) {
    for (int32_t i = 0; i < source->field_count; i++)
        if (strcmp(source->fields[i].name, name) == 0) return i;
    return -1;
}

ftr_status ftr__source_read(const ftr_source *source, int64_t index, void *const *fields) {
    for (; source->parent; source = source->parent) index = source->indices[index];
    ftr_status status = source->read(source->user, index, fields);
    if (status == FTR_OK) return FTR_OK;
    return ftr__error(source->context, status, "source '%s': reading sample %lld failed with %s", source->name,
                      (long long)index, ftr_status_name(status));
}
