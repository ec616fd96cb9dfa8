/* Mistakes in descriptions of optimizers, parameter groups and schedules, and with the optimizer's state: each gives
 * its status and its exact sentence, and no plan. */
#include "ftr_test.h"

static ftr_param_group groups[2];

typedef struct bad_optimizer {
    ftr_optimizer (*make)(double lr);
    void (*spoil)(ftr_optimizer *o);
    ftr_status status;
    const char *sentence;
} bad_optimizer;

#define SPOIL(name, change)                                                                                            \
    static void name(ftr_optimizer *o) { change; }

static void add_groups(ftr_optimizer *o, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        groups[i] = ftr_param_group_defaults();
        groups[i].pattern = "fc.*";
    }
    o->groups = groups;
    o->group_count = count;
}

SPOIL(kind_none, o->kind = FTR_OPTIMIZER_NONE)
SPOIL(kind_large, o->kind = (ftr_optimizer_kind)11)
SPOIL(clip, o->clip_value = -1)
SPOIL(clip_nan, o->clip_value = (double)NAN)
SPOIL(decay, o->weight_decay = (double)INFINITY)
SPOIL(momentum, o->momentum = -0.5)
SPOIL(momentum_1, o->momentum = 1)
SPOIL(dampening, o->dampening = -(double)INFINITY)
SPOIL(beta1, o->beta1 = -0.1)
SPOIL(eps, o->eps = -1e-8)
SPOIL(alpha, o->alpha = 1)
SPOIL(lr_decay, o->lr_decay = -1)
SPOIL(initial, o->initial_accumulator = -1)
SPOIL(norm, o->max_grad_norm = -1)
SPOIL(both_clips, o->clip_value = 0.5)
SPOIL(trust, o->trust_coefficient = (double)NAN)
SPOIL(beta2_decay, o->beta2_decay = 0.5)
SPOIL(beta2_decay_nan, o->beta2_decay = (double)NAN)
SPOIL(parameter_eps, o->parameter_eps = -1)
SPOIL(threshold, o->clip_threshold = 0.5)
SPOIL(coefficient, o->ns_coefficients[1] = (double)NAN)
SPOIL(ns_eps, o->ns_eps = -1)
SPOIL(ns_steps, o->ns_steps = 0)
SPOIL(rate, o->rate = (ftr_muon_rate)3)
SPOIL(adamw_scale, o->adamw_lr_scale = -2)
SPOIL(state_i32, o->state_dtype = FTR_I32)
SPOIL(state_f16, o->state_dtype = FTR_F16)
SPOIL(state_bf16, o->state_dtype = FTR_BF16)
SPOIL(lars_nesterov, o->nesterov = true)
SPOIL(count, o->group_count = 1)
SPOIL(count_negative, o->groups = groups; o->group_count = -1)
SPOIL(group_cookie, add_groups(o, 2); groups[1].cookie = 0)
SPOIL(group_pattern, add_groups(o, 1); groups[0].pattern = NULL)
SPOIL(group_unknown, add_groups(o, 2); groups[1].pattern = "head.*")
SPOIL(group_buffer, add_groups(o, 1); groups[0].pattern = "running")
SPOIL(group_scale, add_groups(o, 1); groups[0].lr_scale = -1)
SPOIL(group_scale_nan, add_groups(o, 1); groups[0].lr_scale = (double)NAN)
SPOIL(group_decay, add_groups(o, 2); groups[1].weight_decay = -0.25)
SPOIL(group_beta, add_groups(o, 1); groups[0].beta2 = 1)
SPOIL(group_momentum, add_groups(o, 1); groups[0].momentum = 1)
SPOIL(group_kind, add_groups(o, 1); groups[0].kind = FTR_OPTIMIZER_ADAMW)
SPOIL(group_kind_muon, add_groups(o, 1); groups[0].kind = FTR_OPTIMIZER_SGD)
SPOIL(group_nesterov, add_groups(o, 1); o->nesterov = true; o->momentum = 0.9; groups[0].momentum = 0)

#define BAD(make, spoil, sentence)                                                                                     \
    { make, spoil, FTR_ERROR_INVALID_ARGUMENT, sentence }

