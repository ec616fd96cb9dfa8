/* Checkpoints of loops of one's own: what a folder holds, what comes back, what is refused, what stays; damage of every
 * byte. FTR_FAULT=long flips every bit; --write-fixture FOLDER writes the checkpoint that tests/io/data keeps. */
#include "ftr_folder.h"

enum { BATCH = 4, CLASSES = 3 };

typedef struct fixture {
    ftr_test_memory memory;
    ftr_test_log log;
    ftr_context *context;
    char made[FTR_TEST_PATH], folder[FTR_TEST_PATH];
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    ftr_context_desc desc = {.seed = 3, .threads = 2, .log_level = FTR_LOG_WARNING};
    desc.allocator = ftr_test_allocator(&f->memory);
    desc.logger = ftr_test_logger(&f->log);
    if (ftr_context_create(&desc, &f->context) != FTR_OK) return -1;
    ftr_test_folder(f->made);
    ftr_test_path(f->folder, f->made, "run");
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr_context_destroy(f->context);
    const int result = f->memory.blocks != 0 || f->memory.wrong != 0;
    ftr_test_remove(f->made);
    free(f);
    return result;
}

/* A graph with its plan. */
typedef struct model {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor x, label, loss;
    ftr_plan *plan;
} model;

/* Convolutions with and without groups, of other heights than widths; batch norm; dropout. */
static model make_model(ftr_context *context, ftr_optimizer optimizer, int64_t width) {
    model m = {.context = context, .graph = ftr_graph_create(context)};
    m.x = ftr_input(m.graph, "x", FTR_F32, FTR_SHAPE(BATCH, 5, 4, 2));
    m.label = ftr_input(m.graph, "label", FTR_I32, FTR_SHAPE(BATCH));
    ftr_tensor h = ftr_relu(ftr_batch_norm(ftr_conv2d(m.x, "conv", width, 3, NULL), "bn", NULL));
    h = ftr_dropout(ftr_flatten(h, 1), 0.2);
    m.loss = ftr_cross_entropy(ftr_linear(h, "fc", CLASSES, NULL), m.label, NULL);
    FTR_TEST_GRAPH_OK(m.graph);
    const ftr_compile_desc desc = {.loss = m.loss, .optimizer = &optimizer};
    FTR_TEST_OK(context, ftr_compile(m.graph, &desc, &m.plan));
    return m;
}

static void free_model(model *m) {
    ftr_plan_destroy(m->plan);
    ftr_graph_destroy(m->graph);
}

/* Step number `step` of the run: its data are a function of the number. */
static double train_step(const model *m, int64_t step) {
    float x[BATCH * 5 * 4 * 2];
    int32_t label[BATCH];
    ftr_test_rng rng = {(uint64_t)step};
    ftr_test_fill_f32(x, BATCH * 5 * 4 * 2, &rng, -1.0, 1.0);
    ftr_test_fill_i32(label, BATCH, &rng, 0, CLASSES - 1);
    FTR_TEST_OK(m->context, ftr_feed(m->plan, m->x, x, sizeof x));
    FTR_TEST_OK(m->context, ftr_feed(m->plan, m->label, label, sizeof label));
    ftr_step_info info;
    FTR_TEST_OK(m->context, ftr_step(m->plan, &info));
    return info.loss;
}

