#include "models/blocks.h"

static ftr_graph *ftr__model_image_error(ftr_graph *graph, ftr_status status, const char *model, const char *sentence) {
    (void)ftr_graph_fail(graph, status, model, NULL, "%s", sentence);
    return NULL;
}

ftr_graph *ftr__model_image(const char *model, ftr_tensor image, int64_t min_size) {
    ftr_graph *graph = image.graph;
    if (ftr_graph_status(graph) != FTR_OK) return NULL;
    if (!ftr_is_valid(image))
        return ftr__model_image_error(graph, FTR_ERROR_INVALID_TENSOR, model, "the image is a null tensor");
    const ftr_shape shape = ftr_shape_of(image);
    if (shape.rank != 4)
        (void)ftr_graph_fail(graph, FTR_ERROR_RANK, model, NULL, "the image has rank %d, expected 4 (n, h, w, c)",
                             (int)shape.rank);
    else if (ftr_dtype_of(image) != FTR_F32 && ftr_dtype_of(image) != FTR_F64)
        (void)ftr_graph_fail(graph, FTR_ERROR_DTYPE, model, NULL, "the image is %s, expected f32 or f64",
                             ftr_dtype_name(ftr_dtype_of(image)));
    else if (shape.dim[1] < min_size || shape.dim[2] < min_size)
        (void)ftr_graph_fail(graph, FTR_ERROR_SHAPE, model, NULL,
                             "the image has %lld x %lld pixels, expected %lld x %lld or more", (long long)shape.dim[1],
                             (long long)shape.dim[2], (long long)min_size, (long long)min_size);
    else if (shape.dim[3] < 1)
        return ftr__model_image_error(graph, FTR_ERROR_SHAPE, model, "the image has 0 channels, expected 1 or more");
    return ftr_graph_status(graph) == FTR_OK ? graph : NULL;
}

bool ftr__model_probability(ftr_graph *graph, const char *model, const char *option, double p) {
    if (p >= 0.0 && p <= 1.0) return true;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "%s is %g, expected 0 to 1", option, p);
    return false;
}

int64_t ftr__model_classes(ftr_graph *graph, const char *model, int64_t asked, int64_t otherwise) {
    if (asked >= 0) return asked == 0 ? otherwise : asked;
    (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "classes is %lld, expected 1 or more",
                         (long long)asked);
    return 0;
}

ftr_tensor ftr__model_dropout(ftr_tensor x, double p) { return p == 0.0 ? x : ftr_dropout(x, p); }
