#include "errors.h"

#define INPUT(name, dtype, ...) ftr_input(g, name, dtype, FTR_SHAPE(__VA_ARGS__))
#define X(...) INPUT("x", FTR_F32, __VA_ARGS__)
#define NOTHING ((ftr_tensor){0})
#define DRAWN(x, ...) drawn(x, &(ftr_mix_desc){__VA_ARGS__})

/* The defaults with some fields set: those of `set` that are not 0. -1 stands for 0. */
static ftr_tensor drawn(ftr_tensor x, const ftr_mix_desc *set) {
    ftr_mix_desc desc = ftr_mix_defaults();
    desc.mixup = set->mixup != 0 ? set->mixup : desc.mixup;
    desc.cutmix = set->cutmix != 0 ? set->cutmix : desc.cutmix;
    desc.mixup_alpha = set->mixup_alpha != 0 ? set->mixup_alpha : desc.mixup_alpha;
    desc.cutmix_alpha = set->cutmix_alpha != 0 ? set->cutmix_alpha : desc.cutmix_alpha;
    desc.pairs = set->pairs;
    return ftr_mix_draw(x, "mix", &desc).weights;
}

static ftr_tensor without_defaults(ftr_tensor x) {
    const ftr_mix_desc desc = {.mixup = 1, .mixup_alpha = 1};
    return ftr_mix_draw(x, NULL, &desc).weights;
}

static ftr_tensor twice(ftr_tensor x) {
    ftr_mix_draw(x, "mix", NULL);
    return ftr_mix_draw(x, "mix", NULL).weights;
}

/* Mixes by inputs of these types and sizes. */
static ftr_tensor given(ftr_tensor x, ftr_dtype weights, int64_t partners, int64_t box, bool targets) {
    ftr_graph *g = x.graph;
    ftr_mix mix = {.weights = INPUT("weights", weights, 4), .partners = INPUT("partners", FTR_I32, partners)};
    if (box > 0) mix.box = INPUT("box", FTR_I32, box);
    return targets ? ftr_mix_targets(x, mix) : ftr_mix_images(x, mix);
}

static ftr_tensor of_another_size(ftr_graph *g) {
    ftr_mix mix = ftr_mix_draw(X(4, 8, 8, 3), "mix", NULL);
    return ftr_mix_images(INPUT("smaller", FTR_F32, 4, 8, 7, 3), mix);
}

static ftr_tensor not_drawn(ftr_tensor x) { return ftr_mix_images(x, (ftr_mix){0}); }

static ftr_tensor soft(ftr_graph *g, ftr_tensor targets, double smoothing, int reduction, int64_t ignored,
                       ftr_tensor weights) {
    ftr_cross_entropy_desc desc = ftr_cross_entropy_defaults();
    desc.label_smoothing = smoothing;
    desc.reduction = (ftr_reduction)reduction;
    desc.ignore_index = ignored;
    desc.class_weights = weights;
    return ftr_cross_entropy(X(4, 3), targets, &desc);
}