/* FNV-1a over weights and states. */
static uint64_t digest(const model *m) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    static unsigned char data[1 << 16];
    const int32_t variables = ftr_variable_count(m->graph), states = ftr_plan_state_count(m->plan);
    for (int32_t i = 0; i < variables + states; i++) {
        size_t bytes;
        if (i < variables) {
            const ftr_tensor variable = ftr_variable_at(m->graph, i);
            const ftr_shape shape = ftr_shape_of(variable);
            bytes = (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(variable));
            FTR_TEST_OK(m->context, ftr_variable_read(variable, data, bytes));
        } else {
            ftr_plan_state state;
            FTR_TEST_OK(m->context, ftr_plan_state_at(m->plan, i - variables, &state));
            bytes = state.bytes;
            FTR_TEST_OK(m->context, ftr_plan_state_read(m->plan, state.name, data, bytes));
        }
        assert_true(bytes <= sizeof data);
        for (size_t b = 0; b < bytes; b++) hash = (hash ^ data[b]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static ftr_checkpointer *open_in(const fixture *f, const model *m, ftr_checkpoint_desc desc) {
    ftr_checkpointer *c = NULL;
    desc.directory = f->folder;
    FTR_TEST_OK(f->context, ftr_checkpointer_create(m->plan, &desc, &c));
    return c;
}

static ftr_checkpoint_point at_step(int64_t step) {
    return (ftr_checkpoint_point){.step = step, .epoch = step / 10, .position = step % 10, .metric = (double)NAN};
}

static void save(const fixture *f, ftr_checkpointer *c, int64_t step) {
    const ftr_checkpoint_point point = at_step(step);
    FTR_TEST_OK(f->context, ftr_checkpoint_save(c, &point));
}

/* One checkpoint of a new model that has done `steps` steps. */
static void make_checkpoint(const fixture *f, int64_t steps) {
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    for (int64_t s = 1; s <= steps; s++) train_step(&m, s);
    ftr_checkpointer *c = open_in(f, &m, (ftr_checkpoint_desc){.keep_last = 10});
    save(f, c, steps);
    FTR_TEST_OK(f->context, ftr_checkpointer_wait(c));
    ftr_checkpointer_destroy(c);
    free_model(&m);
}

/* --------------------------------------------------------------------------------------------------- round trips -- */

static void own_loop(void **state) {
    fixture *f = *state;
    ftr_optimizer optimizers[] = {ftr_sgd(0.1),        ftr_adamw(0.01), ftr_adam(0.01), ftr_rmsprop(0.01),
                                  ftr_adagrad(0.1),    ftr_lamb(0.01),  ftr_lars(0.1),  ftr_lion(0.01),
                                  ftr_adafactor(0.05), ftr_muon(0.02),  ftr_sgd(0.1),   ftr_adamw(0.01),
                                  ftr_muon(0.02)};
    optimizers[0].momentum = 0.9;
    optimizers[2].amsgrad = true;
    optimizers[3].centered = true;
    optimizers[10].momentum = 0.9;
    for (size_t o = 10; o < FTR_TEST_LENGTH(optimizers); o++)
        optimizers[o].state_dtype = FTR_BF16, optimizers[o].beta2 = 0.98;
    for (size_t o = 0; o < FTR_TEST_LENGTH(optimizers); o++) {
        ftr_test_remove(f->folder);
        model whole = make_model(f->context, optimizers[o], 6), first = make_model(f->context, optimizers[o], 6),
              second = make_model(f->context, optimizers[o], 6);
        for (int64_t s = 1; s <= 9; s++) train_step(&whole, s);
        ftr_checkpointer *c = open_in(f, &first, (ftr_checkpoint_desc){.keep_last = 1});
        for (int64_t s = 1; s <= 6; s++) {
            train_step(&first, s);
            save(f, c, s); /* the next step changes the weights while this one is written */
        }
        ftr_checkpointer_destroy(c);
        assert_int_equal(ftr_test_entries(f->folder, "step-"), 1);
        ftr_checkpoint_point point;
        FTR_TEST_OK(f->context, ftr_checkpoint_load(second.plan, f->folder, &point));
        assert_int_equal(point.step, 6);
        assert_int_equal(point.position, 6);
        assert_int_equal(ftr_plan_steps(second.plan), 6);
        assert_int_equal(ftr_plan_applied_steps(second.plan), 6);
        float loss;
        assert_int_equal(ftr_read(second.plan, second.loss, &loss, sizeof loss),
                         FTR_ERROR_STATE); /* no step here yet */
        for (int64_t s = 7; s <= 9; s++) train_step(&second, s);
        if (digest(&second) != digest(&whole)) fail_msg("optimizer %d differs", (int)optimizers[o].kind);
        free_model(&whole);
        free_model(&first);
        free_model(&second);
    }
    assert_string_equal(f->log.text, "");
}

/* weights.safetensors is what ftr_save_weights() writes, to the byte; the states of convolution weights have the shape
 * of their weights. */
static void layout(void **state) {
    fixture *f = *state;
    char path[FTR_TEST_PATH], other[FTR_TEST_PATH];
    model m = make_model(f->context, ftr_adafactor(0.01), 6);
    train_step(&m, 1);
    ftr_checkpointer *c = open_in(f, &m, (ftr_checkpoint_desc){.keep_last = 1});
    save(f, c, 1);
    FTR_TEST_OK(f->context, ftr_checkpointer_wait(c));
    const ftr_checkpoint_stats stats = ftr_checkpointer_stats(c);
    ftr_checkpointer_destroy(c);
    FTR_TEST_OK(f->context, ftr_save_weights(m.graph, ftr_test_path(other, f->made, "weights.safetensors")));
    size_t size, other_size, total = 0;
    unsigned char *bytes =
        ftr_test_read_file(ftr_test_path(path, f->folder, "step-000000000001/weights.safetensors"), &size);
    unsigned char *expected = ftr_test_read_file(other, &other_size);
    assert_int_equal(size, other_size);
    assert_memory_equal(bytes, expected, size);
    free(bytes);
    free(expected);
    ftr_checkpoint *checkpoint;
    FTR_TEST_OK(f->context, ftr_checkpoint_find(f->context, f->folder, &checkpoint));
    const ftr_safetensors *states = ftr_checkpoint_tensors(checkpoint, "optimizer");
    ftr_safetensors_entry entry;
    assert_true(ftr_safetensors_find(states, "conv.weight.row_var", &entry));
    const int64_t row[] = {6, 2, 3, 1}, column[] = {6, 2, 1, 3};
    assert_memory_equal(entry.dim, row, sizeof row);
    assert_true(ftr_safetensors_find(states, "conv.weight.col_var", &entry));
    assert_memory_equal(entry.dim, column, sizeof column);
    assert_true(ftr_safetensors_find(states, "optimizer.step", &entry));
    total = ftr_checkpoint_info_of(checkpoint).bytes;
    assert_int_equal(total, stats.bytes);
    assert_int_equal(stats.saved, 1);
    ftr_checkpoint_close(checkpoint);
    free_model(&m);
}

/* ---------------------------------------------------------------------------------------------- names, retention -- */

typedef struct listing {
    char text[1024];
} listing;

static void list_one(void *user, const char *path, ftr_status status, const char *message, const ftr_checkpoint *one) {
    listing *l = user;
    const size_t used = strlen(l->text);
    assert_int_equal(one == NULL, status != FTR_OK);
    assert_int_equal(*message == 0, status == FTR_OK);
    snprintf(l->text + used, sizeof l->text - used, "%s%s ", strrchr(path, '/') + 1, status ? "!" : "");
}

static void assert_listing(const fixture *f, const char *expected) {
    listing l = {""};
    FTR_TEST_OK(f->context, ftr_checkpoint_list(f->context, f->folder, list_one, &l));
    assert_string_equal(l.text, expected);
}

static void names(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_sgd(0.01), 3);
    assert_listing(f, ""); /* no directory */
    ftr_checkpointer *c = open_in(f, &m, (ftr_checkpoint_desc){.keep_last = 20});
    assert_listing(f, "");
    save(f, c, 0);
    save(f, c, 99);
    save(f, c, 5);
    save(f, c, 99); /* once more: takes the place of the first */
    save(f, c, INT64_C(1000000000000));
    save(f, c, INT64_C(9223372036854775807));
    FTR_TEST_OK(f->context, ftr_checkpointer_wait(c));
    ftr_checkpointer_destroy(c);
    assert_listing(
        f, "step-9223372036854775807 step-1000000000000 step-000000000099.1 step-000000000005 step-000000000000 ");
    /* what only looks like a checkpoint is none */
    const char *others[] = {"step-5",   "step-000000000005.0", "step-0000000000005", "step-9223372036854775808",
                            "step-",    "step-00000000000x",   "step-000000000005.", "step-000000000005.99999999999",
                            "tep-0001", "step-000000000005.1x"};
    char path[FTR_TEST_PATH];
    for (size_t i = 0; i < FTR_TEST_LENGTH(others); i++) mkdir(ftr_test_path(path, f->folder, others[i]), 0777);
    assert_listing(
        f, "step-9223372036854775807 step-1000000000000 step-000000000099.1 step-000000000005 step-000000000000 ");
    free_model(&m);
}

static void save_with_metric(const fixture *f, ftr_checkpointer *c, int64_t step, double metric) {
    ftr_checkpoint_point point = at_step(step);
    point.metric = metric;
    FTR_TEST_OK(f->context, ftr_checkpoint_save(c, &point));
}

static void retention(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_sgd(0.01), 3);
    const ftr_checkpoint_desc desc = {.keep_last = 2, .keep_best = 2, .metric = "score", .maximize = true};
    const double scores[] = {5.0, 9.0, (double)NAN, 8.0, 9.0, 1.0, 2.0, (double)INFINITY, 3.0, 4.0};
    const char *expected[] = {"1", "2 1", "3 2 1", "4 3 2", "5 4 2", "6 5 2", "7 6 5 2", "8 7 5", "9 8 5", "10 9 8 5"};
    for (int64_t step = 1; step <= 10; step++) {
        ftr_checkpointer *c = open_in(f, &m, desc); /* anew each time: metrics are read from the disk */
        save_with_metric(f, c, step, scores[step - 1]);
        ftr_checkpointer_destroy(c);
        char text[256] = "", *at = text;
        listing l = {""};
        FTR_TEST_OK(f->context, ftr_checkpoint_list(f->context, f->folder, list_one, &l));
        for (char *name = strtok(l.text, " "); name; name = strtok(NULL, " "))
            at += sprintf(at, "%s%d", at > text ? " " : "", atoi(name + strlen("step-")));
        assert_string_equal(text, expected[step - 1]);
    }
    free_model(&m);
}

