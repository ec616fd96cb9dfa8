/* Mistakes outside the ops: contexts, sources of a graph, compiling, feeding, reading, optimizers. Each gives its status and
 * its exact sentence. (Mistakes with ops are in tests/ops, with files in tests/io, with training in tests/train.) */
#include "ftr_test.h"

/* A small linear model, compiled for training, and one mistake. */
typedef struct bench {
    ftr_context *context;
    ftr_graph *graph, *other;
    ftr_tensor x, y, labels, weight, output, loss, vector, count, elsewhere;
    ftr_plan *plan;
} bench;

typedef struct mistake {
    const char *name;
    ftr_status status;
    const char *sentence;
    ftr_status (*make)(bench *b);
} mistake;

static ftr_status compile(bench *b, ftr_compile_desc desc) {
    ftr_plan *plan = (ftr_plan *)1;
    const ftr_status status = ftr_compile(b->graph, &desc, &plan);
    if (status != FTR_OK) assert_null(plan);
    else ftr_plan_destroy(plan);
    return status;
}

static ftr_status built(bench *b) { return ftr_graph_status(b->graph); }

/* -------------------------------------------------------------------------------------------- sources of a graph -- */

static ftr_status input_without_name(bench *b) {
    ftr_input(b->graph, "", FTR_F32, FTR_SHAPE(2));
    return built(b);
}

static ftr_status input_null_name(bench *b) {
    ftr_input(b->graph, NULL, FTR_F32, FTR_SHAPE(2));
    return built(b);
}

static ftr_status input_twice(bench *b) {
    ftr_input(b->graph, "x", FTR_F32, FTR_SHAPE(2));
    return built(b);
}

static ftr_status input_dtype(bench *b) {
    ftr_input(b->graph, "z", (ftr_dtype)99, FTR_SHAPE(2));
    return built(b);
}

static ftr_status input_rank(bench *b) {
    ftr_input(b->graph, "z", FTR_F32, (ftr_shape){7, {1, 1, 1, 1, 1, 1}});
    return built(b);
}

static ftr_status input_negative(bench *b) {
    ftr_input(b->graph, "z", FTR_F32, FTR_SHAPE(4, -2));
    return built(b);
}

static ftr_status input_too_large(bench *b) {
    ftr_input(b->graph, "z", FTR_F32, FTR_SHAPE(INT64_MAX, 16));
    return built(b);
}

static ftr_status parameter_late(bench *b) {
    ftr_parameter(b->graph, "late", FTR_F32, FTR_SHAPE(2), (ftr_init){0});
    return built(b);
}

static ftr_status parameter_twice(bench *b) {
    ftr_graph *g = b->other;
    ftr_parameter(g, "w", FTR_F32, FTR_SHAPE(2), (ftr_init){0});
    ftr_buffer(g, "w", FTR_F32, FTR_SHAPE(3), (ftr_init){0});
    return ftr_graph_status(g);
}

static ftr_status parameter_integer(bench *b) {
    ftr_parameter(b->other, "w", FTR_I32, FTR_SHAPE(2), (ftr_init){0});
    return ftr_graph_status(b->other);
}

static ftr_status parameter_init_kind(bench *b) {
    ftr_parameter(b->other, "w", FTR_F32, FTR_SHAPE(2), (ftr_init){(ftr_init_kind)42, 0, 0});
    return ftr_graph_status(b->other);
}

static ftr_status parameter_init_nan(bench *b) {
    ftr_parameter(b->other, "w", FTR_F32, FTR_SHAPE(2), (ftr_init){FTR_INIT_NORMAL, (double)NAN, 1});
    return ftr_graph_status(b->other);
}

static ftr_status buffer_random_integers(bench *b) {
    ftr_buffer(b->other, "n", FTR_I64, FTR_SHAPE(2), (ftr_init){FTR_INIT_UNIFORM, 0, 1});
    return ftr_graph_status(b->other);
}

static ftr_status constant_without_data(bench *b) {
    ftr_constant(b->graph, FTR_F32, FTR_SHAPE(2, 3), NULL);
    return built(b);
}

static ftr_status constant_dtype(bench *b) {
    ftr_scalar(b->graph, FTR_DTYPE_NONE, 1.0);
    return built(b);
}