static const bad_optimizer bad_optimizers[] = {
    BAD(ftr_sgd, kind_none, "optimizer: kind is 0, expected one of ftr_optimizer_kind"),
    BAD(ftr_sgd, kind_large, "optimizer: kind is 11, expected one of ftr_optimizer_kind"),
    BAD(ftr_lion, clip, "optimizer: clip_value is -1, expected at least 0 and below inf"),
    BAD(ftr_sgd, clip_nan, "optimizer: clip_value is nan, expected at least 0 and below inf"),
    BAD(ftr_adam, decay, "optimizer: weight_decay is inf, expected at least 0 and below inf"),
    BAD(ftr_rmsprop, momentum, "optimizer: momentum is -0.5, expected at least 0 and below inf"),
    BAD(ftr_muon, momentum_1, "optimizer: momentum is 1, expected at least 0 and below 1"),
    BAD(ftr_lars, dampening, "optimizer: dampening is -inf, expected at least -inf and below inf"),
    BAD(ftr_lamb, beta1, "optimizer: beta1 is -0.1, expected at least 0 and below 1"),
    BAD(ftr_adagrad, eps, "optimizer: eps is -1e-08, expected at least 0 and below inf"),
    BAD(ftr_rmsprop, alpha, "optimizer: alpha is 1, expected at least 0 and below 1"),
    BAD(ftr_adagrad, lr_decay, "optimizer: lr_decay is -1, expected at least 0 and below inf"),
    BAD(ftr_adagrad, initial, "optimizer: initial_accumulator is -1, expected at least 0 and below inf"),
    BAD(ftr_lamb, norm, "optimizer: max_grad_norm is -1, expected at least 0 and below inf"),
    BAD(ftr_lamb, both_clips,
        "optimizer: max_grad_norm is 1 and clip_value is 0.5, expected one of them to be 0 (off)"),
    BAD(ftr_lars, trust, "optimizer: trust_coefficient is nan, expected at least 0 and below inf"),
    BAD(ftr_adafactor, beta2_decay, "optimizer: beta2_decay is 0.5, expected a finite number of 0 or less"),
    BAD(ftr_adafactor, beta2_decay_nan, "optimizer: beta2_decay is nan, expected a finite number of 0 or less"),
    BAD(ftr_adafactor, parameter_eps, "optimizer: parameter_eps is -1, expected at least 0 and below inf"),
    BAD(ftr_adafactor, threshold, "optimizer: clip_threshold is 0.5, expected at least 1 and below inf"),
    BAD(ftr_muon, coefficient, "optimizer: ns_coefficients[1] is nan, expected at least -inf and below inf"),
    BAD(ftr_muon, ns_eps, "optimizer: ns_eps is -1, expected at least 0 and below inf"),
    BAD(ftr_muon, ns_steps, "optimizer: ns_steps is 0, expected 1 to 99"),
    BAD(ftr_muon, rate, "optimizer: rate is 3, expected one of ftr_muon_rate"),
    BAD(ftr_muon, adamw_scale, "optimizer: adamw_lr_scale is -2, expected at least 0 and below inf"),
    {ftr_adam, state_i32, FTR_ERROR_DTYPE, "optimizer: state_dtype is i32, expected f32 or bf16"},
    {ftr_sgd, state_f16, FTR_ERROR_DTYPE, "optimizer: state_dtype is f16, expected f32 or bf16"},
    {ftr_adafactor, state_bf16, FTR_ERROR_UNSUPPORTED,
     "optimizer: state_dtype is bf16, expected f32: Adafactor's state is not elementwise"},
    BAD(ftr_lars, lars_nesterov,
        "optimizer: nesterov with momentum 0 and dampening 0, expected momentum above 0 and dampening 0"),
    BAD(ftr_sgd, count, "optimizer: groups is NULL with a group_count of 1"),
    BAD(ftr_sgd, count_negative, "optimizer: groups is given with a group_count of -1"),
    BAD(ftr_sgd, group_cookie, "optimizer: groups[1] was not made by ftr_param_group_defaults()"),
    BAD(ftr_sgd, group_pattern, "optimizer: groups[0].pattern is NULL"),
    {ftr_sgd, group_unknown, FTR_ERROR_NAME,
     "optimizer: groups[1].pattern 'head.*' fits none of the graph's 2 parameters"},
    {ftr_sgd, group_buffer, FTR_ERROR_NAME,
     "optimizer: groups[0].pattern 'running' fits none of the graph's 2 parameters"},
    BAD(ftr_sgd, group_scale, "optimizer: groups[0].lr_scale is -1, expected at least 0 and below inf"),
    BAD(ftr_sgd, group_scale_nan, "optimizer: groups[0].lr_scale is nan, expected at least 0 and below inf"),
    BAD(ftr_sgd, group_decay, "optimizer: groups[1].weight_decay is -0.25, expected at least 0 and below inf"),
    BAD(ftr_adamw, group_beta, "optimizer: groups[0].beta2 is 1, expected at least 0 and below 1"),
    BAD(ftr_muon, group_momentum, "optimizer: groups[0].momentum is 1, expected at least 0 and below 1"),
    BAD(ftr_sgd, group_kind,
        "optimizer: groups[0].kind is 2, expected FTR_OPTIMIZER_NONE, or FTR_OPTIMIZER_ADAMW under ftr_muon()"),
    BAD(ftr_muon, group_kind_muon,
        "optimizer: groups[0].kind is 1, expected FTR_OPTIMIZER_NONE, or FTR_OPTIMIZER_ADAMW under ftr_muon()"),
    BAD(ftr_sgd, group_nesterov,
        "optimizer: nesterov with momentum 0 and dampening 0, expected momentum above 0 and dampening 0"),
};

