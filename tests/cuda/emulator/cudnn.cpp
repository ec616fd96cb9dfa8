/* A double of cuDNN's graph API, compiled against the real headers. Descriptors keep what is set; each has the attributes that
 * the documentation gives it, with their types and counts, and is final before another one refers to it. A plan runs its
 * operations one after another with reference loops, in double precision, rounded where a tensor is stored.
 *
 * FTR_DOUBLE_CUDNN says what it supports: "all" (also if it is not set), "plain": graphs of one operation, "none". The heuristics'
 * first answer is always an engine that is not deterministic. */
#include "doubles.h"
#include "emulator.h"

#include <cudnn.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

using ftr_emu::report;

namespace {

struct value {
    cudnnBackendAttributeType_t type;
    int64_t count;
    std::vector<unsigned char> bytes;
};

struct descriptor {
    cudnnBackendDescriptorType_t type;
    bool final;
    std::map<int, value> set;
    int engine; /* of an engine and its configuration: 0 is not deterministic */
};

std::recursive_mutex lock;
std::set<descriptor *> alive;
std::string last_error;

cudnnStatus_t refuse(cudnnStatus_t status, const char *why) {
    last_error = why;
    return status;
}

size_t size_of(cudnnBackendAttributeType_t type) {
    switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN: return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return 8;
    default: return 4;
    }
}

struct rule {
    cudnnBackendDescriptorType_t of;
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t least, most; /* elements */
    bool required;
};

#define DESCRIPTOR CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true
const rule rules[] = {
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_DEVICE_ID, CUDNN_TYPE_INT32, 1, 1, false},
    {CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 2, 1 << 20, false},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 3, 8, true},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 3, 8, true},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true},
    {CUDNN_BACKEND_TENSOR_DESCRIPTOR, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, 2, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, 2, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, 2, true},
    {CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, 2, true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_TYPE_FLOAT, 1, 1,
     true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, CUDNN_TYPE_FLOAT, 1, 1,
     true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_TYPE_FLOAT,
     1, 1, true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA, CUDNN_TYPE_FLOAT,
     1, 1, true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
     DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
     CUDNN_TYPE_FLOAT, 1, 1, true},
    {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
     CUDNN_TYPE_FLOAT, 1, 1, true},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, 1, true},
    {CUDNN_BACKEND_POINTWISE_DESCRIPTOR, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, false},
    {CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, DESCRIPTOR},
    {CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 64, true},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, DESCRIPTOR},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true},
    {CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, DESCRIPTOR},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, DESCRIPTOR},
    {CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, DESCRIPTOR},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, 64, true},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, 64, true},
    {CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, true},
};

/* The graph of an engine's configuration, which an application does not set by itself. */
const int GRAPH = -1;

descriptor *known(const char *call, cudnnBackendDescriptor_t which) {
    descriptor *d = static_cast<descriptor *>(which);
    if (alive.count(d)) return d;
    report("%s: no descriptor, or one that was destroyed", call);
    return nullptr;
}

template <typename T> std::vector<T> all(const descriptor *d, int name) {
    auto found = d->set.find(name);
    std::vector<T> values;
    if (found == d->set.end()) return values;
    values.resize((size_t)found->second.count);
    memcpy(values.data(), found->second.bytes.data(), found->second.bytes.size());
    return values;
}

template <typename T> T one(const descriptor *d, int name, T otherwise) {
    auto found = d->set.find(name);
    if (found == d->set.end() || found->second.bytes.size() < sizeof(T)) return otherwise;
    T value;
    memcpy(&value, found->second.bytes.data(), sizeof value);
    return value;
}

descriptor *referred(const descriptor *d, int name) { return one<descriptor *>(d, name, nullptr); }

/* ------------------------------------------------------------------------------------------------------------ tensors -- */

struct tensor {
    int64_t id;
    cudnnDataType_t type;
    std::vector<int64_t> dims, strides;
    bool is_virtual;
    unsigned char *data; /* of the variant pack */
    std::vector<double> values; /* of a virtual one, dense */
};

tensor tensor_of(const descriptor *d) {
    tensor t = {one<int64_t>(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, 0),
                one<cudnnDataType_t>(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT),
                all<int64_t>(d, CUDNN_ATTR_TENSOR_DIMENSIONS),
                all<int64_t>(d, CUDNN_ATTR_TENSOR_STRIDES),
                one<bool>(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, false),
                nullptr,
                {}};
    return t;
}