/* Two checkpointers in one directory; leftovers of interrupted saves. */
static void directory(void **state) {
    fixture *f = *state;
    char path[FTR_TEST_PATH], inner[FTR_TEST_PATH], expected[2 * FTR_TEST_PATH];
    model m = make_model(f->context, ftr_sgd(0.01), 3);
    const ftr_checkpoint_desc desc = {.directory = f->folder};
    ftr_checkpointer *c = open_in(f, &m, desc), *second;
    assert_int_equal(ftr_checkpointer_create(m.plan, &desc, &second), FTR_ERROR_STATE);
    snprintf(expected, sizeof expected, "%s: another process, or another run of this one, writes checkpoints there",
             f->folder);
    assert_string_equal(ftr_error_message(f->context), expected);
    assert_null(second);
    save(f, c, 1);
    ftr_checkpointer_destroy(c);
    mkdir(ftr_test_path(path, f->folder, ".tmp-step-000000000002"), 0777);
    ftr_test_write_file(ftr_test_path(inner, path, "weights.safetensors"), "half", 4);
    mkdir(ftr_test_path(path, f->folder, ".tmp-old-step-000000000000"), 0777);
    ftr_checkpoint *found;
    FTR_TEST_OK(f->context, ftr_checkpoint_find(f->context, f->folder, &found));
    assert_int_equal(ftr_checkpoint_info_of(found).point.step, 1);
    ftr_checkpoint_close(found);
    assert_int_equal(ftr_test_entries(f->folder, ".tmp-"), 2); /* looking changes nothing */
    c = open_in(f, &m, desc);
    assert_int_equal(ftr_test_entries(f->folder, ".tmp-"), 0);
    assert_int_equal(ftr_test_entries(f->folder, "step-"), 1);
    ftr_checkpointer_destroy(c);
    free_model(&m);
}

