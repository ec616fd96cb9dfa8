#include "coverage.h"

/* ------------------------------------------------------------------------------------------------- facts of ops.def -- */

#define FACTS_D(name, attr, min_in, max_in, out, differentiable, overwritable, amp)                                    \
    {#name, true, max_in, differentiable},
#define FACTS_N(name, attr, min_in, max_in, out, differentiable, overwritable, amp)                                    \
    {#name, false, max_in, differentiable},

static const op_facts facts[FTR_OP_COUNT] = {{"none", false, 0, 0}, FTR_OPS(FACTS_D, FACTS_N)};

const op_facts *op_facts_of(int32_t op) { return &facts[op]; }

enum { MOST_INPUTS = 16 };

uint32_t op_differentiable_inputs(int32_t op) {
    int32_t inputs = facts[op].max_in < MOST_INPUTS ? facts[op].max_in : MOST_INPUTS;
    return facts[op].has_gradient ? facts[op].differentiable & ((1u << inputs) - 1u) : 0;
}

/* ------------------------------------------------------------------------------------------------- a graph as text -- */

enum { MOST_NODES = 4096, MOST_VALUES = 4096, MOST_ENDS = 64 };

/* Ids of values; 0 is a missing input. */
typedef struct node {
    int32_t op, in_count, out_count;
    int32_t in[MOST_ENDS], out[MOST_ENDS];
} node;

/* "%3, -, %4" up to another character. */
static int32_t read_values(const char **at, int32_t ids[MOST_ENDS]) {
    int32_t count = 0;
    while (**at == '%' || **at == '-') {
        assert_true(count < MOST_ENDS);
        ids[count++] = **at == '%' ? (int32_t)strtol(*at + 1, (char **)(uintptr_t)at, 10) : (++*at, 0);
        *at += strspn(*at, ", ");
    }
    return count;
}

/* A line "%5, %6 = op 'name' (%1, -) ..."; an update has no results and no "=". */
static node read_node(const char *line) {
    node n = {.op = FTR_OP_NONE};
    n.out_count = read_values(&line, n.out);
    line += strspn(line, "= ");
    size_t length = strcspn(line, " ");
    for (int32_t op = FTR_OP_NONE + 1; op < FTR_OP_COUNT; op++) {
        if (strlen(facts[op].name) == length && strncmp(facts[op].name, line, length) == 0) {
            n.op = op;
        }
    }
    if (n.op == FTR_OP_NONE) {
        fail_msg("no op in the line '%.60s'", line);
    }
    const char *name = strchr(line, '\''), *end = name ? strchr(name + 1, '\'') : NULL;
    assert_non_null(end);
    if (strncmp(end, "' (", 3) == 0) {
        end += 3;
        n.in_count = read_values(&end, n.in);
    }
    return n;
}

static node *read_graph(const ftr_graph *graph, int32_t *count) {
    static ftr_test_text text;
    text.length = 0;
    ftr_graph_print(graph, FTR_GRAPH_TEXT, ftr_test_text_write, &text);
    assert_true(text.length < sizeof text.text - 1); /* all of it */
    node *nodes = calloc(MOST_NODES, sizeof *nodes);
    *count = 0;
    for (char *line = strtok(text.text, "\n"); line; line = strtok(NULL, "\n")) {
        assert_true(*count < MOST_NODES);
        nodes[(*count)++] = read_node(line);
    }
    return nodes;
}

void op_add_ops(const ftr_graph *graph, bool seen[FTR_OP_COUNT]) {
    int32_t count;
    node *nodes = read_graph(graph, &count);
    for (int32_t i = 0; i < count; i++) {
        seen[nodes[i].op] = true;
    }
    free(nodes);
}

static bool any(const bool marks[MOST_VALUES], const int32_t *ids, int32_t count) {
    bool found = false;
    for (int32_t i = 0; i < count; i++) {
        found = found || marks[ids[i]];
    }
    return found;
}

void op_add_gradients(const ftr_graph *graph, ftr_tensor loss, const ftr_tensor *wanted, int32_t count,
                      uint32_t covered[FTR_OP_COUNT]) {
    static bool depends[MOST_VALUES], needed[MOST_VALUES]; /* on a wanted tensor; by the loss; with a gradient */
    memset(depends, 0, sizeof depends);
    memset(needed, 0, sizeof needed);
    int32_t nodes_count;
    node *nodes = read_graph(graph, &nodes_count);
    for (int32_t i = 0; i < count; i++) {
        ftr_shape shape = ftr_shape_of(wanted[i]);
        depends[wanted[i].id] = ftr_shape_count(&shape) > 0;
    }
    needed[loss.id] = true;
    for (int32_t i = 0; i < nodes_count; i++) {
        for (int32_t k = 0; k < nodes[i].in_count && k < 32; k++) {
            bool flows = op_differentiable_inputs(nodes[i].op) >> k & 1 && depends[nodes[i].in[k]];
            for (int32_t o = 0; o < nodes[i].out_count && flows; o++) {
                depends[nodes[i].out[o]] = true;
            }
        }
    }
    for (int32_t i = nodes_count - 1; i >= 0; i--) {
        if (!any(needed, nodes[i].out, nodes[i].out_count)) {
            continue;
        }
        for (int32_t k = 0; k < nodes[i].in_count && k < MOST_INPUTS; k++) {
            if (nodes[i].in[k] && op_differentiable_inputs(nodes[i].op) >> k & 1) {
                needed[nodes[i].in[k]] = true;
                covered[nodes[i].op] |= (uint32_t)depends[nodes[i].in[k]] << k;
            }
        }
    }
    free(nodes);
}

/* --------------------------------------------------------------------------------------------------- malformed ops -- */

static const struct {
    int32_t op;
    const char *why;
} never_malformed[] = {
    {FTR_OP_stop_gradient, "takes any tensor"},
    {FTR_OP_ema_update, "is made by the library, of batch norm's statistics"},
    {FTR_OP_count_update, "is made by the library, of an optimizer's steps"},
    {FTR_OP_accumulate_update, "is made by the library, of a group of micro-batches"},
    {FTR_OP_average_update, "is made by the library, of averages of weights"},
    {FTR_OP_swap_update, "is made by the library, of averages of weights"},
    {FTR_OP_sgd_update, "is made by the library, of an optimizer"},
    {FTR_OP_adamw_update, "is made by the library, of an optimizer"},
    {FTR_OP_adam_update, "is made by the library, of an optimizer"},
    {FTR_OP_rmsprop_update, "is made by the library, of an optimizer"},
    {FTR_OP_adagrad_update, "is made by the library, of an optimizer"},
    {FTR_OP_lamb_update, "is made by the library, of an optimizer"},
    {FTR_OP_lars_update, "is made by the library, of an optimizer"},
    {FTR_OP_lion_update, "is made by the library, of an optimizer"},
    {FTR_OP_adafactor_update, "is made by the library, of an optimizer"},
    {FTR_OP_muon_update, "is made by the library, of an optimizer"},
    {FTR_OP_clip_scale, "is made by the library, of an optimizer"},
    {FTR_OP_grad_norm, "is made by the library, of an optimizer or a scaler"},
    {FTR_OP_scale_update, "is made by the library, of a scaler"},
};

const char *op_cannot_be_malformed(int32_t op) {
    for (size_t i = 0; i < FTR_TEST_LENGTH(never_malformed); i++) {
        if (never_malformed[i].op == op) {
            return never_malformed[i].why;
        }
    }
    return strstr(facts[op].name, "_grad") ? "is made by the library, in a gradient" : NULL;
}