size_t type_size(cudnnDataType_t type) { return type == CUDNN_DATA_FLOAT ? 4 : 2; }

int64_t count_of(const tensor &t) {
    int64_t count = 1;
    for (int64_t d : t.dims) count *= d;
    return count;
}

/* Bytes from the first to behind the last element. */
size_t extent(const tensor &t) {
    int64_t last = 0;
    for (size_t d = 0; d < t.dims.size(); d++) last += (t.dims[d] - 1) * t.strides[d];
    return ((size_t)last + 1) * type_size(t.type);
}

float rounded(cudnnDataType_t type, double x) {
    if (type == CUDNN_DATA_HALF) return __half2float(__float2half_rn((float)x));
    if (type == CUDNN_DATA_BFLOAT16) return __bfloat162float(__float2bfloat16_rn((float)x));
    return (float)x;
}

double load(const tensor &t, const int64_t *at) {
    int64_t offset = 0, dense = 0;
    for (size_t d = 0; d < t.dims.size(); d++) {
        const int64_t i = t.dims[d] == 1 ? 0 : at[d]; /* stretched */
        offset += i * t.strides[d];
        dense = dense * t.dims[d] + i;
    }
    if (t.is_virtual) return t.values[(size_t)dense];
    const unsigned char *data = t.data + (size_t)offset * type_size(t.type);
    if (t.type == CUDNN_DATA_FLOAT) {
        float x;
        memcpy(&x, data, sizeof x);
        return x;
    }
    uint16_t bits;
    memcpy(&bits, data, sizeof bits);
    if (t.type == CUDNN_DATA_HALF) {
        __half x;
        memcpy(static_cast<void *>(&x), &bits, sizeof bits);
        return __half2float(x);
    }
    uint32_t wide = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &wide, sizeof x);
    return x;
}

void store(tensor &t, const int64_t *at, double x) {
    int64_t offset = 0, dense = 0;
    for (size_t d = 0; d < t.dims.size(); d++) {
        offset += at[d] * t.strides[d];
        dense = dense * t.dims[d] + at[d];
    }
    if (t.is_virtual) {
        t.values[(size_t)dense] = rounded(t.type, x);
        return;
    }
    unsigned char *data = t.data + (size_t)offset * type_size(t.type);
    if (t.type == CUDNN_DATA_FLOAT) {
        const float y = (float)x;
        memcpy(data, &y, sizeof y);
    } else if (t.type == CUDNN_DATA_HALF) {
        const __half y = __float2half_rn((float)x);
        memcpy(data, &y, 2);
    } else {
        const __nv_bfloat16 y = __float2bfloat16_rn((float)x);
        memcpy(data, &y, 2);
    }
}

/* ---------------------------------------------------------------------------------------------------------- operations -- */

struct convolution {
    std::vector<int64_t> strides, before, after, dilations;
};

struct operation {
    cudnnBackendDescriptorType_t type;
    int64_t x, w, y; /* ids of tensors; of a pointwise operation w is b, or -1 */
    convolution how;
    cudnnPointwiseMode_t mode;
};

/* A plan without its descriptors. */
struct program {
    std::map<int64_t, tensor> tensors;
    std::vector<operation> operations;
    size_t workspace;
};

int64_t add_tensor(program &p, const descriptor *d) {
    if (!d) return -1;
    const tensor t = tensor_of(d);
    auto found = p.tensors.find(t.id);
    if (found != p.tensors.end() && (found->second.dims != t.dims || found->second.type != t.type))
        report("cuDNN: two tensors have the id %lld", (long long)t.id);
    p.tensors[t.id] = t;
    return t.id;
}

convolution convolution_of(const descriptor *d) {
    return {all<int64_t>(d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES), all<int64_t>(d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS),
            all<int64_t>(d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS), all<int64_t>(d, CUDNN_ATTR_CONVOLUTION_DILATIONS)};
}

struct names {
    int x, w, y, how;
};

bool is_convolution(cudnnBackendDescriptorType_t type, names *n) {
    switch (type) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        *n = {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC};
        return true;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        *n = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC};
        return true;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        *n = {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC};
        return true;
    default: return false;
    }
}

