/* ViT and GPT-2: names, sizes, first values, options, mistakes. That they compute what PyTorch's do is for test_gpt.c,
 * test_models.c and tests/parity. */
#include "ftr_test.h"

#include <unistd.h>

static ftr_tensor image(ftr_graph *graph, int64_t height, int64_t width) {
    return ftr_input(graph, "image", FTR_F32, FTR_SHAPE(2, height, width, 3));
}

static ftr_tensor tokens(ftr_graph *graph, int64_t n, int64_t t) {
    return ftr_input(graph, "tokens", FTR_I32, FTR_SHAPE(n, t));
}

static int64_t parameters(const ftr_graph *graph) {
    int64_t count = 0;
    for (int32_t i = 0; i < ftr_variable_count(graph); i++) {
        ftr_shape shape = ftr_shape_of(ftr_variable_at((ftr_graph *)(uintptr_t)graph, i));
        count += ftr_shape_count(&shape);
    }
    return count;
}

static void assert_shape(ftr_tensor tensor, ftr_shape expected) {
    ftr_shape shape = ftr_shape_of(tensor);
    if (!ftr_shape_equal(&shape, &expected)) fail_msg("'%s' has another shape than expected", ftr_name_of(tensor));
}

/* ----------------------------------------------------------------------------------------------- sizes and names -- */

/* Counts are torchvision's for ViT-B/16 and Hugging Face's for GPT-2; those of Ti and S are in arXiv:2012.12877. */
static void sizes_have_their_parameters(void **state) {
    ftr_test_fixture *f = *state;
    static const int64_t counts[] = {5717416, 22050664, 86567656};
    for (int size = FTR_VIT_TINY; size <= FTR_VIT_BASE; size++) {
        ftr_graph *graph = ftr_graph_create(f->context);
        ftr_vit_desc desc = ftr_vit_defaults((ftr_vit_size)size);
        assert_shape(ftr_vit(image(graph, 224, 224), &desc), FTR_SHAPE(2, 1000));
        FTR_TEST_GRAPH_OK(graph);
        assert_int_equal(parameters(graph), counts[size]);
        ftr_graph_destroy(graph);
    }
    assert_shape(ftr_gpt(tokens(f->graph, 2, 7), NULL), FTR_SHAPE(2, 7, 50257));
    FTR_TEST_GRAPH_OK(f->graph);
    assert_int_equal(parameters(f->graph), 124439808);
}

static void null_is_the_base_size(void **state) {
    ftr_test_fixture *f = *state;
    assert_shape(ftr_vit(image(f->graph, 224, 224), NULL), FTR_SHAPE(2, 1000));
    FTR_TEST_GRAPH_OK(f->graph);
    assert_int_equal(parameters(f->graph), 86567656);
}

static ftr_vit_desc small_vit(void) {
    ftr_vit_desc desc = ftr_vit_defaults(FTR_VIT_TINY);
    desc.patch = 8;
    desc.width = 12;
    desc.layers = 2;
    desc.heads = 3;
    desc.classes = 5;
    return desc;
}

static ftr_gpt_desc small_gpt(void) {
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS);
    desc.vocabulary = 11;
    desc.context = 6;
    desc.width = 12;
    desc.layers = 2;
    desc.heads = 3;
    return desc;
}