/* A linear layer and a buffer that no step uses. */
typedef struct bench {
    ftr_context *context;
    ftr_graph *graph;
    ftr_tensor loss;
} bench;

static bench begin(void) {
    bench b = {.context = ftr_test_context()};
    b.graph = ftr_graph_create(b.context);
    ftr_buffer(b.graph, "running", FTR_F32, FTR_SHAPE(2), (ftr_init){0});
    b.loss =
        ftr_mean(ftr_linear(ftr_input(b.graph, "x", FTR_F32, FTR_SHAPE(2, 3)), "fc", 4, NULL), ftr_all_axes(), false);
    return b;
}

static void end(bench *b) {
    ftr_graph_destroy(b->graph);
    ftr_context_destroy(b->context);
}

static void expect_last(const bench *b, ftr_status found, ftr_status status, const char *sentence) {
    assert_string_equal(ftr_error_message(b->context), sentence);
    assert_int_equal(found, status);
    assert_int_equal(ftr_error_status(b->context), status);
}

static void test_optimizers(void **state) {
    (void)state;
    bench b = begin();
    for (size_t i = 0; i < FTR_TEST_LENGTH(bad_optimizers); i++) {
        ftr_optimizer o = bad_optimizers[i].make(0.1);
        bad_optimizers[i].spoil(&o);
        ftr_plan *plan = (ftr_plan *)1;
        ftr_error_clear(b.context);
        ftr_status status = ftr_compile(b.graph, &(ftr_compile_desc){.loss = b.loss, .optimizer = &o}, &plan);
        expect_last(&b, status, bad_optimizers[i].status, bad_optimizers[i].sentence);
        assert_null(plan);
    }
    end(&b);
}

/* A field counts only for the kinds that use it, and a pattern may fit what is frozen. */
static void test_what_is_allowed(void **state) {
    (void)state;
    bench b = begin();
    ftr_optimizer o = ftr_sgd(0.1);
    o.clip_threshold = -1, o.ns_steps = -1, o.alpha = 7, o.rate = (ftr_muon_rate)9, o.beta2_decay = 3;
    add_groups(&o, 2);
    groups[1].pattern = "fc.bias";
    FTR_TEST_OK(b.context, ftr_freeze(b.graph, "fc.bias", NULL));
    ftr_plan *plan = NULL;
    FTR_TEST_OK(b.context, ftr_compile(b.graph, &(ftr_compile_desc){.loss = b.loss, .optimizer = &o}, &plan));
    ftr_plan_destroy(plan);
    end(&b);
}

/* --------------------------------------------------------------------------------------------------------- state -- */