/* Without a checkpoint: nothing happens, and that is no error. */
static void nothing_there(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    const uint64_t before = digest(&m);
    ftr_checkpoint *found = (ftr_checkpoint *)&m;
    FTR_TEST_OK(f->context, ftr_checkpoint_find(f->context, f->folder, &found));
    assert_null(found);
    ftr_checkpoint_point point = at_step(4);
    FTR_TEST_OK(f->context, ftr_checkpoint_load(m.plan, f->folder, &point));
    assert_int_equal(point.step, -1);
    assert_true(digest(&m) == before);
    assert_int_equal(ftr_checkpoint_open(f->context, f->folder, &found), FTR_ERROR_IO);
    free_model(&m);
}

/* -------------------------------------------------------------------------------------------------------- damage -- */

static const char *const files[] = {"checkpoint.json", "optimizer.safetensors", "weights.safetensors"};

/* Whether the open fails with a sentence that begins with the file's path. */
static void assert_refused(const fixture *f, const char *folder, const char *file) {
    ftr_checkpoint *checkpoint;
    const ftr_status status = ftr_checkpoint_open(f->context, folder, &checkpoint);
    if (status != FTR_ERROR_FORMAT && status != FTR_ERROR_IO) fail_msg("%s: %s", file, ftr_status_name(status));
    if (strncmp(ftr_error_message(f->context), file, strlen(file)) != 0)
        fail_msg("found '%s', expected a sentence about %s", ftr_error_message(f->context), file);
}

static void every_byte(void **state) {
    fixture *f = *state;
    const char *effort = getenv("FTR_FAULT");
    const int bits = effort && strcmp(effort, "long") == 0 ? 8 : 1;
    char folder[FTR_TEST_PATH], path[FTR_TEST_PATH];
    make_checkpoint(f, 2);
    ftr_test_path(folder, f->folder, "step-000000000002");
    int64_t flips = 0;
    for (size_t i = 0; i < FTR_TEST_LENGTH(files); i++) {
        size_t size;
        unsigned char *bytes = ftr_test_read_file(ftr_test_path(path, folder, files[i]), &size);
        for (size_t b = 0; b < size * (size_t)bits; b++) {
            const size_t at = b / (size_t)bits;
            const unsigned char bit = (unsigned char)(1u << (bits == 8 ? b % 8 : at % 8));
            bytes[at] ^= bit;
            ftr_test_write_file(path, bytes, size);
            assert_refused(f, folder, path);
            bytes[at] ^= bit;
            flips++;
        }
        /* cut, longer, empty, missing, not a file */
        for (int k = 0; k < 4; k++) {
            const size_t cut = k == 0 ? size - 1 : k == 1 ? size + 1 : k == 2 ? 0 : size / 2;
            bytes[size] = 0;
            ftr_test_write_file(path, bytes, cut);
            assert_refused(f, folder, path);
        }
        unlink(path);
        assert_refused(f, folder, path);
        mkdir(path, 0777);
        assert_refused(f, folder, path);
        rmdir(path);
        ftr_test_write_file(path, bytes, size);
        ftr_checkpoint *checkpoint;
        FTR_TEST_OK(f->context, ftr_checkpoint_open(f->context, folder, &checkpoint));
        ftr_checkpoint_close(checkpoint);
        free(bytes);
    }
    print_message("%lld flipped bits found\n", (long long)flips);
}