static ftr_status scope_empty(bench *b) {
    ftr_scope_push(b->graph, "");
    return built(b);
}

static ftr_status scope_underflow(bench *b) {
    ftr_scope_pop(b->graph);
    return built(b);
}

static ftr_status scope_too_deep(bench *b) {
    for (int i = 0; i < 100; i++) ftr_scope_push(b->graph, "abc");
    return built(b);
}

static ftr_status mask_twice(bench *b) {
    ftr_batch_mask(b->graph, 4);
    ftr_batch_mask(b->graph, 4);
    return built(b);
}

static ftr_status mask_of_nothing(bench *b) {
    ftr_batch_mask(b->graph, 0);
    return built(b);
}

/* Builders of a user's own. */
static ftr_status own_builder(bench *b) {
    ftr_scope_push(b->graph, "backbone");
    const ftr_tensor x = ftr_graph_fail(b->graph, FTR_ERROR_RANK, "my_block", "stem", "input has rank %d, expected %s", 3, "4");
    assert_false(ftr_is_valid(x));
    return built(b);
}

static ftr_status own_builder_without_name(bench *b) {
    ftr_graph_fail(b->graph, FTR_OK, "my_block", NULL, "depth is %lld", 7LL);
    return built(b);
}

static ftr_status own_builder_without_words(bench *b) {
    ftr_scope_push(b->graph, "backbone");
    ftr_graph_fail(b->graph, FTR_ERROR_NAME, NULL, "", "%s", "no words");
    return built(b);
}

static ftr_status own_builder_later(bench *b) {
    ftr_graph_fail(NULL, FTR_ERROR_NAME, "my_block", NULL, "nowhere to report");
    ftr_scope_push(b->graph, "");
    ftr_graph_fail(b->graph, FTR_ERROR_RANK, "my_block", NULL, "later");
    return built(b);
}

static ftr_status two_graphs(bench *b) {
    ftr_add(b->x, b->elsewhere);
    return built(b);
}

static ftr_status null_operand(bench *b) {
    ftr_add(b->x, (ftr_tensor){NULL, 0});
    return built(b);
}

static ftr_status forged_handle(bench *b) {
    ftr_add(b->x, (ftr_tensor){b->graph, 4711});
    return built(b);
}

static ftr_status layers_that_do_not_fit(bench *b) {
    const ftr_tensor h = ftr_linear(ftr_input(b->other, "x", FTR_F32, FTR_SHAPE(8, 3)), "fc1", 5, NULL);
    const ftr_tensor w = ftr_parameter(b->other, "fc2.weight", FTR_F32, FTR_SHAPE(2, 6), (ftr_init){0});
    ftr_linear_with(h, w, (ftr_tensor){NULL, 0});
    return ftr_graph_status(b->other);
}

/* ----------------------------------------------------------------------------------------------------- compiling -- */

static ftr_status compile_nothing(bench *b) { return compile(b, (ftr_compile_desc){0}); }

static ftr_status compile_mode(bench *b) { return compile(b, (ftr_compile_desc){.loss = b->loss, .mode = (ftr_mode)7}); }

static ftr_status compile_null_output(bench *b) {
    const ftr_tensor outputs[2] = {b->output, {NULL, 0}};
    return compile(b, (ftr_compile_desc){.outputs = outputs, .output_count = 2});
}

static ftr_status compile_count_without_list(bench *b) { return compile(b, (ftr_compile_desc){.output_count = 2}); }

static ftr_status compile_negative_count(bench *b) {
    return compile(b, (ftr_compile_desc){.loss = b->loss, .gradients_of = &b->x, .gradient_count = -1});
}

static ftr_status compile_foreign_loss(bench *b) { return compile(b, (ftr_compile_desc){.loss = b->elsewhere}); }

static ftr_status compile_vector_loss(bench *b) {
    return compile(b, (ftr_compile_desc){.loss = b->vector, .gradients_of = &b->x, .gradient_count = 1});
}

static ftr_status compile_integer_loss(bench *b) {
    return compile(b, (ftr_compile_desc){.loss = b->count, .gradients_of = &b->x, .gradient_count = 1});
}

static ftr_status compile_gradient_without_loss(bench *b) {
    return compile(b, (ftr_compile_desc){.outputs = &b->output, .output_count = 1, .gradients_of = &b->x, .gradient_count = 1});
}