static void sizes_follow_the_options(void **state) {
    ftr_test_fixture *f = *state;
    ftr_vit_desc vit = small_vit();
    vit.mlp_width = 20;
    vit.features_only = true;
    ftr_scope_push(f->graph, "a");
    assert_shape(ftr_vit(image(f->graph, 16, 32), &vit), FTR_SHAPE(2, 12));
    ftr_scope_pop(f->graph);
    assert_shape(ftr_variable_find(f->graph, "a.encoder.pos_embedding"), FTR_SHAPE(1, 9, 12));
    assert_shape(ftr_variable_find(f->graph, "a.conv_proj.weight"), FTR_SHAPE(12, 8, 8, 3));
    assert_shape(ftr_variable_find(f->graph, "a.encoder.layers.encoder_layer_1.mlp.0.weight"), FTR_SHAPE(20, 12));
    assert_false(ftr_is_valid(ftr_variable_find(f->graph, "a.heads.head.weight")));

    ftr_gpt_desc gpt = small_gpt();
    gpt.mlp_width = 20;
    gpt.bare_names = gpt.untied = true;
    ftr_scope_push(f->graph, "b");
    assert_shape(ftr_gpt(tokens(f->graph, 3, 4), &gpt), FTR_SHAPE(3, 4, 11));
    ftr_scope_pop(f->graph);
    assert_shape(ftr_variable_find(f->graph, "b.wte.weight"), FTR_SHAPE(11, 12));
    assert_shape(ftr_variable_find(f->graph, "b.wpe.weight"), FTR_SHAPE(6, 12));
    assert_shape(ftr_variable_find(f->graph, "b.h.1.mlp.c_fc.weight"), FTR_SHAPE(12, 20));
    assert_shape(ftr_variable_find(f->graph, "b.lm_head.weight"), FTR_SHAPE(11, 12));

    gpt.features_only = true;
    ftr_scope_push(f->graph, "c");
    ftr_tensor longer = ftr_input(f->graph, "longer", FTR_I64, FTR_SHAPE(1, 6));
    assert_shape(ftr_gpt(longer, &gpt), FTR_SHAPE(1, 6, 12));
    ftr_scope_pop(f->graph);
    assert_false(ftr_is_valid(ftr_variable_find(f->graph, "c.lm_head.weight")));
    FTR_TEST_GRAPH_OK(f->graph);
}

/* -------------------------------------------------------------------------------------------------- first values -- */

/* How many, smallest and largest value, mean and standard deviation. */
typedef struct moments {
    int64_t count;
    double min, max, mean, deviation;
} moments;

static moments moments_of(const ftr_test_fixture *f, const char *name) {
    ftr_tensor variable = ftr_variable_find(f->graph, name);
    if (!ftr_is_valid(variable)) fail_msg("there is no %s", name);
    ftr_shape shape = ftr_shape_of(variable);
    int64_t count = ftr_shape_count(&shape);
    float *data = malloc((size_t)count * sizeof *data);
    assert_non_null(data);
    FTR_TEST_OK(f->context, ftr_variable_read(variable, data, (size_t)count * sizeof *data));
    moments m = {count, (double)data[0], (double)data[0], 0, 0};
    double squares = 0;
    for (int64_t i = 0; i < count; i++) {
        double value = (double)data[i];
        m.min = fmin(m.min, value);
        m.max = fmax(m.max, value);
        m.mean += value / (double)count;
        squares += value * value / (double)count;
    }
    m.deviation = sqrt(squares - m.mean * m.mean);
    free(data);
    return m;
}

static void assert_constant(const ftr_test_fixture *f, const char *name, double value) {
    moments m = moments_of(f, name);
    if (m.min != value || m.max != value) fail_msg("%s is from %g to %g, expected %g", name, m.min, m.max, value);
}

/* Mean and deviation of n normal numbers scatter by 1 / sqrt(n) and 1 / sqrt(2 n) of the deviation; 5 times that is
 * allowed. */
static void assert_normal(const ftr_test_fixture *f, const char *name, double deviation) {
    moments m = moments_of(f, name);
    double scatter = 5 / sqrt((double)m.count);
    if (fabs(m.deviation / deviation - 1) > scatter / sqrt(2.0) || fabs(m.mean) > scatter * deviation ||
        m.max < 1.9 * deviation)
        fail_msg("%s: mean %g, deviation %g, at most %g, expected a normal one with 0 and %g", name, m.mean,
                 m.deviation, m.max, deviation);
}