/* Adds checkpoints of further steps; damages one. */
static void spoil(const fixture *f, const char *name) {
    char path[FTR_TEST_PATH];
    size_t size;
    unsigned char *bytes = ftr_test_read_file(ftr_test_path(path, f->folder, name), &size);
    bytes[size / 2] ^= 1;
    ftr_test_write_file(path, bytes, size);
    free(bytes);
}

static void newest_intact(void **state) {
    fixture *f = *state;
    for (int64_t step = 1; step <= 3; step++) make_checkpoint(f, step);
    model m = make_model(f->context, ftr_adamw(0.01), 6), expected = make_model(f->context, ftr_adamw(0.01), 6);
    ftr_checkpoint_point point;
    spoil(f, "step-000000000003/weights.safetensors");
    spoil(f, "step-000000000002/checkpoint.json");
    FTR_TEST_OK(f->context, ftr_checkpoint_load(m.plan, f->folder, &point));
    assert_int_equal(point.step, 1);
    train_step(&expected, 1);
    assert_true(digest(&m) == digest(&expected));
    char warning[3 * FTR_TEST_PATH];
    snprintf(warning, sizeof warning,
             "a checkpoint is passed over: %s/step-000000000003/weights.safetensors: the file is "
             "damaged: found ",
             f->folder);
    assert_true(strncmp(f->log.text, warning, strlen(warning)) == 0);
    snprintf(warning, sizeof warning,
             "a checkpoint is passed over: %s/step-000000000002/checkpoint.json: the file is "
             "damaged: it does not end with its digest, ",
             f->folder);
    assert_non_null(strstr(f->log.text, warning));
    assert_int_equal(f->log.messages, 2);
    assert_listing(f, "step-000000000003! step-000000000002! step-000000000001 ");

    const uint64_t before = digest(&m);
    spoil(f, "step-000000000001/optimizer.safetensors");
    assert_int_equal(ftr_checkpoint_load(m.plan, f->folder, &point), FTR_ERROR_FORMAT);
    assert_int_equal(point.step, -1);
    assert_true(digest(&m) == before);
    snprintf(warning, sizeof warning,
             "%s: no checkpoint is intact (step-000000000003, step-000000000002, step-000000000001): "
             "%s/step-000000000003/weights.safetensors: the file is damaged",
             f->folder, f->folder);
    if (strncmp(ftr_error_message(f->context), warning, strlen(warning)) != 0)
        fail_msg("found '%s', expected '%s'", ftr_error_message(f->context), warning);
    free_model(&m);
    free_model(&expected);
}

/* ------------------------------------------------------------------------------------------------------ versions -- */

/* CRC-32C a bit at a time. */
static uint32_t crc32c(const char *data, size_t size) {
    uint32_t state = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        state ^= (unsigned char)data[i];
        for (int bit = 0; bit < 8; bit++) state = state & 1 ? state >> 1 ^ 0x82f63b78u : state >> 1;
    }
    return ~state;
}

/* Replaces a text in checkpoint.json and makes its digest right. */
static void rewrite(const fixture *f, const char *folder, const char *from, const char *to) {
    char path[FTR_TEST_PATH];
    size_t size;
    ftr_test_path(path, f->folder, folder);
    strcat(path, "/checkpoint.json");
    char *bytes = (char *)ftr_test_read_file(path, &size), *text = malloc(size + strlen(to) + 64);
    bytes[size] = 0;
    char *found = strstr(bytes, from);
    assert_non_null(found);
    const size_t body = size - 21;
    assert_true((size_t)(found - bytes) + strlen(from) <= body);
    bytes[body] = 0;
    *found = 0;
    const int used = sprintf(text, "%s%s%s", bytes, to, found + strlen(from));
    sprintf(text + used, "\"crc32c\":\"%08x\"}\n", crc32c(text, (size_t)used));
    ftr_test_write_file(path, text, strlen(text));
    free(bytes);
    free(text);
}

static void versions(void **state) {
    fixture *f = *state;
    char path[FTR_TEST_PATH], expected[2 * FTR_TEST_PATH];
    make_checkpoint(f, 1);
    make_checkpoint(f, 2);
    ftr_test_path(path, f->folder, "step-000000000002");
    rewrite(f, "step-000000000002", "\"version\":1", "\"version\":2");
    ftr_checkpoint *checkpoint;
    assert_int_equal(ftr_checkpoint_open(f->context, path, &checkpoint), FTR_ERROR_UNSUPPORTED);
    snprintf(expected, sizeof expected,
             "%s/checkpoint.json: version 2: this fasttrain reads up to version 1; the checkpoint needs a newer one",
             path);
    assert_string_equal(ftr_error_message(f->context), expected);
    /* not passed over: it is not damaged, and what is older would be another state */
    assert_int_equal(ftr_checkpoint_find(f->context, f->folder, &checkpoint), FTR_ERROR_UNSUPPORTED);
    assert_string_equal(ftr_error_message(f->context), expected);
    rewrite(f, "step-000000000002", "\"version\":2", "\"version\":0");
    assert_int_equal(ftr_checkpoint_open(f->context, path, &checkpoint), FTR_ERROR_FORMAT);
    snprintf(expected, sizeof expected,
             "%s/checkpoint.json: version: found the number 0, expected an integer from 1 to 9223372036854775807",
             path);
    assert_string_equal(ftr_error_message(f->context), expected);
}

