/* A libFuzzer target: any files in a checkpoint's folder are a checkpoint or are refused, and any checkpoint is
 * restored or refused. The input is a list of records: a byte that says what it is, two bytes of length, the bytes.
 *
 *   0  checkpoint.json, with its digest as it is       3  optimizer.safetensors
 *   1  checkpoint.json; the right digest is appended   4  a folder's name
 *   2  weights.safetensors
 *
 * So that changed files get past their digests, "@w" and "@o" in checkpoint.json stand for those of the two files, "@W"
 * and "@O" for their sizes. */
#include "core/crc32c.h"
#include "io/checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { JSON, JSON_WITHOUT_TAIL, WEIGHTS, OPTIMIZER, NAME, KINDS };

typedef struct piece {
    const uint8_t *data;
    size_t size;
} piece;

typedef struct folder {
    piece pieces[KINDS];
    char *json;
    size_t json_size;
} folder;

/* A model of one layer, with momentum. */
static ftr_plan *make_plan(ftr_context *context) {
    ftr_graph *graph = ftr_graph_create(context);
    const ftr_tensor x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(2, 3));
    const ftr_tensor y = ftr_input(graph, "y", FTR_F32, FTR_SHAPE(2, 2));
    ftr_optimizer sgd = ftr_sgd(0.1);
    sgd.momentum = 0.5;
    const ftr_compile_desc desc = {.loss = ftr_mse(ftr_linear(x, "fc", 2, NULL), y, FTR_REDUCE_MEAN),
                                   .optimizer = &sgd};
    ftr_plan *plan = NULL;
    if (ftr_compile(graph, &desc, &plan) != FTR_OK) abort();
    return plan;
}

static void split(folder *f, const uint8_t *data, size_t size) {
    while (size >= 3) {
        size_t length = (size_t)(data[1] | data[2] << 8);
        if (length > size - 3) length = size - 3;
        f->pieces[data[0] % KINDS] = (piece){data + 3, length};
        data += 3 + length;
        size -= 3 + length;
    }
}

/* checkpoint.json with its marks replaced. */
static void make_json(folder *f) {
    const bool tail = f->pieces[JSON_WITHOUT_TAIL].data != NULL;
    const piece *p = &f->pieces[tail ? JSON_WITHOUT_TAIL : JSON];
    f->json = malloc(p->size * 10 + 64);
    if (!f->json) abort();
    size_t used = 0;
    for (size_t i = 0; i < p->size; i++) {
        const char mark = i + 1 < p->size && p->data[i] == '@' ? (char)p->data[i + 1] : 0;
        const piece *file = mark == 'w' || mark == 'W' ? &f->pieces[WEIGHTS] : &f->pieces[OPTIMIZER];
        if (mark == 'w' || mark == 'o')
            used += (size_t)sprintf(f->json + used, "%08" PRIx32, ftr__crc32c(0, file->data, file->size)), i++;
        else if (mark == 'W' || mark == 'O')
            used += (size_t)sprintf(f->json + used, "%zu", file->size), i++;
        else
            f->json[used++] = (char)p->data[i];
    }
    if (tail) used += (size_t)sprintf(f->json + used, FTR__CHECKPOINT_TAIL, ftr__crc32c(0, f->json, used));
    f->json_size = used;
}

static ftr_status read_piece(void *user, ftr_context *context, const char *label, const char *name, int64_t expected,
                             unsigned char **bytes, size_t *size) {
    const folder *f = user;
    (void)expected;
    piece p = {(const uint8_t *)f->json, f->json_size};
    if (strcmp(name, "weights.safetensors") == 0)
        p = f->pieces[WEIGHTS];
    else if (strcmp(name, "optimizer.safetensors") == 0)
        p = f->pieces[OPTIMIZER];
    else if (strcmp(name, FTR__CHECKPOINT_JSON) != 0 || !p.data)
        return ftr__error(context, FTR_ERROR_IO, "%s: not there", label);
    *size = p.size;
    *bytes = ftr__allocate(context, p.size);
    if (!*bytes) abort();
    if (p.size > 0) memcpy(*bytes, p.data, p.size);
    return FTR_OK;
}

static void look(const ftr_checkpoint *checkpoint) {
    const ftr_checkpoint_info info = ftr_checkpoint_info_of(checkpoint);
    if (info.version != 1 || !info.fasttrain || info.point.step < 0) abort();
    (void)ftr_checkpoint_metadata(checkpoint, "note");
    const ftr_safetensors *weights = ftr_checkpoint_tensors(checkpoint, "weights");
    ftr_safetensors_entry entry;
    volatile unsigned sum = 0;
    for (int64_t i = 0; ftr_safetensors_at(weights, i, &entry); i++)
        for (size_t b = 0; b < entry.bytes; b++) sum += ((const unsigned char *)entry.data)[b];
    (void)sum;
}

static void check_name(const piece *p) {
    char text[FTR__FOLDER_TEXT], again[FTR__FOLDER_TEXT];
    if (!p->data || p->size >= sizeof text) return;
    memcpy(text, p->data, p->size);
    text[p->size] = 0;
    ftr__folder_name name;
    if (ftr__folder_parse(text, &name) && strcmp(ftr__folder_text(name, again), text) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ftr_context *context;
    static ftr_plan *plan;
    if (!context) {
        const ftr_context_desc desc = {.seed = 1, .threads = 1, .log_level = FTR_LOG_SILENT};
        if (ftr_context_create(&desc, &context) != FTR_OK) abort();
        plan = make_plan(context);
    }
    folder f;
    memset(&f, 0, sizeof f);
    split(&f, data, size);
    check_name(&f.pieces[NAME]);
    make_json(&f);
    ftr_checkpoint *checkpoint = NULL;
    ftr_status status = ftr__checkpoint_read(context, "input", read_piece, &f, &checkpoint);
    if ((status == FTR_OK) != (checkpoint != NULL)) abort();
    if (status == FTR_OK) {
        look(checkpoint);
        status = ftr_checkpoint_restore(checkpoint, plan);
        if (status == FTR_OK && ftr_plan_steps(plan) > INT64_MAX) abort();
        if (status != FTR_OK && status != FTR_ERROR_STATE && status != FTR_ERROR_NAME && status != FTR_ERROR_SHAPE &&
            status != FTR_ERROR_DTYPE && status != FTR_ERROR_FORMAT)
            abort();
    } else if (status != FTR_ERROR_FORMAT && status != FTR_ERROR_IO && status != FTR_ERROR_UNSUPPORTED) {
        abort();
    }
    if (status != FTR_OK && !*ftr_error_message(context)) abort();
    ftr_checkpoint_close(checkpoint);
    free(f.json);
    return 0;
}