static void assert_uniform(const ftr_test_fixture *f, const char *name, double bound) {
    moments m = moments_of(f, name);
    if (m.min < -bound || m.max > bound || m.min > -0.98 * bound || m.max < 0.98 * bound ||
        fabs(m.deviation * sqrt(3.0) / bound - 1) > 0.05)
        fail_msg("%s: %g to %g with deviation %g, expected a uniform one of %g", name, m.min, m.max, m.deviation,
                 bound);
}

/* torchvision's VisionTransformer.__init__(), its MLPBlock and nn.MultiheadAttention's _reset_parameters(). */
static void vit_starts_as_torchvisions(void **state) {
    ftr_test_fixture *f = *state;
    ftr_vit_desc desc = ftr_vit_defaults(FTR_VIT_TINY);
    desc.layers = 1;
    ftr_vit(image(f->graph, 112, 112), &desc);
    FTR_TEST_GRAPH_OK(f->graph);
    assert_normal(f, "conv_proj.weight", sqrt(1.0 / (3 * 16 * 16)));
    assert_constant(f, "conv_proj.bias", 0);
    assert_constant(f, "class_token", 0);
    assert_normal(f, "encoder.pos_embedding", 0.02);
#define BLOCK "encoder.layers.encoder_layer_0."
    assert_constant(f, BLOCK "ln_1.weight", 1);
    assert_constant(f, BLOCK "ln_1.bias", 0);
    assert_uniform(f, BLOCK "self_attention.in_proj_weight", sqrt(6.0 / (192 + 3 * 192)));
    assert_constant(f, BLOCK "self_attention.in_proj_bias", 0);
    assert_uniform(f, BLOCK "self_attention.out_proj.weight", sqrt(1.0 / 192));
    assert_constant(f, BLOCK "self_attention.out_proj.bias", 0);
    assert_uniform(f, BLOCK "mlp.0.weight", sqrt(6.0 / (192 + 768)));
    assert_normal(f, BLOCK "mlp.0.bias", 1e-6);
    assert_uniform(f, BLOCK "mlp.3.weight", sqrt(6.0 / (768 + 192)));
    assert_normal(f, BLOCK "mlp.3.bias", 1e-6);
    assert_constant(f, "heads.head.weight", 0);
    assert_constant(f, "heads.head.bias", 0);
}

/* Hugging Face's GPT2PreTrainedModel._init_weights(). */
static void gpt_starts_as_hugging_faces(void **state) {
    ftr_test_fixture *f = *state;
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS);
    desc.untied = true;
    ftr_gpt(tokens(f->graph, 1, 5), &desc);
    FTR_TEST_GRAPH_OK(f->graph);
    assert_normal(f, "transformer.wte.weight", 0.02);
    assert_normal(f, "transformer.wpe.weight", 0.02);
    assert_normal(f, "lm_head.weight", 0.02);
    assert_normal(f, "transformer.h.3.attn.c_attn.weight", 0.02);
    assert_normal(f, "transformer.h.3.mlp.c_fc.weight", 0.02);
    assert_normal(f, "transformer.h.3.attn.c_proj.weight", 0.02 / sqrt(2.0 * 4));
    assert_normal(f, "transformer.h.3.mlp.c_proj.weight", 0.02 / sqrt(2.0 * 4));
    assert_constant(f, "transformer.h.3.attn.c_attn.bias", 0);
    assert_constant(f, "transformer.h.3.mlp.c_proj.bias", 0);
    assert_constant(f, "transformer.ln_f.weight", 1);
    assert_constant(f, "transformer.ln_f.bias", 0);
}

/* ----------------------------------------------------------------------------------------------------- behaviour -- */

enum { N = 2, T = 6, VOCABULARY = 11 };

static ftr_plan *compile_gpt(const ftr_test_fixture *f, const ftr_gpt_desc *desc, ftr_mode mode, ftr_tensor *in,
                             ftr_tensor *out) {
    *in = tokens(f->graph, N, T);
    *out = ftr_gpt(*in, desc);
    ftr_plan *plan = NULL;
    ftr_compile_desc compile = {.mode = mode, .outputs = out, .output_count = 1};
    FTR_TEST_OK(f->context, ftr_compile(f->graph, &compile, &plan));
    return plan;
}