/* Contents that are JSON but say something else than they should: each is an error with the name of the value. */
static void malformed(void **state) {
    fixture *f = *state;
    static const struct {
        const char *from, *to, *message;
    } cases[] = {
        {"\"format\":\"fasttrain checkpoint\"", "\"format\":\"x\"",
         "format: found 'x', expected 'fasttrain checkpoint'"},
        {"\"step\":1", "\"step\":-1", "step: found the number -1, expected an integer from 0 to 9223372036854775807"},
        {"\"seed\":\"3\"", "\"seed\":\"3x\"", "seed: found '3x', expected digits of an integer"},
        {"\"seed\":\"3\"", "\"seed\":\"18446744073709551616\"",
         "seed: found '18446744073709551616', expected digits of an integer"},
        {"\"seed\":\"3\"", "\"seed\":3", "seed: found the number 3, expected a string"},
        {"\"applied_steps\":1", "\"applied\":1",
         "applied_steps: found nothing, expected an integer from 0 to 9223372036854775807"},
        {"\"applied_steps\":1", "\"applied_steps\":1,\"metric\":\"nothing\"",
         "metric: found 'nothing', expected a number"},
        {"\"metadata\":{}", "\"metadata\":{\"a\":1}", "a: found the number 1, expected a string"},
        {"\"sections\":{", "\"sections\":{\"x\":[],", "x: found an array, expected an object"},
        {"\"weights.safetensors\":{", "\"../weights.safetensors\":{",
         "../weights.safetensors: found an object, expected an object, under the name of a safetensors file"},
        {"\"weights.safetensors\":{\"bytes\":", "\"weights.safetensors\":{\"bytes\":-",
         "weights.safetensors.bytes: found the number "},
        {"\"format\":", "\"format\":\"fasttrain checkpoint\",\"format\":", "byte "},
    };
    char path[FTR_TEST_PATH], expected[3 * FTR_TEST_PATH];
    ftr_test_path(path, f->folder, "step-000000000001");
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_test_remove(f->folder);
        make_checkpoint(f, 1);
        rewrite(f, "step-000000000001", cases[i].from, cases[i].to);
        ftr_checkpoint *checkpoint;
        const ftr_status status = ftr_checkpoint_open(f->context, path, &checkpoint);
        snprintf(expected, sizeof expected, "%s/checkpoint.json: %s", path, cases[i].message);
        if (strncmp(ftr_error_message(f->context), expected, strlen(expected)) != 0)
            fail_msg("found '%s', expected '%s'", ftr_error_message(f->context), expected);
        assert_int_equal(status, FTR_ERROR_FORMAT);
    }
    /* a file's name is part of what is read */
    ftr_test_remove(f->folder);
    make_checkpoint(f, 1);
    rewrite(f, "step-000000000001", "\"sections\":{\"plan\":{", "\"sections\":{\"other\":{");
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    ftr_checkpoint_point point;
    assert_int_equal(ftr_checkpoint_load(m.plan, f->folder, &point), FTR_ERROR_STATE);
    snprintf(expected, sizeof expected, "%s/checkpoint.json: section 'plan' is missing", path);
    assert_string_equal(ftr_error_message(f->context), expected);
    free_model(&m);
}

#define KEPT FTR_TEST_DATA "/io/data/checkpoint_v1"
#define KEPT_DIGEST UINT64_C(0xad00f08822ae4bb5)

/* The checkpoint that an earlier fasttrain wrote, of version 1, loads for ever. */
static void kept(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    ftr_checkpoint *checkpoint;
    FTR_TEST_OK(f->context, ftr_checkpoint_open(f->context, KEPT "/step-000000000005", &checkpoint));
    const ftr_checkpoint_info info = ftr_checkpoint_info_of(checkpoint);
    assert_int_equal(info.version, 1);
    assert_string_equal(info.fasttrain, "0.1.0");
    assert_string_equal(ftr_checkpoint_metadata(checkpoint, "note"), "kept");
    FTR_TEST_OK(f->context, ftr_checkpoint_restore(checkpoint, m.plan));
    ftr_checkpoint_close(checkpoint);
    assert_int_equal(ftr_plan_steps(m.plan), 5);
    if (digest(&m) != KEPT_DIGEST)
        fail_msg("the digest is %llx, expected %llx", (unsigned long long)digest(&m), (unsigned long long)KEPT_DIGEST);
    free_model(&m);
}

