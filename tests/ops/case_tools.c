#include "case_tools.h"

#include "oracle_tools.h"

/* ---------------------------------------------------------------------------------------------------- input data -- */

static const double special_values[] = {NAN,    INFINITY,  -INFINITY, 0.0,    -0.0, 1.0,   -1.0,   1e30,  -1e30,
                                        0.5,    -2.5,      87.5,      -87.5,  3e9,  -3e9,  255.75, 256.5, 1e-30,
                                        -1e-30, 16777217., 100.0,     -100.0, 1e20, -1e20, 20.0,   -20.0, -0.75};

void draw(ftr_test_rng *rng, fill kind, double low, double high, double *values, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        switch (kind) {
        case FILL_UNIFORM: values[i] = (float)ftr_test_uniform(rng, low, high); break;
        case FILL_AWAY:
            values[i] = (float)ftr_test_uniform(rng, low, high) * (ftr_test_random(rng) >> 63 ? 1.0 : -1.0);
            break;
        case FILL_DISTINCT: {
            int64_t j = ftr_test_integer(rng, 0, i);
            values[i] = values[j];
            values[j] = (double)(i - count / 2) / 8.0;
            break;
        }
        case FILL_INTEGER: values[i] = (double)ftr_test_integer(rng, (int64_t)low, (int64_t)high); break;
        case FILL_SPECIAL: values[i] = (float)special_values[(uint64_t)i % FTR_TEST_LENGTH(special_values)]; break;
        }
    }
}

op_input *record(op_build *b, ftr_tensor tensor, fill kind, double low, double high) {
    assert_true(b->input_count < OP_MAX_INPUTS);
    op_input *input = &b->inputs[b->input_count++];
    ftr_shape shape = ftr_shape_of(tensor);
    int64_t count = ftr_shape_count(&shape);
    *input = (op_input){.tensor = tensor, .count = count, .values = calloc((size_t)count + 1, sizeof(double))};
    draw(&b->rng, kind, low, high, input->values, count);
    return input;
}

op_input *declare(op_build *b, ftr_dtype dtype, ftr_shape shape, fill kind, double low, double high) {
    char name[16];
    snprintf(name, sizeof name, "x%d", (int)b->input_count);
    ftr_tensor tensor = ftr_input(b->graph, name, dtype, shape);
    FTR_TEST_GRAPH_OK(b->graph);
    return record(b, tensor, kind, low, high);
}

ftr_tensor real_input(op_build *b, ftr_shape shape, fill kind, double low, double high) {
    op_input *input = declare(b, b->real, shape, kind, low, high);
    input->wanted = true;
    return input->tensor;
}

ftr_tensor uniform_input(op_build *b, ftr_shape shape) { return real_input(b, shape, FILL_UNIFORM, -1, 1); }

ftr_tensor fixed_input(op_build *b, ftr_shape shape, fill kind, double low, double high) {
    return declare(b, b->real, shape, kind, low, high)->tensor;
}

ftr_tensor integer_input(op_build *b, ftr_dtype dtype, ftr_shape shape, int64_t low, int64_t high) {
    return declare(b, dtype, shape, FILL_INTEGER, (double)low, (double)high)->tensor;
}

void mask_input(op_build *b, int64_t batch, uint32_t masked) {
    op_input *input = record(b, ftr_batch_mask(b->graph, batch), FILL_UNIFORM, 0, 1);
    for (int64_t i = 0; i < batch; i++) {
        input->values[i] = !(masked >> (i % 32) & 1);
    }
}

void output(op_build *b, ftr_tensor tensor) {
    FTR_TEST_GRAPH_OK(b->graph);
    assert_true(b->output_count < OP_MAX_OUTPUTS);
    b->outputs[b->output_count++] = tensor;
}

bool is_real(ftr_dtype dtype) { return is_float(dtype); }

ftr_dtype wide_type(const op_build *b) { return is_half(b->real) ? FTR_F32 : b->real; }

ftr_tensor as_real(const op_build *b, ftr_tensor tensor) {
    return ftr_dtype_of(tensor) == b->real ? tensor : ftr_cast(tensor, b->real);
}

ftr_tensor wide_input(op_build *b, ftr_shape shape, fill kind, double low, double high) {
    op_input *input = declare(b, wide_type(b), shape, kind, low, high);
    input->wanted = true;
    return input->tensor;
}

const ftr_dtype all_types[] = {FTR_DTYPE_NONE /* the case's real type */, FTR_I32, FTR_I64, FTR_U8, FTR_BOOL};

ftr_dtype type_of(const op_build *b, int32_t index) { return index ? all_types[index] : b->real; }

ftr_shape random_shape(op_build *b, int32_t rank, int64_t largest) {
    ftr_shape shape = {.rank = rank};
    for (int32_t d = 0; d < rank; d++) {
        shape.dim[d] = ftr_test_integer(&b->rng, 1, largest);
    }
    return shape;
}

/* --------------------------------------------------------------------------------------------------------- table -- */