static void run_gpt(const ftr_test_fixture *f, ftr_plan *plan, ftr_tensor in, ftr_tensor out, const int32_t ids[N][T],
                    float logits[N][T][VOCABULARY]) {
    FTR_TEST_OK(f->context, ftr_feed(plan, in, ids, sizeof(int32_t) * N * T));
    FTR_TEST_OK(f->context, ftr_step(plan, NULL));
    FTR_TEST_OK(f->context, ftr_read(plan, out, logits, sizeof(float) * N * T * VOCABULARY));
}

static const int32_t some_ids[N][T] = {{3, 1, 4, 1, 5, 9}, {2, 6, 5, 3, 10, 0}};

static void gpt_sees_no_later_token(void **state) {
    ftr_test_fixture *f = *state;
    ftr_tensor in, out;
    ftr_gpt_desc desc = small_gpt();
    ftr_plan *plan = compile_gpt(f, &desc, FTR_MODE_EVAL, &in, &out);
    float before[N][T][VOCABULARY], after[N][T][VOCABULARY];
    int32_t ids[N][T];
    memcpy(ids, some_ids, sizeof ids);
    run_gpt(f, plan, in, out, ids, before);
    ids[0][3] = 8;
    run_gpt(f, plan, in, out, ids, after);
    assert_memory_equal(before[0], after[0], sizeof before[0][0] * 3);
    assert_memory_equal(before[1], after[1], sizeof before[1]);
    for (int t = 3; t < T; t++) assert_memory_not_equal(before[0][t], after[0][t], sizeof before[0][t]);
    ftr_plan_destroy(plan);
}

/* Each of the dropouts alone changes what is computed while training, and nothing in evaluation. */
static void dropouts_are_on_while_training(void **state) {
    ftr_test_fixture *f = *state;
    float plain[N][T][VOCABULARY], trained[N][T][VOCABULARY], evaluated[N][T][VOCABULARY];
    for (int which = 0; which < 4; which++) {
        ftr_gpt_desc desc = small_gpt();
        double *const p[] = {&desc.embedding_dropout, &desc.attention_dropout, &desc.residual_dropout};
        if (which > 0) *p[which - 1] = 0.5;
        for (int mode = 0; mode < 2; mode++) {
            ftr_test_fixture one = {f->context, ftr_graph_create(f->context)};
            ftr_tensor in, out;
            ftr_plan *plan = compile_gpt(&one, &desc, mode == 0 ? FTR_MODE_TRAIN : FTR_MODE_EVAL, &in, &out);
            run_gpt(&one, plan, in, out, some_ids, mode == 0 ? trained : evaluated);
            ftr_plan_destroy(plan);
            ftr_graph_destroy(one.graph);
        }
        if (which == 0) memcpy(plain, trained, sizeof plain);
        assert_memory_equal(evaluated, plain, sizeof plain);
        if (which > 0) assert_memory_not_equal(trained, plain, sizeof plain);
    }
}

static void a_token_outside_the_vocabulary_fails_the_step(void **state) {
    ftr_test_fixture *f = *state;
    ftr_tensor in, out;
    ftr_gpt_desc desc = small_gpt();
    ftr_plan *plan = compile_gpt(f, &desc, FTR_MODE_EVAL, &in, &out);
    int32_t ids[N][T] = {{0, 1, 2, VOCABULARY, 4, 5}};
    FTR_TEST_OK(f->context, ftr_feed(plan, in, ids, sizeof ids));
    assert_int_equal(ftr_step(plan, NULL), FTR_ERROR_DATA);
    ftr_plan_destroy(plan);
}