static ftr_status compile_optimizer_without_loss(bench *b) {
    const ftr_optimizer sgd = ftr_sgd(0.1);
    return compile(b, (ftr_compile_desc){.outputs = &b->output, .output_count = 1, .optimizer = &sgd});
}

static ftr_status compile_gradient_of_labels(bench *b) {
    return compile(b, (ftr_compile_desc){.loss = b->loss, .gradients_of = &b->labels, .gradient_count = 1});
}

static ftr_status compile_gradient_of_unrelated(bench *b) {
    return compile(b, (ftr_compile_desc){.loss = b->loss, .gradients_of = &b->y, .gradient_count = 1});
}

static ftr_status compile_gradient_through_argmax(bench *b) {
    const ftr_tensor loss = ftr_accuracy(b->output, b->labels);
    return compile(b, (ftr_compile_desc){.loss = loss, .gradients_of = &b->weight, .gradient_count = 1});
}

static ftr_status compile_optimizer_without_parameters(bench *b) {
    const ftr_optimizer sgd = ftr_sgd(0.1);
    const ftr_tensor loss = ftr_sum(b->x, ftr_all_axes(), false);
    return compile(b, (ftr_compile_desc){.loss = loss, .optimizer = &sgd});
}

static ftr_status compile_f64(bench *b) {
    const ftr_tensor z = ftr_exp(ftr_cast(b->x, FTR_F64));
    return compile(b, (ftr_compile_desc){.outputs = &z, .output_count = 1});
}

static ftr_status compile_null_desc(bench *b) {
    ftr_plan *plan;
    return ftr_compile(b->graph, NULL, &plan);
}

static ftr_status optimizer(bench *b, ftr_optimizer o) {
    return compile(b, (ftr_compile_desc){.loss = b->loss, .optimizer = &o});
}

static ftr_status optimizer_cookie(bench *b) { return optimizer(b, (ftr_optimizer){.kind = FTR_OPTIMIZER_SGD, .lr = 0.1}); }

static ftr_status optimizer_kind(bench *b) {
    ftr_optimizer o = ftr_sgd(0.1);
    o.kind = (ftr_optimizer_kind)17;
    return optimizer(b, o);
}

static ftr_status optimizer_lr(bench *b) { return optimizer(b, ftr_sgd(-0.5)); }

static ftr_status optimizer_lr_nan(bench *b) { return optimizer(b, ftr_adamw((double)NAN)); }

static ftr_status optimizer_beta(bench *b) {
    ftr_optimizer o = ftr_adamw(0.1);
    o.beta2 = 1.0;
    return optimizer(b, o);
}

static ftr_status optimizer_nesterov(bench *b) {
    ftr_optimizer o = ftr_sgd(0.1);
    o.nesterov = true;
    return optimizer(b, o);
}

/* ------------------------------------------------------------------------------------------- feeding and reading -- */

static ftr_status never_fed(bench *b) { return ftr_step(b->plan, NULL); }

static ftr_status feed_larger_batch(bench *b) {
    const float data[16 * 3] = {0};
    return ftr_feed(b->plan, b->x, data, sizeof data);
}

static ftr_status feed_part_of_a_row(bench *b) {
    const float data[5] = {0};
    return ftr_feed(b->plan, b->x, data, sizeof data);
}

static ftr_status feed_null_data(bench *b) { return ftr_feed(b->plan, b->x, NULL, 8 * 3 * sizeof(float)); }

static ftr_status feed_null_tensor(bench *b) { return ftr_feed(b->plan, (ftr_tensor){NULL, 0}, "", 1); }

static ftr_status feed_a_result(bench *b) { return ftr_feed(b->plan, b->output, "", 1); }

static ftr_status feed_a_parameter(bench *b) { return ftr_feed(b->plan, b->weight, "", 1); }

static ftr_status memory_of_a_result(bench *b) {
    assert_null(ftr_input_memory(b->plan, b->output));
    return ftr_error_status(b->context);
}

static ftr_status memory_of_an_unused_input(bench *b) {
    assert_null(ftr_input_memory(b->plan, b->y));
    return ftr_error_status(b->context);
}

static ftr_status read_before_a_step(bench *b) {
    float loss;
    return ftr_read(b->plan, b->loss, &loss, sizeof loss);
}