op_case *add(table *t, void (*build)(op_build *), int flags, const char *format, ...) {
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 256;
        t->cases = realloc(t->cases, (size_t)t->capacity * sizeof *t->cases);
    }
    op_case *c = &t->cases[t->count++];
    *c = (op_case){.build = build, .flags = flags};
    va_list args;
    va_start(args, format);
    vsnprintf(c->name, sizeof c->name, format, args);
    va_end(args);
    return c;
}

const char *type_name(int32_t i) { return i ? ftr_dtype_name(all_types[i]) : "real"; }

/* ----------------------------------------------------------------------------------------------- building a case -- */

/* Values of parameters and buffers, which otherwise would be the library's random ones; variances stay positive. */
static void fill_variables(op_build *b) {
    for (int32_t i = 0; i < ftr_variable_count(b->graph); i++) {
        ftr_tensor variable = ftr_variable_at(b->graph, i);
        ftr_shape shape = ftr_shape_of(variable);
        int64_t count = ftr_shape_count(&shape);
        size_t bytes = (size_t)count * ftr_dtype_size(ftr_dtype_of(variable));
        double *values = calloc((size_t)count + 1, sizeof *values);
        void *data = calloc(1, bytes + 1);
        bool variance = strstr(ftr_name_of(variable), "running_var") != NULL;
        draw(&b->rng, FILL_UNIFORM, variance ? 0.5 : -1, variance ? 2 : 1, values, count);
        op_from_double(ftr_dtype_of(variable), values, count, data);
        ftr_status status = ftr_variable_write(variable, data, bytes);
        free(values);
        free(data);
        assert_int_equal(status, FTR_OK);
    }
}

/* loss = sum over outputs of sum(output * weights), the weights being inputs. */
static void add_loss(op_build *b) {
    b->first_weight = b->input_count;
    if (b->of->flags & OP_NO_LOSS) {
        return;
    }
    for (int32_t i = 0; i < b->output_count; i++) {
        if (!is_real(ftr_dtype_of(b->outputs[i]))) {
            continue;
        }
        ftr_tensor weights = declare(b, wide_type(b), ftr_shape_of(b->outputs[i]), FILL_UNIFORM, -1, 1)->tensor;
        bool wide = ftr_dtype_of(b->outputs[i]) == wide_type(b);
        ftr_tensor y = wide ? b->outputs[i] : ftr_cast(b->outputs[i], wide_type(b));
        ftr_tensor term = ftr_sum(ftr_mul(y, weights), ftr_all_axes(), false);
        b->loss = ftr_is_valid(b->loss) ? ftr_add(b->loss, term) : term;
    }
    FTR_TEST_GRAPH_OK(b->graph);
}

void op_build_case(const op_case *of, ftr_context *context, ftr_dtype real, op_build *b) {
    *b = (op_build){.of = of, .real = real};
    for (const char *c = of->name; *c; c++) {
        b->rng.state = b->rng.state * 31 + (unsigned char)*c;
    }
    b->graph = ftr_graph_create(context);
    assert_non_null(b->graph);
    of->build(b);
    add_loss(b);
    fill_variables(b);
}

void op_build_free(op_build *b) {
    ftr_graph_destroy(b->graph);
    for (int32_t i = 0; i < b->input_count; i++) {
        free(b->inputs[i].values);
    }
    *b = (op_build){0};
}

void op_to_double(ftr_dtype dtype, const void *data, int64_t count, double *values) {
    for (int64_t i = 0; i < count; i++) {
        switch (dtype) {
        case FTR_F32: values[i] = ((const float *)data)[i]; break;
        case FTR_F64: values[i] = ((const double *)data)[i]; break;
        case FTR_I32: values[i] = ((const int32_t *)data)[i]; break;
        case FTR_I64: values[i] = (double)((const int64_t *)data)[i]; break;
        case FTR_F16:
        case FTR_BF16: values[i] = half_to_double(dtype, ((const uint16_t *)data)[i]); break;
        default: values[i] = ((const uint8_t *)data)[i]; break;
        }
    }
}

void op_from_double(ftr_dtype dtype, const double *values, int64_t count, void *data) {
    for (int64_t i = 0; i < count; i++) {
        switch (dtype) {
        case FTR_F16:
        case FTR_BF16: ((uint16_t *)data)[i] = half_bits(dtype, values[i]); break;
        case FTR_F32: ((float *)data)[i] = (float)values[i]; break;
        case FTR_F64: ((double *)data)[i] = values[i]; break;
        case FTR_I32: ((int32_t *)data)[i] = (int32_t)values[i]; break;
        case FTR_I64: ((int64_t *)data)[i] = (int64_t)values[i]; break;
        default: ((uint8_t *)data)[i] = (uint8_t)values[i]; break;
        }
    }
}

ftr_status op_feed(ftr_plan *plan, const op_build *b, int32_t i, const double *values) {
    const op_input *input = &b->inputs[i];
    size_t bytes = (size_t)input->count * ftr_dtype_size(ftr_dtype_of(input->tensor));
    void *data = malloc(bytes + 1);
    op_from_double(ftr_dtype_of(input->tensor), values, input->count, data);
    ftr_status status = ftr_feed(plan, input->tensor, data, bytes);
    free(data);
    return status;
}