/* ROW(name, status, sentence, what is built) */
/* clang-format off */
#define MIX_ERRORS(ROW) \
    ROW(mix_draw_desc, FTR_ERROR_INVALID_ARGUMENT, "mix_draw: desc was not made by ftr_mix_defaults()", \
        without_defaults(X(4, 8, 8, 3))) \
    ROW(mix_draw_rank, FTR_ERROR_RANK, "mix_draw: images have rank 0, expected 1 or more (n, ...)", \
        ftr_mix_draw(ftr_input(g, "x", FTR_F32, ftr_scalar_shape()), NULL, NULL).weights) \
    ROW(mix_draw_no_name, FTR_ERROR_NAME, "mix_draw: the name is empty", \
        ftr_mix_draw(X(4, 8, 8, 3), "", NULL).weights) \
    ROW(mix_draw_twice, FTR_ERROR_NAME, "mix_draw 'mix': the name is used by another mix_draw", twice(X(4, 8, 8, 3))) \
    ROW(mix_draw_probability, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': mixup 0.75, cutmix 0.5: expected probabilities that add up to 1 or less", \
        DRAWN(X(4, 8, 8, 3), .mixup = 0.75)) \
    ROW(mix_draw_negative, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': mixup 0.5, cutmix -0.25: expected probabilities that add up to 1 or less", \
        DRAWN(X(4, 8, 8, 3), .cutmix = -0.25)) \
    ROW(mix_draw_nan, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': mixup nan, cutmix 0.5: expected probabilities that add up to 1 or less", \
        DRAWN(X(4, 8, 8, 3), .mixup = fabs((double)NAN))) \
    ROW(mix_draw_alpha, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': mixup_alpha -1, expected a finite number above 0", DRAWN(X(4, 8, 8, 3), .mixup_alpha = -1)) \
    ROW(mix_draw_alpha_infinite, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': cutmix_alpha inf, expected a finite number above 0", \
        DRAWN(X(4, 8, 8, 3), .cutmix_alpha = (double)INFINITY)) \
    ROW(mix_draw_pairs, FTR_ERROR_INVALID_ARGUMENT, \
        "mix_draw 'mix': pairs 7, expected FTR_MIX_ROLL or FTR_MIX_PERMUTE", \
        DRAWN(X(4, 8, 8, 3), .pairs = (ftr_mix_pairs)7)) \
    ROW(mix_draw_vectors, FTR_ERROR_SHAPE, \
        "mix_draw 'mix': images of 0 x 0 with cutmix, expected [n, h, w, ..], h and w 1 to 2147483647", \
        DRAWN(X(4, 8), .mixup = 0.5)) \
    ROW(mix_draw_no_pixels, FTR_ERROR_SHAPE, \
        "mix_draw 'mix': images of 8 x 0 with cutmix, expected [n, h, w, ..], h and w 1 to 2147483647", \
        DRAWN(X(4, 8, 0, 1), .mixup = 0.5)) \
    ROW(mix_images_null, FTR_ERROR_INVALID_TENSOR, "mix_images: input 1 is a null tensor", not_drawn(X(4, 8, 8, 3))) \
    ROW(mix_images_size, FTR_ERROR_SHAPE, "mix_images: x is 8 x 7, 'mix' was drawn for 8 x 8", of_another_size(g)) \
    ROW(mix_integers, FTR_ERROR_DTYPE, "mix 'mix_4': input is u8, expected floating point", \
        given(INPUT("x", FTR_U8, 4, 8, 8, 3), FTR_F32, 4, 4, false)) \
    ROW(mix_rank, FTR_ERROR_RANK, "mix 'mix_4': input has rank 2, expected 3 or more (n, h, w, ...)", \
        given(X(4, 8), FTR_F32, 4, 4, false)) \
    ROW(mix_targets_rank, FTR_ERROR_RANK, "mix 'mix_3': input has rank 1, expected 2 or more (n, ...)", \
        given(X(4), FTR_F32, 4, 0, true)) \
    ROW(mix_weights, FTR_ERROR_DTYPE, "mix 'mix_3': weights are f64, expected f32", \
        given(X(4, 3), FTR_F64, 4, 0, true)) \
    ROW(mix_partners, FTR_ERROR_SHAPE, "mix 'mix_3': partners are [5], expected [4]", \
        given(X(4, 3), FTR_F32, 5, 0, true)) \
    ROW(mix_box, FTR_ERROR_SHAPE, "mix 'mix_4': bounds of the box are [3], expected [4]", \
        given(X(4, 8, 8, 3), FTR_F32, 4, 3, false)) \
    ROW(soft_shape, FTR_ERROR_SHAPE, "cross_entropy: class probabilities are [4, 2], logits are [4, 3]", \
        soft(g, INPUT("t", FTR_F32, 4, 2), 0, 0, -100, NOTHING)) \
    ROW(soft_dtype, FTR_ERROR_DTYPE, "cross_entropy: class probabilities are f16, logits are f32", \
        soft(g, INPUT("t", FTR_F16, 4, 3), 0, 0, -100, NOTHING)) \
    ROW(soft_smoothing, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy: label_smoothing 1.5, expected 0 to 1", \
        soft(g, INPUT("t", FTR_F32, 4, 3), 1.5, 0, -100, NOTHING)) \
    ROW(soft_reduction, FTR_ERROR_INVALID_ARGUMENT, "cross_entropy: reduction 3, expected 0 to 2", \
        soft(g, INPUT("t", FTR_F32, 4, 3), 0, 3, -100, NOTHING)) \
    ROW(soft_ignored, FTR_ERROR_INVALID_ARGUMENT, \
        "cross_entropy: ignore_index 1 with class probabilities as targets, expected a number below 0", \
        soft(g, INPUT("t", FTR_F32, 4, 3), 0, 0, 1, NOTHING)) \
    ROW(soft_weights, FTR_ERROR_SHAPE, "cross_entropy: class weights is [4], expected [3]", \
        soft(g, INPUT("t", FTR_F32, 4, 3), 0, 0, -100, INPUT("w", FTR_F32, 4))) \
    ROW(soft_weights_dtype, FTR_ERROR_DTYPE, "cross_entropy: class weights is f64, expected f32", \
        soft(g, INPUT("t", FTR_F32, 4, 3), 0, 0, -100, INPUT("w", FTR_F64, 3)))
/* clang-format on */

#define FUNCTION(name, status, message, expression)                                                                    \
    static ftr_tensor build_##name(ftr_graph *g) { return expression; }
#define ENTRY(name, status, message, expression) {#name, build_##name, status, message},

MIX_ERRORS(FUNCTION)
static const op_error errors[] = {MIX_ERRORS(ENTRY)};
const op_error_family mix_errors = {errors, FTR_TEST_LENGTH(errors)};