static ftr_status read_what_is_not_kept(bench *b) {
    float data[8 * 2];
    return ftr_read(b->plan, b->output, data, sizeof data);
}

static ftr_status read_wrong_size(bench *b) {
    float data[2];
    return ftr_read(b->plan, b->loss, data, sizeof data);
}

static ftr_status read_null_tensor(bench *b) {
    float data[1];
    return ftr_read(b->plan, (ftr_tensor){NULL, 0}, data, sizeof data);
}

static ftr_status read_later_tensor(bench *b) {
    float data[8 * 3];
    const ftr_tensor later = ftr_relu(b->x);
    return ftr_read(b->plan, later, data, sizeof data);
}

static ftr_status gradient_not_asked_for(bench *b) {
    float data[8 * 3];
    return ftr_read_gradient(b->plan, b->x, data, sizeof data);
}

static ftr_status lr_negative(bench *b) { return ftr_plan_set_lr(b->plan, -1.0); }

static ftr_status lr_without_optimizer(bench *b) {
    ftr_plan *plan;
    FTR_TEST_OK(b->context, ftr_compile(b->graph, &(ftr_compile_desc){.loss = b->loss}, &plan));
    const ftr_status status = ftr_plan_set_lr(plan, 0.1);
    ftr_plan_destroy(plan);
    return status;
}

static ftr_status variable_wrong_size(bench *b) {
    float data[5];
    return ftr_variable_read(b->weight, data, sizeof data);
}

static ftr_status variable_null_data(bench *b) { return ftr_variable_write(b->weight, NULL, 6 * sizeof(float)); }

static ftr_status variable_of_an_input(bench *b) {
    float data[8 * 3];
    return ftr_variable_read(b->x, data, sizeof data);
}

static ftr_status print_format(bench *b) {
    return ftr_graph_print(b->graph, (ftr_graph_format)5, ftr_write_file, stderr);
}

static ftr_status print_without_writer(bench *b) { return ftr_plan_print(b->plan, FTR_GRAPH_TEXT, NULL, NULL); }

#define ROW(make, status, sentence) {#make, status, sentence, make}