static void test_state(void **state) {
    (void)state;
    bench b = begin();
    ftr_optimizer o = ftr_adamw(0.1);
    ftr_plan *plan = NULL, *plain = NULL;
    FTR_TEST_OK(b.context, ftr_compile(b.graph, &(ftr_compile_desc){.loss = b.loss, .optimizer = &o}, &plan));
    FTR_TEST_OK(b.context, ftr_compile(b.graph, &(ftr_compile_desc){.loss = b.loss}, &plain));
    ftr_plan_state info;
    float data[12];
    expect_last(&b, ftr_plan_state_at(plan, 6, &info), FTR_ERROR_INVALID_ARGUMENT,
                "plan_state_at: index is 6, the plan has 6 states");
    assert_null(info.name);
    expect_last(&b, ftr_plan_state_at(plan, -1, &info), FTR_ERROR_INVALID_ARGUMENT,
                "plan_state_at: index is -1, the plan has 6 states");
    expect_last(&b, ftr_plan_state_read(plan, "fc.weight", data, sizeof data), FTR_ERROR_NAME,
                "plan_state_read: the plan has no state 'fc.weight'");
    expect_last(&b, ftr_plan_state_write(plan, NULL, data, sizeof data), FTR_ERROR_INVALID_ARGUMENT,
                "plan_state_write: name is NULL");
    expect_last(&b, ftr_plan_state_read(plan, "fc.weight.exp_avg", data, 44), FTR_ERROR_SHAPE,
                "plan_state_read 'fc.weight.exp_avg': 44 bytes given, expected 48 (f32 [4, 3])");
    expect_last(&b, ftr_plan_state_write(plan, "optimizer.step", data, 4), FTR_ERROR_SHAPE,
                "plan_state_write 'optimizer.step': 4 bytes given, expected 8 (i64 [])");
    expect_last(&b, ftr_plan_state_write(plan, "fc.bias.exp_avg_sq", NULL, 16), FTR_ERROR_INVALID_ARGUMENT,
                "plan_state_write 'fc.bias.exp_avg_sq': data is NULL");
    assert_int_equal(ftr_plan_state_count(plain), 0);
    assert_int_equal(ftr_plan_applied_steps(plain), 0);
    assert_true(isnan(ftr_plan_lr(plain)));
    expect_last(&b, ftr_plan_state_at(plain, 0, &info), FTR_ERROR_INVALID_ARGUMENT,
                "plan_state_at: index is 0, the plan has 0 states");
    assert_int_equal(ftr_plan_state_at(NULL, 0, &info), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_plan_state_read(NULL, "optimizer.lr", data, 4), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_plan_state_write(NULL, "optimizer.lr", data, 4), FTR_ERROR_INVALID_ARGUMENT);
    assert_int_equal(ftr_plan_state_count(NULL), 0);
    ftr_plan_destroy(plain);
    ftr_plan_destroy(plan);
    end(&b);
}

/* ----------------------------------------------------------------------------------------------------- schedules -- */

static const int64_t rising[] = {3, 7}, falling[] = {3, 3}, early[] = {0, 7};
static ftr_schedule parts[3];

static ftr_schedule forged(void) { return (ftr_schedule){.kind = FTR_SCHEDULE_CONSTANT}; }
static ftr_schedule unknown(void) {
    ftr_schedule s = ftr_schedule_constant();
    s.kind = (ftr_schedule_kind)13;
    return s;
}
static ftr_schedule none(void) {
    ftr_schedule s = ftr_schedule_constant();
    s.kind = FTR_SCHEDULE_NONE;
    return s;
}
static ftr_schedule warmup(int64_t steps, double factor) {
    ftr_schedule s = ftr_schedule_constant();
    s.warmup_steps = steps, s.warmup_factor = factor;
    return s;
}
static ftr_schedule one_cycle(double pct_start, bool three_phase, double div_factor, double final, ftr_anneal anneal) {
    ftr_schedule s = ftr_schedule_one_cycle(10);
    s.pct_start = pct_start, s.three_phase = three_phase, s.div_factor = div_factor;
    s.final_div_factor = final, s.anneal = anneal;
    return s;
}
static ftr_schedule stable(int64_t steps, int64_t decay, double factor, ftr_anneal anneal) {
    ftr_schedule s = ftr_schedule_stable_decay(0, steps, decay);
    s.end_factor = factor, s.anneal = anneal;
    return s;
}
static ftr_schedule chain_of(ftr_schedule last) {
    parts[0] = parts[1] = ftr_schedule_constant();
    parts[2] = last;
    return ftr_schedule_chain(parts, rising, 2);
}