static int write_kept(const char *folder) {
    const char *const metadata[] = {"note", "kept"};
    ftr_context *context = ftr_test_context_with(NULL, 3, 2, NULL);
    model m = make_model(context, ftr_adamw(0.01), 6);
    for (int64_t s = 1; s <= 5; s++) train_step(&m, s);
    ftr_checkpointer *c = NULL;
    const ftr_checkpoint_desc desc = {.directory = folder, .metadata = metadata, .metadata_count = 1};
    const ftr_checkpoint_point point = at_step(5);
    ftr_status status = ftr_checkpointer_create(m.plan, &desc, &c);
    if (status == FTR_OK) status = ftr_checkpoint_save(c, &point);
    if (status == FTR_OK) status = ftr_checkpointer_wait(c);
    printf("%s %s, digest %llx\n", ftr_status_name(status), ftr_error_message(context), (unsigned long long)digest(&m));
    ftr_checkpointer_destroy(c);
    free_model(&m);
    ftr_context_destroy(context);
    return status == FTR_OK ? 0 : 1;
}

/* ------------------------------------------------------------------------------------------------------ refusals -- */

static void assert_load_refused(const fixture *f, const model *m, ftr_status status, const char *message) {
    char expected[2 * FTR_TEST_PATH];
    ftr_checkpoint_point point;
    const uint64_t before = digest(m);
    assert_int_equal(ftr_checkpoint_load(m->plan, f->folder, &point), status);
    snprintf(expected, sizeof expected, "%s/step-000000000002: the checkpoint is of another %s", f->folder, message);
    assert_string_equal(ftr_error_message(f->context), expected);
    assert_true(digest(m) == before);
    assert_int_equal(ftr_plan_steps(m->plan), 0);
}

static void refused(void **state) {
    fixture *f = *state;
    make_checkpoint(f, 2);
    model wide = make_model(f->context, ftr_adamw(0.01), 7);
    assert_load_refused(f, &wide, FTR_ERROR_SHAPE,
                        "model or optimizer: weights: 'conv.weight' is F32 [6, 2, 3, 3], expected f32 [7, 2, 3, 3]");
    free_model(&wide);
    ftr_optimizer amsgrad = ftr_adamw(0.01);
    amsgrad.amsgrad = true;
    model ams = make_model(f->context, amsgrad, 6);
    assert_load_refused(f, &ams, FTR_ERROR_STATE, "run: plan.updates.optimizer.amsgrad is 0 in it, and 1 here");
    free_model(&ams);
    model sgd = make_model(f->context, ftr_sgd(0.01), 6);
    assert_load_refused(f, &sgd, FTR_ERROR_STATE,
                        "run: plan.updates.optimizer.op is 'adamw_update' in it, and 'sgd_update' here");
    free_model(&sgd);
    model lamb = make_model(f->context, ftr_lamb(0.01), 6);
    assert_load_refused(f, &lamb, FTR_ERROR_STATE, "run: its optimizer has no 'optimizer.clip_scale', a clip_scale");
    free_model(&lamb);
    ftr_optimizer optimizer = ftr_adamw(0.01);
    optimizer.state_dtype = FTR_BF16;
    model half = make_model(f->context, optimizer, 6);
    assert_load_refused(
        f, &half, FTR_ERROR_DTYPE,
        "model or optimizer: optimizer: 'conv.weight.exp_avg' is F32 [6, 2, 3, 3], expected bf16 [6, 2, 3, 3]");
    free_model(&half);

    /* other names: a missing one, and one too many */
    for (int norm = 0; norm < 2; norm++) {
        ftr_graph *graph = ftr_graph_create(f->context);
        model m = {.context = f->context, .graph = graph};
        m.x = ftr_input(graph, "x", FTR_F32, FTR_SHAPE(BATCH, 5, 4, 2));
        m.label = ftr_input(graph, "label", FTR_I32, FTR_SHAPE(BATCH));
        ftr_tensor h = ftr_conv2d(m.x, "conv", 6, 3, NULL);
        if (norm) h = ftr_batch_norm(h, "bn", NULL);
        h = ftr_linear(ftr_flatten(h, 1), norm ? "head" : "fc", CLASSES, NULL);
        m.loss = ftr_cross_entropy(h, m.label, NULL);
        const ftr_optimizer adamw = ftr_adamw(0.01);
        const ftr_compile_desc desc = {.loss = m.loss, .optimizer = &adamw};
        FTR_TEST_OK(f->context, ftr_compile(graph, &desc, &m.plan));
        assert_load_refused(f, &m, FTR_ERROR_NAME,
                            norm ? "model or optimizer: weights: 'head.weight' is missing, expected f32 [3, 36]"
                                 : "model or optimizer: weights: 'bn.bias' is in it, and not here");
        free_model(&m);
    }
}