static const mistake mistakes[] = {
    ROW(input_without_name, FTR_ERROR_NAME, "input: the name is empty"),
    ROW(input_null_name, FTR_ERROR_NAME, "input: the name is empty"),
    ROW(input_twice, FTR_ERROR_NAME, "input 'x': the name is used by another input"),
    ROW(input_dtype, FTR_ERROR_DTYPE, "input 'z': dtype is 99, expected one of ftr_dtype"),
    ROW(input_rank, FTR_ERROR_RANK, "input 'z': rank is 7, expected 0 to 6"),
    ROW(input_negative, FTR_ERROR_SHAPE, "input 'z': shape [4, -2] has a negative or too large size"),
    ROW(input_too_large, FTR_ERROR_SHAPE,
        "input 'z': shape [9223372036854775807, 16] has a negative or too large size"),
    ROW(parameter_late, FTR_ERROR_STATE,
        "parameter 'late': declared after the graph was compiled, or a variable was read or written"),
    ROW(parameter_twice, FTR_ERROR_NAME, "buffer 'w': the name is used by another parameter or buffer"),
    ROW(parameter_integer, FTR_ERROR_DTYPE, "parameter 'w': dtype is i32, expected f32 or f64"),
    ROW(parameter_init_kind, FTR_ERROR_INVALID_ARGUMENT,
        "parameter 'w': init.kind is 42, expected one of ftr_init_kind"),
    ROW(parameter_init_nan, FTR_ERROR_INVALID_ARGUMENT, "parameter 'w': init.a and init.b must be finite"),
    ROW(buffer_random_integers, FTR_ERROR_INVALID_ARGUMENT,
        "buffer 'n': random values for i64, expected floating point"),
    ROW(constant_without_data, FTR_ERROR_INVALID_ARGUMENT, "constant: data is NULL, expected 24 bytes"),
    ROW(constant_dtype, FTR_ERROR_DTYPE, "constant: dtype is 0, expected one of ftr_dtype"),
    ROW(scope_empty, FTR_ERROR_NAME, "scope: the name is empty"),
    ROW(scope_underflow, FTR_ERROR_STATE, "scope: there is none to leave"),
    ROW(scope_too_deep, FTR_ERROR_NAME, "scope 'abc': nested names are longer than 255 characters"),
    ROW(mask_twice, FTR_ERROR_STATE, "batch_mask: the graph has one already"),
    ROW(mask_of_nothing, FTR_ERROR_SHAPE, "batch_mask: batch is 0, expected 1 or more"),
    ROW(own_builder, FTR_ERROR_RANK, "my_block 'backbone.stem': input has rank 3, expected 4"),
    ROW(own_builder_without_name, FTR_ERROR_INVALID_ARGUMENT, "my_block: depth is 7"),
    ROW(own_builder_without_words, FTR_ERROR_NAME, "graph 'backbone': no words"),
    ROW(own_builder_later, FTR_ERROR_NAME, "scope: the name is empty"),
    ROW(two_graphs, FTR_ERROR_INVALID_TENSOR, "add: input 1 belongs to another graph"),
    ROW(null_operand, FTR_ERROR_INVALID_TENSOR, "add: input 1 is a null tensor"),
    ROW(forged_handle, FTR_ERROR_INVALID_TENSOR, "add: input 1 is a null tensor"),
    ROW(layers_that_do_not_fit, FTR_ERROR_SHAPE, "linear 'linear_6': input has 5 features, weight expects 6"),
    ROW(compile_nothing, FTR_ERROR_INVALID_ARGUMENT, "compile: neither loss nor outputs is given"),
    ROW(compile_mode, FTR_ERROR_INVALID_ARGUMENT, "compile: mode is 7, expected one of ftr_mode"),
    ROW(compile_null_output, FTR_ERROR_INVALID_TENSOR, "compile: outputs[1] is a null tensor"),
    ROW(compile_count_without_list, FTR_ERROR_INVALID_ARGUMENT, "compile: outputs is NULL with a count of 2"),
    ROW(compile_negative_count, FTR_ERROR_INVALID_ARGUMENT, "compile: gradients_of is given with a count of -1"),
    ROW(compile_foreign_loss, FTR_ERROR_INVALID_TENSOR, "compile: loss belongs to another graph"),
    ROW(compile_vector_loss, FTR_ERROR_SHAPE, "loss 'relu_12': shape is [8, 2], expected a scalar"),
    ROW(compile_integer_loss, FTR_ERROR_DTYPE, "loss 'sum_13': dtype is i32, expected f32 or f64"),
    ROW(compile_gradient_without_loss, FTR_ERROR_INVALID_ARGUMENT, "compile: gradients_of is given without a loss"),
    ROW(compile_optimizer_without_loss, FTR_ERROR_INVALID_ARGUMENT, "compile: optimizer is given without a loss"),
    ROW(compile_gradient_of_labels, FTR_ERROR_DTYPE, "gradient of 'labels': dtype is i32, expected floating point"),
    ROW(compile_gradient_of_unrelated, FTR_ERROR_NOT_DIFFERENTIABLE, "gradient of 'y': the loss does not depend on it"),
    ROW(compile_gradient_through_argmax, FTR_ERROR_NOT_DIFFERENTIABLE,
        "gradient of 'fc.weight': the loss depends on it only through argmax 'argmax_14', which has no gradient"),
    ROW(compile_optimizer_without_parameters, FTR_ERROR_INVALID_ARGUMENT,
        "compile: optimizer is given, but the loss depends on no parameter"),
    ROW(compile_f64, FTR_ERROR_UNSUPPORTED, "cast 'cast_14': the cpu backend has no f64 kernels"),
    ROW(compile_null_desc, FTR_ERROR_INVALID_ARGUMENT, "compile: desc is NULL"),
    ROW(optimizer_cookie, FTR_ERROR_INVALID_ARGUMENT,
        "optimizer: the description was not made by ftr_sgd(), ftr_adamw() or another of them"),
    ROW(optimizer_kind, FTR_ERROR_INVALID_ARGUMENT, "optimizer: kind is 17, expected one of ftr_optimizer_kind"),
    ROW(optimizer_lr, FTR_ERROR_INVALID_ARGUMENT, "optimizer: lr is -0.5, expected at least 0 and below inf"),
    ROW(optimizer_lr_nan, FTR_ERROR_INVALID_ARGUMENT, "optimizer: lr is nan, expected at least 0 and below inf"),
    ROW(optimizer_beta, FTR_ERROR_INVALID_ARGUMENT, "optimizer: beta2 is 1, expected at least 0 and below 1"),
    ROW(optimizer_nesterov, FTR_ERROR_INVALID_ARGUMENT,
        "optimizer: nesterov with momentum 0 and dampening 0, expected momentum above 0 and dampening 0"),
    ROW(never_fed, FTR_ERROR_NOT_FED, "step: input 'x' (f32 [8, 3]) was never fed"),
    ROW(feed_larger_batch, FTR_ERROR_SHAPE,
        "input 'x': 192 bytes given, expected 96 (f32 [8, 3]): a batch of 16, planned for 8"),
    ROW(feed_part_of_a_row, FTR_ERROR_SHAPE, "input 'x': 20 bytes given, expected 96 (f32 [8, 3])"),
    ROW(feed_null_data, FTR_ERROR_INVALID_ARGUMENT, "input 'x': data is NULL"),
    ROW(feed_null_tensor, FTR_ERROR_INVALID_TENSOR, "feed: the tensor is null or belongs to another graph"),
    ROW(feed_a_result, FTR_ERROR_INVALID_TENSOR, "feed: linear 'fc' is not an input of the plan"),
    ROW(feed_a_parameter, FTR_ERROR_INVALID_TENSOR, "feed: parameter 'fc.weight' is not an input of the plan"),
    ROW(memory_of_a_result, FTR_ERROR_INVALID_TENSOR, "feed: linear 'fc' is not an input of the plan"),
    ROW(memory_of_an_unused_input, FTR_ERROR_STATE, "input 'y': the plan does not use it"),
    ROW(read_before_a_step, FTR_ERROR_STATE, "read 'cross_entropy_6': no step was run yet"),
    ROW(read_what_is_not_kept, FTR_ERROR_INVALID_TENSOR,
        "read: 'fc' is neither the loss, nor one of the plan's outputs, nor an input"),
    ROW(read_wrong_size, FTR_ERROR_SHAPE, "read 'cross_entropy_6': 8 bytes given, expected 4 (f32 [])"),
    ROW(read_null_tensor, FTR_ERROR_INVALID_TENSOR, "read: the tensor is null or unknown to the plan"),
    ROW(read_later_tensor, FTR_ERROR_INVALID_TENSOR, "read: the tensor is null or unknown to the plan"),
    ROW(gradient_not_asked_for, FTR_ERROR_INVALID_TENSOR, "read_gradient: the plan has no gradient of 'x'"),
    ROW(lr_negative, FTR_ERROR_INVALID_ARGUMENT, "set_lr: lr is -1, expected a finite number of 0 or more"),
    ROW(lr_without_optimizer, FTR_ERROR_STATE, "set_lr: the plan has no optimizer"),
    ROW(variable_wrong_size, FTR_ERROR_SHAPE, "variable 'fc.weight': 20 bytes given, expected 24"),
    ROW(variable_null_data, FTR_ERROR_INVALID_ARGUMENT, "variable 'fc.weight': data is NULL"),
    ROW(variable_of_an_input, FTR_ERROR_INVALID_TENSOR, "variable: the tensor is neither a parameter nor a buffer"),
    ROW(print_format, FTR_ERROR_INVALID_ARGUMENT, "graph_print: format is not one of ftr_graph_format"),
    ROW(print_without_writer, FTR_ERROR_INVALID_ARGUMENT, "plan_print: write is NULL"),
};

