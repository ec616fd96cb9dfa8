/* GPT-2. All between the embedding and the logits is on rows, [n * t, width]. */
#include "models/transformer.h"

#include <math.h>
#include <stdio.h>

#define FTR__COOKIE_GPT 0x47505432u

ftr_gpt_desc ftr_gpt_defaults(ftr_gpt_size size) {
    switch (size) {
    case FTR_GPT2:
        return (ftr_gpt_desc){.cookie = FTR__COOKIE_GPT,
                              .vocabulary = 50257,
                              .context = 1024,
                              .width = 768,
                              .layers = 12,
                              .heads = 12,
                              .embedding_dropout = 0.1,
                              .attention_dropout = 0.1,
                              .residual_dropout = 0.1};
    case FTR_GPT_CHARS:
        return (ftr_gpt_desc){
            .cookie = FTR__COOKIE_GPT, .vocabulary = 256, .context = 64, .width = 128, .layers = 4, .heads = 4};
    }
    return (ftr_gpt_desc){.cookie = 0};
}

/* ---- checks */

static ftr_tensor ftr__gpt_wrong(ftr_graph *graph, const char *field, int64_t value) {
    return ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "gpt", NULL, "%s is %lld, expected 1 or more", field,
                          (long long)value);
}

static bool ftr__gpt_desc_is_valid(ftr_graph *graph, const ftr_gpt_desc *d) {
    if (d->cookie != FTR__COOKIE_GPT)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, "gpt", NULL, "desc was not made by ftr_gpt_defaults()");
    else if (d->vocabulary < 1)
        (void)ftr__gpt_wrong(graph, "vocabulary", d->vocabulary);
    else if (d->context < 1)
        (void)ftr__gpt_wrong(graph, "context", d->context);
    else
        return ftr__transformer_is_valid(graph, "gpt",
                                         (ftr__transformer_size){d->width, d->mlp_width, d->layers, d->heads}) &&
               ftr__model_probability(graph, "gpt", "embedding_dropout", d->embedding_dropout) &&
               ftr__model_probability(graph, "gpt", "attention_dropout", d->attention_dropout) &&
               ftr__model_probability(graph, "gpt", "residual_dropout", d->residual_dropout);
    return false;
}

static bool ftr__gpt_tokens_are_valid(ftr_tensor tokens, const ftr_gpt_desc *d) {
    ftr_graph *graph = tokens.graph;
    const ftr_shape shape = ftr_shape_of(tokens);
    const ftr_dtype dtype = ftr_dtype_of(tokens);
    if (!ftr_is_valid(tokens))
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_TENSOR, "gpt", NULL, "tokens is a null tensor");
    else if (shape.rank != 2)
        (void)ftr_graph_fail(graph, FTR_ERROR_RANK, "gpt", NULL, "tokens have rank %d, expected 2 (n, t)",
                             (int)shape.rank);
    else if (dtype != FTR_I32 && dtype != FTR_I64)
        (void)ftr_graph_fail(graph, FTR_ERROR_DTYPE, "gpt", NULL, "tokens are %s, expected i32 or i64",
                             ftr_dtype_name(dtype));
    else if (shape.dim[0] < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "gpt", NULL, "no sequences, expected 1 or more");
    else if (shape.dim[1] < 1 || shape.dim[1] > d->context)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, "gpt", NULL,
                             "sequences of %lld tokens, expected 1 to the context, %lld", (long long)shape.dim[1],
                             (long long)d->context);
    else
        return true;
    return false;
}

/* ---- blocks */

static ftr_init ftr__gpt_normal(double deviation) { return (ftr_init){FTR_INIT_NORMAL, 0.0, deviation}; }

/* x [rows, in] weight + bias, the weight being [in, out], as Hugging Face's Conv1D. */
static ftr_tensor ftr__gpt_linear(ftr_tensor x, const char *name, int64_t out, double deviation) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_scope_push(graph, name);
    const ftr_tensor weight =
        ftr_parameter(graph, "weight", FTR_F32, FTR_SHAPE(shape.dim[1], out), ftr__gpt_normal(deviation));
    const ftr_tensor bias = ftr_parameter(graph, "bias", FTR_F32, FTR_SHAPE(out), (ftr_init){FTR_INIT_ZEROS, 0.0, 0.0});
    x = ftr_add(ftr_matmul(x, weight, false, false), bias);
    ftr_scope_pop(graph);
    return x;
}

/* What adds to the residual stream starts smaller, so that the stream's variance does not grow with the depth. */
static double ftr__gpt_residual_deviation(const ftr_gpt_desc *d) { return 0.02 / sqrt(2.0 * (double)d->layers); }