static void expect_schedule(const bench *b, ftr_schedule s, const char *sentence) {
    ftr_error_clear(b->context);
    expect_last(b, ftr_schedule_check(b->context, &s), FTR_ERROR_INVALID_ARGUMENT, sentence);
    assert_true(isnan(ftr_schedule_lr(&s, 1, 0)));
}

static void test_schedules(void **state) {
    (void)state;
    bench b = begin();
    expect_last(&b, ftr_schedule_check(b.context, NULL), FTR_ERROR_INVALID_ARGUMENT,
                "schedule: the description is NULL");
    expect_schedule(&b, forged(),
                    "schedule: the description was not made by ftr_schedule_constant() or another of them");
    expect_schedule(&b, unknown(), "schedule: kind is 13, expected one of ftr_schedule_kind");
    expect_schedule(&b, none(), "schedule: kind is 0, expected one of ftr_schedule_kind");
    expect_schedule(&b, warmup(-1, 0), "schedule: warmup_steps is -1, expected 0 or more");
    expect_schedule(&b, warmup(5, -0.5), "schedule: warmup_factor is -0.5, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_step(0, 0.1), "schedule: steps is 0, expected 1 or more");
    expect_schedule(&b, ftr_schedule_step(1, -0.1), "schedule: gamma is -0.1, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_multi_step(NULL, 2, 0.1),
                    "schedule: milestones is NULL with a milestone_count of 2");
    expect_schedule(&b, ftr_schedule_multi_step(rising, 0, 0.1),
                    "schedule: milestones is given with a milestone_count of 0");
    expect_schedule(&b, ftr_schedule_multi_step(falling, 2, 0.1), "schedule: milestones[1] is 3, expected more than 3");
    expect_schedule(&b, ftr_schedule_multi_step(early, 2, 0.1), "schedule: milestones[0] is 0, expected more than 0");
    expect_schedule(&b, ftr_schedule_multi_step(rising, 2, (double)NAN),
                    "schedule: gamma is nan, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_exponential((double)INFINITY),
                    "schedule: gamma is inf, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_cosine(-5, 0), "schedule: steps is -5, expected 1 or more");
    expect_schedule(&b, ftr_schedule_cosine(5, -1), "schedule: eta_min is -1, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_cosine_restarts(0, 1, 0), "schedule: steps is 0, expected 1 or more");
    expect_schedule(&b, ftr_schedule_cosine_restarts(5, 0, 0), "schedule: cycle_factor is 0, expected 1 or more");
    expect_schedule(&b, ftr_schedule_cosine_restarts(5, 2, (double)NAN),
                    "schedule: eta_min is nan, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_linear(0, 1, 0), "schedule: steps is 0, expected 1 or more");
    expect_schedule(&b, ftr_schedule_linear(-1, 1, 5),
                    "schedule: start_factor is -1, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_linear(1, -1, 5),
                    "schedule: end_factor is -1, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_polynomial(0, 1), "schedule: steps is 0, expected 1 or more");
    expect_schedule(&b, ftr_schedule_polynomial(5, -1), "schedule: power is -1, expected a finite number of 0 or more");
    expect_schedule(&b, ftr_schedule_one_cycle(0), "schedule: steps is 0, expected 1 or more");
    expect_schedule(&b, one_cycle(1, false, 25, 1e4, FTR_ANNEAL_COSINE),
                    "schedule: pct_start is 1, expected above 0 and below 1");
    expect_schedule(&b, one_cycle(0.75, true, 25, 1e4, FTR_ANNEAL_COSINE),
                    "schedule: pct_start is 0.75 with three_phase, expected at most 0.5");
    expect_schedule(&b, one_cycle(0.5, true, 0, 1e4, FTR_ANNEAL_COSINE),
                    "schedule: div_factor is 0, expected a finite number above 0");
    expect_schedule(&b, one_cycle(0.5, true, 25, -1, FTR_ANNEAL_COSINE),
                    "schedule: final_div_factor is -1, expected a finite number above 0");
    expect_schedule(&b, one_cycle(0.5, true, 25, 1e4, FTR_ANNEAL_SQRT),
                    "schedule: anneal is 2, expected FTR_ANNEAL_COSINE or FTR_ANNEAL_LINEAR");
    expect_schedule(&b, stable(-1, 5, 0, FTR_ANNEAL_LINEAR), "schedule: steps is -1, expected 0 or more");
    expect_schedule(&b, stable(5, 0, 0, FTR_ANNEAL_LINEAR), "schedule: decay_steps is 0, expected 1 or more");
    expect_schedule(&b, stable(5, 5, -1, FTR_ANNEAL_LINEAR),
                    "schedule: end_factor is -1, expected a finite number of 0 or more");
    expect_schedule(&b, stable(5, 5, 0, (ftr_anneal)3),
                    "schedule: anneal is 3, expected FTR_ANNEAL_COSINE, FTR_ANNEAL_LINEAR or FTR_ANNEAL_SQRT");
    expect_schedule(&b, ftr_schedule_function(NULL, NULL), "schedule: function is NULL");
    expect_schedule(&b, ftr_schedule_chain(NULL, rising, 2), "schedule: parts is NULL");
    expect_schedule(&b, ftr_schedule_chain(parts, falling, 2), "schedule: milestones[1] is 3, expected more than 3");
    expect_schedule(&b, chain_of(ftr_schedule_cosine(0, 0)), "schedule: parts[2]: steps is 0, expected 1 or more");
    expect_schedule(&b, chain_of(ftr_schedule_chain(parts, rising, 2)),
                    "schedule: parts[2]: a chain, expected another kind");
    end(&b);
}

static void expect_plateau(const bench *b, void (*spoil)(ftr_plateau *p), const char *sentence) {
    ftr_plateau p = ftr_plateau_defaults();
    spoil(&p);
    expect_last(b, ftr_plateau_check(b->context, &p), FTR_ERROR_INVALID_ARGUMENT, sentence);
}

#define SPOIL_PLATEAU(name, change)                                                                                    \
    static void name(ftr_plateau *p) { change; }
SPOIL_PLATEAU(p_cookie, p->cookie = 7)
SPOIL_PLATEAU(p_factor, p->factor = 0)
SPOIL_PLATEAU(p_patience, p->patience = -1)
SPOIL_PLATEAU(p_threshold, p->threshold = -1)
SPOIL_PLATEAU(p_cooldown, p->cooldown = -2)
SPOIL_PLATEAU(p_min_lr, p->min_lr = (double)NAN)
SPOIL_PLATEAU(p_eps, p->eps = -1)
SPOIL_PLATEAU(p_bad, p->bad_epochs = -1)
SPOIL_PLATEAU(p_left, p->cooldown_left = -1)

static void test_plateau(void **state) {
    (void)state;
    bench b = begin();
    expect_last(&b, ftr_plateau_check(b.context, NULL), FTR_ERROR_INVALID_ARGUMENT, "plateau: the description is NULL");
    expect_plateau(&b, p_cookie, "plateau: the description was not made by ftr_plateau_defaults()");
    expect_plateau(&b, p_factor, "plateau: factor is 0, expected above 0 and below 1");
    expect_plateau(&b, p_patience, "plateau: patience is -1, expected 0 or more");
    expect_plateau(&b, p_threshold, "plateau: threshold is -1, expected a finite number of 0 or more");
    expect_plateau(&b, p_cooldown, "plateau: cooldown is -2, expected 0 or more");
    expect_plateau(&b, p_min_lr, "plateau: min_lr is nan, expected a finite number of 0 or more");
    expect_plateau(&b, p_eps, "plateau: eps is -1, expected a finite number of 0 or more");
    expect_plateau(&b, p_bad, "plateau: bad_epochs is -1, expected 0 or more");
    expect_plateau(&b, p_left, "plateau: cooldown_left is -1, expected 0 or more");
    end(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_optimizers), cmocka_unit_test(test_what_is_allowed),
                                       cmocka_unit_test(test_state), cmocka_unit_test(test_schedules),
                                       cmocka_unit_test(test_plateau)};
    return cmocka_run_group_tests_name("optim errors", tests, NULL, NULL);
}