/* Shapes that belong together. */
cudnnStatus_t check_convolution(const tensor &x, const tensor &w, const tensor &y, const convolution &how) {
    if (x.dims.size() != 4 || w.dims.size() != 4 || y.dims.size() != 4)
        return refuse(CUDNN_STATUS_BAD_PARAM, "tensors of a convolution have another rank than 4");
    if (x.dims[0] != y.dims[0] || w.dims[0] != y.dims[1] || x.dims[1] % w.dims[1] || w.dims[0] % (x.dims[1] / w.dims[1]))
        return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "channels of a convolution do not fit");
    for (size_t d = 0; d < 2; d++) {
        const int64_t reach = how.dilations[d] * (w.dims[2 + d] - 1) + 1;
        const int64_t room = x.dims[2 + d] + how.before[d] + how.after[d] - reach;
        if (room < 0 || room / how.strides[d] + 1 != y.dims[2 + d])
            return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "height or width of a convolution's result does not fit");
    }
    return CUDNN_STATUS_SUCCESS;
}

/* The operations of a graph in the order they were given; each reads what was written before, or what is not virtual. */
cudnnStatus_t program_of(const descriptor *graph, program *p) {
    std::set<int64_t> written;
    for (const descriptor *d : all<descriptor *>(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS)) {
        names n;
        operation o = {};
        o.type = d->type;
        if (is_convolution(d->type, &n)) {
            o.x = add_tensor(*p, referred(d, n.x));
            o.w = add_tensor(*p, referred(d, n.w));
            o.y = add_tensor(*p, referred(d, n.y));
            o.how = convolution_of(referred(d, n.how));
            const cudnnStatus_t status = check_convolution(p->tensors[o.x], p->tensors[o.w], p->tensors[o.y], o.how);
            if (status != CUDNN_STATUS_SUCCESS) return status;
            written.insert(d->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR         ? o.y
                           : d->type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ? o.x
                                                                                                     : o.w);
        } else {
            o.x = add_tensor(*p, referred(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC));
            o.w = add_tensor(*p, referred(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC));
            o.y = add_tensor(*p, referred(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC));
            o.mode = one<cudnnPointwiseMode_t>(referred(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR), CUDNN_ATTR_POINTWISE_MODE,
                                               CUDNN_POINTWISE_ADD);
            for (int64_t id : {o.x, o.w})
                if (id >= 0 && p->tensors[id].is_virtual && !written.count(id))
                    return refuse(CUDNN_STATUS_BAD_PARAM, "a virtual tensor is read that no operation before writes");
            written.insert(o.y);
        }
        p->operations.push_back(o);
    }
    return CUDNN_STATUS_SUCCESS;
}

/* All elements, n, c, h, w. */
std::vector<double> dense_of(const tensor &t) {
    std::vector<double> values;
    values.reserve((size_t)count_of(t));
    int64_t at[4];
    for (at[0] = 0; at[0] < t.dims[0]; at[0]++)
        for (at[1] = 0; at[1] < t.dims[1]; at[1]++)
            for (at[2] = 0; at[2] < t.dims[2]; at[2]++)
                for (at[3] = 0; at[3] < t.dims[3]; at[3]++) values.push_back(load(t, at));
    return values;
}

void store_dense(tensor &t, const std::vector<double> &values) {
    size_t i = 0;
    int64_t at[4];
    for (at[0] = 0; at[0] < t.dims[0]; at[0]++)
        for (at[1] = 0; at[1] < t.dims[1]; at[1]++)
            for (at[2] = 0; at[2] < t.dims[2]; at[2]++)
                for (at[3] = 0; at[3] < t.dims[3]; at[3]++) store(t, at, values[i++]);
}