static ftr_tensor ftr__gpt_attention(ftr_tensor x, int64_t n, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    const ftr_shape shape = ftr_shape_of(x);
    ftr_attention_desc attention = ftr_attention_defaults();
    attention.causal = true;
    attention.dropout = d->attention_dropout;
    ftr_scope_push(graph, "attn");
    x = ftr__transformer_attention(ftr__gpt_linear(x, "c_attn", 3 * d->width, 0.02), n, shape.dim[0] / n, d->heads,
                                   &attention);
    x = ftr_reshape(x, shape);
    x = ftr__gpt_linear(x, "c_proj", d->width, ftr__gpt_residual_deviation(d));
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->residual_dropout);
}

static ftr_tensor ftr__gpt_mlp(ftr_tensor x, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    ftr_scope_push(graph, "mlp");
    x = ftr__gpt_linear(x, "c_fc", d->mlp_width > 0 ? d->mlp_width : 4 * d->width, 0.02);
    x = ftr__gpt_linear(ftr_gelu(x, FTR_GELU_TANH), "c_proj", d->width, ftr__gpt_residual_deviation(d));
    ftr_scope_pop(graph);
    return ftr_dropout(x, d->residual_dropout);
}

static ftr_tensor ftr__gpt_block(ftr_tensor x, int32_t index, int64_t n, const ftr_gpt_desc *d) {
    ftr_graph *graph = x.graph;
    char name[16];
    (void)snprintf(name, sizeof name, "%d", (int)index);
    ftr_scope_push(graph, name);
    x = ftr_add(x, ftr__gpt_attention(ftr_layer_norm(x, "ln_1", NULL), n, d));
    x = ftr_add(x, ftr__gpt_mlp(ftr_layer_norm(x, "ln_2", NULL), d));
    ftr_scope_pop(graph);
    return x;
}

/* The embeddings of tokens and places, as rows. */
static ftr_tensor ftr__gpt_embedding(ftr_tensor tokens, ftr_tensor token_weight, const ftr_gpt_desc *d) {
    const ftr_shape shape = ftr_shape_of(tokens);
    const ftr_tensor place_weight =
        ftr_parameter(tokens.graph, "wpe.weight", FTR_F32, FTR_SHAPE(d->context, d->width), ftr__gpt_normal(0.02));
    const ftr_tensor places = shape.dim[1] < d->context ? ftr_slice(place_weight, 0, 0, shape.dim[1], 1) : place_weight;
    const ftr_tensor x = ftr_add(ftr_embedding_with(token_weight, tokens), places);
    return ftr_reshape(ftr_dropout(x, d->embedding_dropout), FTR_SHAPE(shape.dim[0] * shape.dim[1], d->width));
}

ftr_tensor ftr_gpt(ftr_tensor tokens, const ftr_gpt_desc *desc) {
    ftr_graph *graph = tokens.graph;
    const ftr_gpt_desc d = desc != NULL ? *desc : ftr_gpt_defaults(FTR_GPT2);
    if (ftr_graph_status(graph) != FTR_OK || !ftr__gpt_desc_is_valid(graph, &d) ||
        !ftr__gpt_tokens_are_valid(tokens, &d))
        return (ftr_tensor){NULL, 0};
    const ftr_shape shape = ftr_shape_of(tokens), matrix = FTR_SHAPE(d.vocabulary, d.width);
    if (!d.bare_names) ftr_scope_push(graph, "transformer");
    ftr_tensor head = ftr_parameter(graph, "wte.weight", FTR_F32, matrix, ftr__gpt_normal(0.02));
    ftr_tensor x = ftr__gpt_embedding(tokens, head, &d);
    ftr_scope_push(graph, "h");
    for (int32_t i = 0; i < d.layers; i++) x = ftr__gpt_block(x, i, shape.dim[0], &d);
    ftr_scope_pop(graph);
    x = ftr_layer_norm(x, "ln_f", NULL);
    if (!d.bare_names) ftr_scope_pop(graph);
    if (d.features_only) return ftr_reshape(x, FTR_SHAPE(shape.dim[0], shape.dim[1], d.width));
    if (d.untied) head = ftr_parameter(graph, "lm_head.weight", FTR_F32, matrix, ftr__gpt_normal(0.02));
    x = ftr_linear_with(x, head, (ftr_tensor){NULL, 0});
    return ftr_reshape(x, FTR_SHAPE(shape.dim[0], shape.dim[1], d.vocabulary));
}