/* A file with the names of GPT2LMHeadModel into a graph with those of GPT2Model. */
static void names_load_with_a_prefix(void **state) {
    ftr_test_fixture *f = *state;
    char directory[] = "/tmp/ftr_test_transformers_XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/w.safetensors", directory);
    ftr_gpt_desc desc = small_gpt();
    ftr_tensor in, out;
    float full[N][T][VOCABULARY], bare[N][T][VOCABULARY];
    ftr_plan *plan = compile_gpt(f, &desc, FTR_MODE_EVAL, &in, &out);
    run_gpt(f, plan, in, out, some_ids, full);
    FTR_TEST_OK(f->context, ftr_save_weights(f->graph, path));
    ftr_plan_destroy(plan);

    ftr_context *context = ftr_test_context_with(NULL, 2, 2, NULL); /* another seed: other first values */
    ftr_test_fixture other = {context, ftr_graph_create(context)};
    desc.bare_names = true;
    plan = compile_gpt(&other, &desc, FTR_MODE_EVAL, &in, &out);
    FTR_TEST_OK(context, ftr_load_weights(other.graph, path, &(ftr_load_desc){.file_prefix = "transformer."}, NULL));
    run_gpt(&other, plan, in, out, some_ids, bare);
    assert_memory_equal(full, bare, sizeof full);
    ftr_plan_destroy(plan);
    ftr_graph_destroy(other.graph);
    ftr_context_destroy(context);
    unlink(path);
    rmdir(directory);
}

/* ------------------------------------------------------------------------------------------------------ mistakes -- */

static ftr_tensor vit_with(ftr_graph *graph, ftr_vit_desc desc, ftr_shape shape, ftr_dtype dtype) {
    return ftr_vit(ftr_input(graph, "image", dtype, shape), &desc);
}

static ftr_tensor gpt_with(ftr_graph *graph, ftr_gpt_desc desc, ftr_shape shape, ftr_dtype dtype) {
    return ftr_gpt(ftr_input(graph, "tokens", dtype, shape), &desc);
}

#define IMAGE FTR_SHAPE(2, 16, 16, 3), FTR_F32
#define TOKENS FTR_SHAPE(2, 6), FTR_I32