void convolve(program &p, const operation &o) {
    tensor &x = p.tensors[o.x], &w = p.tensors[o.w], &y = p.tensors[o.y];
    const bool forward = o.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR;
    const bool to_x = o.type == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR;
    tensor &to = forward ? y : to_x ? x : w;
    const std::vector<double> none;
    std::vector<double> sums((size_t)count_of(to), 0.0);
    const std::vector<double> xs = to_x ? none : dense_of(x), ws = forward || to_x ? dense_of(w) : none,
                              ys = forward ? none : dense_of(y);
    const int64_t k_count = y.dims[1], oh = y.dims[2], ow = y.dims[3], ih = x.dims[2], iw = x.dims[3], kh = w.dims[2], kw = w.dims[3];
    const int64_t group_in = w.dims[1], channels = x.dims[1], group_out = w.dims[0] / (channels / group_in);
    for (int64_t n = 0; n < y.dims[0]; n++)
        for (int64_t k = 0; k < k_count; k++)
            for (int64_t c = 0; c < group_in; c++)
                for (int64_t a = 0; a < kh; a++)
                    for (int64_t b = 0; b < kw; b++)
                        for (int64_t oy = 0; oy < oh; oy++)
                            for (int64_t ox = 0; ox < ow; ox++) {
                                const int64_t iy = oy * o.how.strides[0] - o.how.before[0] + a * o.how.dilations[0];
                                const int64_t ix = ox * o.how.strides[1] - o.how.before[1] + b * o.how.dilations[1];
                                if (iy < 0 || iy >= ih || ix < 0 || ix >= iw) continue;
                                const size_t in = (size_t)(((n * channels + k / group_out * group_in + c) * ih + iy) * iw + ix);
                                const size_t weight = (size_t)(((k * group_in + c) * kh + a) * kw + b);
                                const size_t out = (size_t)(((n * k_count + k) * oh + oy) * ow + ox);
                                if (forward)
                                    sums[out] += xs[in] * ws[weight];
                                else if (to_x)
                                    sums[in] += ys[out] * ws[weight];
                                else
                                    sums[weight] += ys[out] * xs[in];
                            }
    store_dense(to, sums);
}

void compute_pointwise(program &p, const operation &o) {
    tensor &y = p.tensors[o.y];
    const tensor &x = p.tensors[o.x];
    int64_t at[4];
    for (at[0] = 0; at[0] < y.dims[0]; at[0]++)
        for (at[1] = 0; at[1] < y.dims[1]; at[1]++)
            for (at[2] = 0; at[2] < y.dims[2]; at[2]++)
                for (at[3] = 0; at[3] < y.dims[3]; at[3]++) {
                    const double a = load(x, at), b = o.w >= 0 ? load(p.tensors[o.w], at) : 0.0;
                    double result = 0.0;
                    switch (o.mode) {
                    case CUDNN_POINTWISE_ADD: result = a + b; break;
                    case CUDNN_POINTWISE_MUL: result = a * b; break;
                    case CUDNN_POINTWISE_RELU_FWD: result = a < 0.0 ? 0.0 : a; break;
                    case CUDNN_POINTWISE_IDENTITY: result = a; break;
                    default: report("cuDNN: the double does not know pointwise mode %d", (int)o.mode);
                    }
                    store(y, at, result);
                }
}

void execute(program p, void *workspace) {
    if (p.workspace) memset(workspace, 0xab, p.workspace);
    for (auto &t : p.tensors)
        if (t.second.is_virtual) t.second.values.assign((size_t)count_of(t.second), NAN);
    for (const operation &o : p.operations) {
        if (o.type == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)
            compute_pointwise(p, o);
        else
            convolve(p, o);
    }
    for (auto &t : p.tensors)
        if (t.second.data) ftr_emu::memory_written(t.second.data, extent(t.second));
}

bool supports(const program &p) {
    const char *what = getenv("FTR_DOUBLE_CUDNN");
    if (!what || strcmp(what, "all") == 0) return true;
    return strcmp(what, "plain") == 0 && p.operations.size() == 1;
}

cudnnStatus_t finalize(descriptor *d) {
    for (const rule &r : rules)
        if (r.of == d->type && r.required && !d->set.count(r.name)) {
            report("cudnnBackendFinalize: a descriptor of type %d lacks attribute %d", (int)d->type, (int)r.name);
            return refuse(CUDNN_STATUS_BAD_PARAM, "an attribute is missing");
        }
    program p = {};
    switch (d->type) {
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: return program_of(d, &p);
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        if (d->set[CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS].count != d->set[CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS].count) {
            report("cudnnBackendFinalize: a variant pack has another number of ids than of pointers");
            return refuse(CUDNN_STATUS_BAD_PARAM, "ids and pointers");
        }
        return CUDNN_STATUS_SUCCESS;
    case CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR:
        return d->set.empty() ? refuse(CUDNN_STATUS_BAD_PARAM, "a device without a description") : CUDNN_STATUS_SUCCESS;
    default: return CUDNN_STATUS_SUCCESS;
    }
}

} // namespace