static int setup(void **state) {
    bench *b = calloc(1, sizeof *b);
    b->context = ftr_test_context();
    b->graph = ftr_graph_create(b->context);
    b->other = ftr_graph_create(b->context);
    b->x = ftr_input(b->graph, "x", FTR_F32, FTR_SHAPE(8, 3));
    b->y = ftr_input(b->graph, "y", FTR_F32, FTR_SHAPE(8, 3));
    b->labels = ftr_input(b->graph, "labels", FTR_I32, FTR_SHAPE(8));
    b->output = ftr_linear(b->x, "fc", 2, NULL);
    b->weight = ftr_variable_find(b->graph, "fc.weight");
    b->loss = ftr_cross_entropy(b->output, b->labels, NULL);
    const ftr_optimizer sgd = ftr_sgd(0.1);
    FTR_TEST_OK(b->context, ftr_compile(b->graph, &(ftr_compile_desc){.loss = b->loss, .optimizer = &sgd}, &b->plan));
    /* Nodes 7 to 11 are a reshape's and nothing else, so that the numbers in the sentences stay apart. */
    for (int i = 0; i < 5; i++) ftr_reshape(b->x, FTR_SHAPE(24));
    b->vector = ftr_relu(b->output);
    b->count = ftr_sum(b->labels, ftr_all_axes(), false);
    b->elsewhere = ftr_input(b->other, "elsewhere", FTR_F32, FTR_SHAPE(8, 3));
    FTR_TEST_GRAPH_OK(b->graph);
    *state = b;
    return 0;
}