static void bad_arguments(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    ftr_checkpointer *c = NULL;
    ftr_checkpoint *checkpoint = NULL;
    ftr_checkpoint_desc desc = {.directory = f->folder};
    assert_int_equal(ftr_checkpointer_create(NULL, &desc, &c), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpointer_create(m.plan, NULL, &c), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpointer_create(m.plan, &desc, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_open(f->context, NULL, &checkpoint), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_find(f->context, NULL, &checkpoint), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_list(f->context, f->folder, NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_restore(NULL, m.plan), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_restore(NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_load(NULL, f->folder, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpoint_save(NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_checkpointer_wait(NULL), FTR_ERROR_INVALID_ARGUMENT);
    assert_false(ftr_checkpoint_due(NULL, 1));
    assert_int_equal(ftr_checkpointer_stats(NULL).saved, 0);
    assert_int_equal(ftr_checkpoint_info_of(NULL).point.step, 0);
    assert_null(ftr_checkpoint_metadata(NULL, "x"));
    assert_null(ftr_checkpoint_tensors(NULL, "x"));
    ftr_checkpoint_close(NULL);
    ftr_checkpointer_destroy(NULL);
    const char *twice[] = {"a", "1", "a", "2"}, *no_text[] = {"a", "\xff"};
    desc.metadata = twice;
    desc.metadata_count = 2;
    assert_int_equal(ftr_checkpointer_create(m.plan, &desc, &c), FTR_ERROR_NAME);
    assert_string_equal(ftr_error_message(f->context), "checkpoint: metadata 'a': found twice, expected once");
    desc.metadata = no_text;
    desc.metadata_count = 1;
    assert_int_equal(ftr_checkpointer_create(m.plan, &desc, &c), FTR_ERROR_NAME);
    assert_string_equal(ftr_error_message(f->context), "checkpoint: metadata pair 0: found NULL or no UTF-8");
    desc.metadata = NULL;
    assert_int_equal(ftr_checkpointer_create(m.plan, &desc, &c), FTR_ERROR_INVALID_ARGUMENT);
    desc.metadata_count = 0;
    ftr_plan *eval = NULL;
    const ftr_compile_desc compile = {.loss = m.loss};
    FTR_TEST_OK(f->context, ftr_compile(m.graph, &compile, &eval));
    assert_int_equal(ftr_checkpointer_create(eval, &desc, &c), FTR_ERROR_STATE);
    assert_string_equal(ftr_error_message(f->context),
                        "checkpoint: the plan has no optimizer, expected one that trains");
    ftr_plan_destroy(eval);
    c = open_in(f, &m, desc);
    const ftr_checkpoint_point bad = {.step = -1};
    assert_int_equal(ftr_checkpoint_save(c, &bad), FTR_ERROR_INVALID_ARGUMENT);
    assert_string_equal(ftr_error_message(f->context),
                        "ftr_checkpoint_save: step is -1, epoch 0, position 0, expected 0 or more");
    assert_int_equal(ftr_checkpoint_save(c, NULL), FTR_ERROR_INVALID_ARGUMENT);
    ftr_checkpointer_destroy(c);
    free_model(&m);
}

/* Metadata that change from save to save, and grow. */
static void growing_metadata(void **state) {
    fixture *f = *state;
    model m = make_model(f->context, ftr_adamw(0.01), 6);
    char *text = calloc(1, 100001);
    const char *pairs[] = {"text", text};
    ftr_checkpointer *c = open_in(f, &m, (ftr_checkpoint_desc){.metadata = pairs, .metadata_count = 1});
    for (int64_t step = 1; step <= 6; step++) {
        memset(text, 'a' + (int)step, (size_t)pow(10.0, (double)(step < 6 ? step : 2)));
        if (step == 6) text[100] = 0;
        save(f, c, step);
        FTR_TEST_OK(f->context, ftr_checkpointer_wait(c));
        ftr_checkpoint *found;
        FTR_TEST_OK(f->context, ftr_checkpoint_find(f->context, f->folder, &found));
        assert_string_equal(ftr_checkpoint_metadata(found, "text"), text);
        ftr_checkpoint_close(found);
    }
    ftr_checkpointer_destroy(c);
    free(text);
    free_model(&m);
}

int main(int argc, char **argv) {
    if (argc == 3 && strcmp(argv[1], "--write-fixture") == 0) return write_kept(argv[2]);
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(own_loop),      TEST(layout),     TEST(names),         TEST(retention),        TEST(directory),
        TEST(nothing_there), TEST(every_byte), TEST(newest_intact), TEST(versions),         TEST(malformed),
        TEST(kept),          TEST(refused),    TEST(bad_arguments), TEST(growing_metadata),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