struct cudnnContext {
    cudaStream_t stream;
};

#define CALL(name) \
    std::lock_guard<std::recursive_mutex> guard(lock); \
    if (ftr_double::fails(#name)) return refuse(CUDNN_STATUS_INTERNAL_ERROR, #name " was made to fail")

extern "C" {

size_t CUDNNWINAPI cudnnGetVersion(void) { return CUDNN_VERSION; }

const char *CUDNNWINAPI cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_SUCCESS         ? "CUDNN_STATUS_SUCCESS"
           : status == CUDNN_STATUS_NOT_SUPPORTED ? "CUDNN_STATUS_NOT_SUPPORTED"
           : status == CUDNN_STATUS_INTERNAL_ERROR ? "CUDNN_STATUS_INTERNAL_ERROR"
                                                   : "CUDNN_STATUS_BAD_PARAM";
}

void CUDNNWINAPI cudnnGetLastErrorString(char *text, size_t size) {
    snprintf(text, size, "%s", last_error.c_str());
    last_error.clear();
}

cudnnStatus_t CUDNNWINAPI cudnnCreate(cudnnHandle_t *handle) {
    CALL(cudnnCreate);
    *handle = new cudnnContext();
    ftr_double::made();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnDestroy(cudnnHandle_t handle) {
    CALL(cudnnDestroy);
    delete handle;
    ftr_double::gone();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    CALL(cudnnSetStream);
    handle->stream = stream;
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *made) {
    CALL(cudnnBackendCreateDescriptor);
    descriptor *d = new descriptor();
    d->type = type;
    alive.insert(d);
    *made = d;
    ftr_double::made();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t which) {
    CALL(cudnnBackendDestroyDescriptor);
    descriptor *d = known("cudnnBackendDestroyDescriptor", which);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    alive.erase(d);
    delete d;
    ftr_double::gone();
    return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t CUDNNWINAPI cudnnBackendSetAttribute(cudnnBackendDescriptor_t which, cudnnBackendAttributeName_t name,
                                                   cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    CALL(cudnnBackendSetAttribute);
    descriptor *d = known("cudnnBackendSetAttribute", which);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    if (d->final) {
        report("cudnnBackendSetAttribute: a descriptor of type %d is final already", (int)d->type);
        return refuse(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is final");
    }
    for (const rule &r : rules) {
        if (r.of != d->type || r.name != name) continue;
        if (r.type != type || count < r.least || count > r.most) break;
        value v = {type, count, {}};
        v.bytes.assign((const unsigned char *)values, (const unsigned char *)values + (size_t)count * size_of(type));
        if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
            for (int64_t i = 0; i < count; i++) {
                const descriptor *of = known("cudnnBackendSetAttribute", ((const cudnnBackendDescriptor_t *)values)[i]);
                if (of && !of->final) report("cudnnBackendSetAttribute: attribute %d is a descriptor that is not final", (int)name);
            }
        d->set[name] = v;
        return CUDNN_STATUS_SUCCESS;
    }
    report("cudnnBackendSetAttribute: descriptor type %d has no attribute %d of type %d with %lld elements, as far as the double knows",
           (int)d->type, (int)name, (int)type, (long long)count);
    return refuse(CUDNN_STATUS_BAD_PARAM, "no such attribute");
}

cudnnStatus_t CUDNNWINAPI cudnnBackendFinalize(cudnnBackendDescriptor_t which) {
    CALL(cudnnBackendFinalize);
    descriptor *d = known("cudnnBackendFinalize", which);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    const cudnnStatus_t status = finalize(d);
    d->final = status == CUDNN_STATUS_SUCCESS;
    return status;
}

cudnnStatus_t CUDNNWINAPI cudnnBackendGetAttribute(cudnnBackendDescriptor_t const which, cudnnBackendAttributeName_t name,
                                                   cudnnBackendAttributeType_t type, int64_t asked, int64_t *count, void *values) {
    CALL(cudnnBackendGetAttribute);
    descriptor *d = known("cudnnBackendGetAttribute", which);
    if (!d) return CUDNN_STATUS_BAD_PARAM;
    if (!d->final && d->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
        report("cudnnBackendGetAttribute: a descriptor of type %d is not final", (int)d->type);
        return refuse(CUDNN_STATUS_NOT_INITIALIZED, "the descriptor is not final");
    }
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        descriptor *graph = referred(d, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
        program p = {};
        (void)program_of(graph, &p);
        *count = supports(p) ? (asked < 2 ? asked : 2) : 0;
        for (int64_t i = 0; i < *count; i++) {
            descriptor *to = known("cudnnBackendGetAttribute", ((cudnnBackendDescriptor_t *)values)[i]);
            if (!to || to->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR)
                report("cudnnBackendGetAttribute: results are to be engine configurations");
            value v = {CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, std::vector<unsigned char>(sizeof graph)};
            memcpy(v.bytes.data(), &graph, sizeof graph);
            to->set[GRAPH] = v;
            to->engine = (int)i;
            to->final = true;
        }
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_ENGINECFG_ENGINE && type == CUDNN_TYPE_BACKEND_DESCRIPTOR && asked == 1) {
        descriptor *to = known("cudnnBackendGetAttribute", *(cudnnBackendDescriptor_t *)values);
        if (!to || to->type != CUDNN_BACKEND_ENGINE_DESCRIPTOR) {
            report("cudnnBackendGetAttribute: an engine is to be written to an engine descriptor");
            return CUDNN_STATUS_BAD_PARAM;
        }
        to->engine = d->engine;
        to->final = true;
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE && type == CUDNN_TYPE_NUMERICAL_NOTE) {
        *count = d->engine == 0 && asked > 0;
        if (*count) *(cudnnBackendNumericalNote_t *)values = CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC;
        return CUDNN_STATUS_SUCCESS;
    }
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64 && asked == 1) {
        *(int64_t *)values = 100;
        *count = 1;
        return CUDNN_STATUS_SUCCESS;
    }
    report("cudnnBackendGetAttribute: the double does not know attribute %d of descriptor type %d", (int)name, (int)d->type);
    return refuse(CUDNN_STATUS_BAD_PARAM, "no such attribute");
}

cudnnStatus_t CUDNNWINAPI cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t which_plan,
                                              cudnnBackendDescriptor_t which_pack) {
    CALL(cudnnBackendExecute);
    const descriptor *plan = known("cudnnBackendExecute", which_plan), *pack = known("cudnnBackendExecute", which_pack);
    if (!plan || !pack || !plan->final || !pack->final) {
        report("cudnnBackendExecute: plan or pack is not final");
        return refuse(CUDNN_STATUS_BAD_PARAM, "not final");
    }
    const descriptor *configuration = known("cudnnBackendExecute", referred(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG));
    const descriptor *graph = configuration ? known("cudnnBackendExecute", referred(configuration, GRAPH)) : nullptr;
    program p = {};
    if (!graph || program_of(graph, &p) != CUDNN_STATUS_SUCCESS) return refuse(CUDNN_STATUS_BAD_PARAM, "the plan has no graph");
    p.workspace = 100;
    const std::vector<int64_t> ids = all<int64_t>(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS);
    const std::vector<unsigned char *> data = all<unsigned char *>(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
    void *workspace = one<void *>(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, nullptr);
    for (size_t i = 0; i < ids.size(); i++) {
        auto found = p.tensors.find(ids[i]);
        if (found == p.tensors.end() || found->second.is_virtual)
            report("cudnnBackendExecute: the graph has no tensor with id %lld, or it is virtual", (long long)ids[i]);
        else
            found->second.data = data[i];
    }
    for (const auto &t : p.tensors) {
        if (t.second.is_virtual) continue;
        if (!t.second.data) {
            report("cudnnBackendExecute: no memory is given for the tensor with id %lld", (long long)t.first);
            return refuse(CUDNN_STATUS_BAD_PARAM, "a tensor without memory");
        }
        ftr_double::check_memory("cudnnBackendExecute", "a tensor", t.second.data, extent(t.second), 16);
    }
    ftr_double::check_memory("cudnnBackendExecute", "the workspace", workspace, p.workspace, 16);
    if (configuration->engine == 0) report("cudnnBackendExecute: the engine is not deterministic");
    return ftr_double::put(handle->stream, "cudnnBackendExecute", [p, workspace]() { execute(p, workspace); }) == cudaSuccess
               ? CUDNN_STATUS_SUCCESS
               : refuse(CUDNN_STATUS_EXECUTION_FAILED, "the stream");
}
}