static void expect_mistake(void **state) {
    const mistake *m = *state;
    void *made = NULL;
    setup(&made);
    bench *b = made;
    ftr_error_clear(b->context);
    assert_int_equal(m->make(b), m->status);
    assert_string_equal(ftr_error_message(b->context), m->sentence);
    assert_int_equal(ftr_error_status(b->context), m->status);
    ftr_plan_destroy(b->plan);
    ftr_graph_destroy(b->graph);
    ftr_graph_destroy(b->other);
    ftr_context_destroy(b->context);
    free(b);
}

/* A context that cannot be made tells its logger. */
static void bad_context(void **state) {
    (void)state;
    ftr_test_log *log = calloc(1, sizeof *log);
    ftr_test_memory memory = {0};
    ftr_allocator half = ftr_test_allocator(&memory);
    half.release = NULL;
    const ftr_backend future = {.version = FTR_BACKEND_VERSION + 1, .name = "future"};
    const ftr_context_desc descs[] = {
        {.threads = -1, .logger = ftr_test_logger(log)},
        {.threads = 100000, .logger = ftr_test_logger(log)},
        {.log_level = (ftr_log_level)9, .logger = ftr_test_logger(log)},
        {.allocator = half, .logger = ftr_test_logger(log)},
        {.backend = &future, .logger = ftr_test_logger(log)},
        {.device = "gpu", .logger = ftr_test_logger(log)},
        {.device = "cuda:", .logger = ftr_test_logger(log)},
        {.device = "cpu", .backend = ftr_cpu_backend(), .logger = ftr_test_logger(log)},
        {.device = "cuda:1", .logger = ftr_test_logger(log)}, /* the tests are built without the CUDA backend */
    };
    for (size_t i = 0; i < FTR_TEST_LENGTH(descs); i++) {
        ftr_context *context = (ftr_context *)1;
        const bool last = i + 1 == FTR_TEST_LENGTH(descs);
        assert_int_equal(ftr_context_create(&descs[i], &context), last ? FTR_ERROR_UNSUPPORTED : FTR_ERROR_INVALID_ARGUMENT);
        assert_null(context);
    }
    assert_string_equal(log->text, "context: threads is -1, expected 0 to 1024\n"
                                   "context: threads is 100000, expected 0 to 1024\n"
                                   "context: allocator.release is NULL, expected both or neither\n"
                                   "context: backend has version 3, expected 2\n"
                                   "context: device is 'gpu', expected cpu, cuda or cuda:NUMBER\n"
                                   "context: device is 'cuda:', expected cpu, cuda or cuda:NUMBER\n"
                                   "context: both backend 'cpu' and device 'cpu' are given\n"
                                   "context: device is 'cuda:1', but the program has no CUDA backend: compile it with "
                                   "-DFASTTRAIN_CUDA and link it with fasttrain_cuda.cu\n");
    assert_int_equal(ftr_context_create(NULL, NULL), FTR_ERROR_INVALID_ARGUMENT);
    free(log);
}

int main(void) {
    enum { COUNT = FTR_TEST_LENGTH(mistakes) };
    struct CMUnitTest tests[COUNT + 1];
    for (size_t i = 0; i < COUNT; i++)
        tests[i] = (struct CMUnitTest){.name = mistakes[i].name, .test_func = expect_mistake,
                                       .initial_state = (void *)(uintptr_t)&mistakes[i]};
    tests[COUNT] = (struct CMUnitTest)cmocka_unit_test(bad_context);
    return cmocka_run_group_tests_name("errors", tests, NULL, NULL);
}
