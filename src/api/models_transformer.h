#ifndef FTR_API_MODELS_TRANSFORMER_H
#define FTR_API_MODELS_TRANSFORMER_H

#include "api/models.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ------------------------------------------------------------------------------------------------------------------
 * Transformers. What is said above of models holds for these too: names, shapes and first values are those of the
 * PyTorch model that the comment names, and a mistake is the graph's sticky error. */

/* Sizes of ftr_vit(), by embedding width, layers and heads. */
typedef enum ftr_vit_size {
    FTR_VIT_TINY = 0, /* Ti: 192, 12, 3; the sizes Ti and S are those of Touvron and others, arXiv:2012.12877 */
    FTR_VIT_SMALL,    /* S: 384, 12, 6 */
    FTR_VIT_BASE      /* B: 768, 12, 12 */
} ftr_vit_size;

/* From ftr_vit_defaults(); then any field may be changed. */
typedef struct ftr_vit_desc {
    uint32_t cookie;
    int64_t classes;          /* 1000 */
    int64_t patch;            /* side of a patch in pixels, which divides the image's height and width; 16 */
    int64_t width;            /* of the embedding; the heads divide it */
    int32_t layers;           /* 1 or more */
    int32_t heads;            /* 1 or more */
    int64_t mlp_width;        /* of the hidden layer of a block's MLP; 0: 4 times the width; 0 */
    double dropout;           /* of the embeddings, and after each linear layer of a block but the first; 0 */
    double attention_dropout; /* of the attention's weights; 0 */
    bool features_only;       /* without the classifier: the result is the class token, [n, width] */
} ftr_vit_desc;

/* A size of the table, patches of 16, 1000 classes, no dropout. A `size` that is none gives a description that
 * ftr_vit() refuses. */
FTR_API ftr_vit_desc ftr_vit_defaults(ftr_vit_size size);

/* Vision transformer (Dosovitskiy and others, arXiv:2010.11929): image [n, h, w, channels] to logits [n, classes].
 * Names are those of torchvision's VisionTransformer: class_token, conv_proj, encoder.pos_embedding,
 * encoder.layers.encoder_layer_0.ln_1, .self_attention.in_proj_weight, .self_attention.out_proj, .ln_2, .mlp.0,
 * .mlp.3, encoder.ln, heads.head; so are the first values: the classifier starts at 0. Layer norms add 1e-6. `desc`
 * NULL is ViT-B/16. The position embedding has a row for the class token and one for each patch, hence the image's
 * size is part of the weights' shapes; image height and width may differ. */
FTR_API ftr_tensor ftr_vit(ftr_tensor image, const ftr_vit_desc *desc);

/* Sizes of ftr_gpt(). */
typedef enum ftr_gpt_size {
    FTR_GPT2 = 0, /* GPT-2 of 124,439,808 parameters: vocabulary 50257, context 1024, width 768, 12 layers, 12 heads,
                   * dropout 0.1 everywhere */
    FTR_GPT_CHARS /* a small one for characters or bytes: 256, context 64, width 128, 4 layers, 4 heads, no dropout */
} ftr_gpt_size;

/* From ftr_gpt_defaults(); then any field may be changed. */
typedef struct ftr_gpt_desc {
    uint32_t cookie;
    int64_t vocabulary; /* tokens are 0 to vocabulary - 1 */
    int64_t context;    /* longest sequence: rows of the position embedding */
    int64_t width;      /* of the embedding; the heads divide it */
    int32_t layers;     /* 1 or more */
    int32_t heads;      /* 1 or more */
    int64_t mlp_width;  /* of the hidden layer of a block's MLP; 0: 4 times the width; 0 */
    double embedding_dropout, attention_dropout, residual_dropout; /* embd_pdrop, attn_pdrop, resid_pdrop */
    bool untied;        /* a matrix of its own, "lm_head.weight", in place of the token embedding; false */
    bool bare_names;    /* leave "transformer." out of the names, as GPT2Model does; false */
    bool features_only; /* without the logits: the result is [n, t, width]; false */
} ftr_gpt_desc;

/* A size of the table. A `size` that is none gives a description that ftr_gpt() refuses. */
FTR_API ftr_gpt_desc ftr_gpt_defaults(ftr_gpt_size size);

/* GPT-2 (Radford and others: Language Models are Unsupervised Multitask Learners, 2019): tokens [n, t], i32 or i64, to
 * logits [n, t, vocabulary] of the token that follows each; t is at most desc->context. A token outside the vocabulary
 * fails the step with FTR_ERROR_DATA.
 *
 * Names, shapes and first values are those of Hugging Face's GPT2LMHeadModel: transformer.wte.weight,
 * transformer.wpe.weight, transformer.h.0.ln_1, .attn.c_attn, .attn.c_proj, .ln_2, .mlp.c_fc, .mlp.c_proj,
 * transformer.ln_f. The weights of c_attn, c_proj and c_fc are [in, out], as its Conv1D has them, unlike a linear
 * layer's. The embedding of tokens is also the matrix that makes the logits, hence there is no lm_head unless
 * desc->untied is set. Published files (huggingface.co/openai-community/gpt2, model.safetensors) have the names
 * without "transformer.": desc->bare_names is for those. They also hold causal masks, which a graph has no use for:
 * ftr_load_desc.skip takes "h.*.attn.bias". `desc` NULL is FTR_GPT2. */
FTR_API ftr_tensor ftr_gpt(ftr_tensor tokens, const ftr_gpt_desc *desc);

#ifdef __cplusplus
}
#endif

#endif
