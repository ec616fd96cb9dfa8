#include "models/transformer.h"

bool ftr__transformer_is_valid(ftr_graph *graph, const char *model, ftr__transformer_size size) {
    if (size.layers < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "layers is %d, expected 1 or more",
                             (int)size.layers);
    else if (size.heads < 1)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "heads is %d, expected 1 or more",
                             (int)size.heads);
    else if (size.width < 1 || size.width > INT32_MAX || size.width % size.heads != 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL,
                             "width is %lld, expected a multiple of heads, %d, from %d to %d", (long long)size.width,
                             (int)size.heads, (int)size.heads, INT32_MAX);
    else if (size.mlp_width < 0)
        (void)ftr_graph_fail(graph, FTR_ERROR_INVALID_ARGUMENT, model, NULL, "mlp_width is %lld, expected 0 or more",
                             (long long)size.mlp_width);
    else
        return true;
    return false;
}

ftr_tensor ftr__transformer_attention(ftr_tensor x, int64_t n, int64_t t, int32_t heads,
                                      const ftr_attention_desc *desc) {
    const ftr_shape shape = ftr_shape_of(x);
    if (shape.rank < 1) return (ftr_tensor){NULL, 0};
    const int64_t width = shape.dim[shape.rank - 1] / 3;
    ftr_tensor part[3];
    ftr_split(x, -1, NULL, 3, part);
    for (int i = 0; i < 3; i++) part[i] = ftr_reshape(part[i], FTR_SHAPE(n, t, heads, width / heads));
    return ftr_attention(part[0], part[1], part[2], desc);
}