/* X(name, status, sentence, "vit" or "gpt", what is changed in the description, the input) */
/* clang-format off */
#define MISTAKES(X) \
    X(vit_cookie, FTR_ERROR_INVALID_ARGUMENT, "vit: desc was not made by ftr_vit_defaults()", \
      vit, d.cookie = 0, IMAGE) \
    X(vit_size, FTR_ERROR_INVALID_ARGUMENT, "vit: desc was not made by ftr_vit_defaults()", vit, \
      d = ftr_vit_defaults((ftr_vit_size)3), IMAGE) \
    X(vit_classes, FTR_ERROR_INVALID_ARGUMENT, "vit: classes is 0, expected 1 or more", vit, d.classes = 0, IMAGE) \
    X(vit_patch, FTR_ERROR_INVALID_ARGUMENT, "vit: patch is 0, expected 1 or more", vit, d.patch = 0, IMAGE) \
    X(vit_height, FTR_ERROR_SHAPE, "vit: the image has 20 x 16 pixels, expected multiples of the patch, 8", vit, , \
      FTR_SHAPE(2, 20, 16, 3), FTR_F32) \
    X(vit_width, FTR_ERROR_SHAPE, "vit: the image has 16 x 7 pixels, expected multiples of the patch, 8", vit, , \
      FTR_SHAPE(2, 16, 7, 3), FTR_F32) \
    X(vit_empty, FTR_ERROR_SHAPE, "vit: the image has 0 x 16 pixels, expected 1 x 1 or more", vit, , \
      FTR_SHAPE(2, 0, 16, 3), FTR_F32) \
    X(vit_channels, FTR_ERROR_SHAPE, "vit: the image has 0 channels, expected 1 or more", vit, , \
      FTR_SHAPE(2, 16, 16, 0), FTR_F32) \
    X(vit_rank, FTR_ERROR_RANK, "vit: the image has rank 3, expected 4 (n, h, w, c)", \
      vit, , FTR_SHAPE(16, 16, 3), FTR_F32) \
    X(vit_dtype, FTR_ERROR_DTYPE, "vit: the image is u8, expected f32 or f64", vit, , FTR_SHAPE(2, 16, 16, 3), FTR_U8) \
    X(vit_layers, FTR_ERROR_INVALID_ARGUMENT, "vit: layers is 0, expected 1 or more", vit, d.layers = 0, IMAGE) \
    X(vit_heads, FTR_ERROR_INVALID_ARGUMENT, "vit: heads is -1, expected 1 or more", vit, d.heads = -1, IMAGE) \
    X(vit_divides, FTR_ERROR_INVALID_ARGUMENT, \
      "vit: width is 13, expected a multiple of heads, 3, from 3 to 2147483647", \
      vit, d.width = 13, IMAGE) \
    X(vit_large, FTR_ERROR_INVALID_ARGUMENT, \
      "vit: width is 3000000000, expected a multiple of heads, 3, from 3 to 2147483647", \
      vit, d.width = 3000000000, IMAGE) \
    X(vit_mlp, FTR_ERROR_INVALID_ARGUMENT, "vit: mlp_width is -4, expected 0 or more", vit, d.mlp_width = -4, IMAGE) \
    X(vit_dropout, FTR_ERROR_INVALID_ARGUMENT, "vit: dropout is 1.5, expected 0 to 1", vit, d.dropout = 1.5, IMAGE) \
    X(vit_attention, FTR_ERROR_INVALID_ARGUMENT, "vit: attention_dropout is nan, expected 0 to 1", vit, \
      d.attention_dropout = (double)NAN, IMAGE) \
    X(gpt_cookie, FTR_ERROR_INVALID_ARGUMENT, "gpt: desc was not made by ftr_gpt_defaults()", \
      gpt, d.cookie = 1, TOKENS) \
    X(gpt_size, FTR_ERROR_INVALID_ARGUMENT, "gpt: desc was not made by ftr_gpt_defaults()", gpt, \
      d = ftr_gpt_defaults((ftr_gpt_size)-1), TOKENS) \
    X(gpt_vocabulary, FTR_ERROR_INVALID_ARGUMENT, "gpt: vocabulary is 0, expected 1 or more", \
      gpt, d.vocabulary = 0, TOKENS) \
    X(gpt_context, FTR_ERROR_INVALID_ARGUMENT, "gpt: context is 0, expected 1 or more", gpt, d.context = 0, TOKENS) \
    X(gpt_layers, FTR_ERROR_INVALID_ARGUMENT, "gpt: layers is 0, expected 1 or more", gpt, d.layers = 0, TOKENS) \
    X(gpt_heads, FTR_ERROR_INVALID_ARGUMENT, "gpt: heads is 0, expected 1 or more", gpt, d.heads = 0, TOKENS) \
    X(gpt_width, FTR_ERROR_INVALID_ARGUMENT, "gpt: width is 0, expected a multiple of heads, 3, from 3 to 2147483647", \
      gpt, d.width = 0, TOKENS) \
    X(gpt_embedding, FTR_ERROR_INVALID_ARGUMENT, "gpt: embedding_dropout is -0.1, expected 0 to 1", gpt, \
      d.embedding_dropout = -0.1, TOKENS) \
    X(gpt_attention, FTR_ERROR_INVALID_ARGUMENT, "gpt: attention_dropout is 2, expected 0 to 1", gpt, \
      d.attention_dropout = 2, TOKENS) \
    X(gpt_residual, FTR_ERROR_INVALID_ARGUMENT, "gpt: residual_dropout is 2, expected 0 to 1", gpt, \
      d.residual_dropout = 2, TOKENS) \
    X(gpt_long, FTR_ERROR_SHAPE, "gpt: sequences of 7 tokens, expected 1 to the context, 6", gpt, , \
      FTR_SHAPE(2, 7), FTR_I32) \
    X(gpt_short, FTR_ERROR_SHAPE, "gpt: sequences of 0 tokens, expected 1 to the context, 6", gpt, , \
      FTR_SHAPE(2, 0), FTR_I32) \
    X(gpt_none, FTR_ERROR_SHAPE, "gpt: no sequences, expected 1 or more", gpt, , FTR_SHAPE(0, 6), FTR_I32) \
    X(gpt_rank, FTR_ERROR_RANK, "gpt: tokens have rank 1, expected 2 (n, t)", gpt, , FTR_SHAPE(6), FTR_I32) \
    X(gpt_dtype, FTR_ERROR_DTYPE, "gpt: tokens are f32, expected i32 or i64", gpt, , FTR_SHAPE(2, 6), FTR_F32)
/* clang-format on */

#define MISTAKE_BUILDER(name, code, sentence, model, change, ...)                                                      \
    static ftr_tensor mistake_##name(ftr_graph *graph) {                                                               \
        ftr_##model##_desc d = small_##model();                                                                        \
        change;                                                                                                        \
        return model##_with(graph, d, __VA_ARGS__);                                                                    \
    }
MISTAKES(MISTAKE_BUILDER)

#define MISTAKE_ROW(name, code, sentence, ...) {#name, mistake_##name, code, sentence},

static void mistakes_have_a_sentence(void **state) {
    ftr_test_fixture *f = *state;
    static const struct {
        const char *name;
        ftr_tensor (*build)(ftr_graph *graph);
        ftr_status status;
        const char *sentence;
    } cases[] = {MISTAKES(MISTAKE_ROW)};
    for (size_t i = 0; i < FTR_TEST_LENGTH(cases); i++) {
        ftr_graph *graph = ftr_graph_create(f->context);
        ftr_tensor result = cases[i].build(graph);
        if (ftr_is_valid(result) || ftr_graph_status(graph) != cases[i].status ||
            strcmp(ftr_graph_error(graph), cases[i].sentence) != 0)
            fail_msg("%s: %s '%s'", cases[i].name, ftr_status_name(ftr_graph_status(graph)), ftr_graph_error(graph));
        assert_int_equal(ftr_variable_count(graph), 0);
        ftr_graph_destroy(graph);
    }
}

static void null_inputs_are_mistakes(void **state) {
    ftr_test_fixture *f = *state;
    const ftr_tensor nowhere = {NULL, 0}, nothing = {f->graph, 0};
    assert_false(ftr_is_valid(ftr_vit(nowhere, NULL)));
    assert_false(ftr_is_valid(ftr_gpt(nowhere, NULL)));
    assert_int_equal(ftr_graph_status(f->graph), FTR_OK);
    assert_false(ftr_is_valid(ftr_gpt(nothing, NULL)));
    assert_string_equal(ftr_graph_error(f->graph), "gpt: tokens is a null tensor");
    assert_false(ftr_is_valid(ftr_vit(nothing, NULL))); /* the first mistake stays */
    assert_string_equal(ftr_graph_error(f->graph), "gpt: tokens is a null tensor");
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, ftr_test_setup, ftr_test_teardown)
    const struct CMUnitTest tests[] = {
        TEST(sizes_have_their_parameters),    TEST(null_is_the_base_size),
        TEST(sizes_follow_the_options),       TEST(vit_starts_as_torchvisions),
        TEST(gpt_starts_as_hugging_faces),    TEST(gpt_sees_no_later_token),
        TEST(dropouts_are_on_while_training), TEST(a_token_outside_the_vocabulary_fails_the_step),
        TEST(names_load_with_a_prefix),       TEST(mistakes_have_a_sentence),
        TEST(null_inputs_are_mistakes),
    };
    return cmocka_run_group_tests_name("transformers", tests, NULL, NULL);
}
