/* ftr_model_summary(): a table made from the graph alone. A row is a layer (a node that takes parameters or buffers), a
 * matrix product or a pooling; everything else is counted in one row at the end. */
#include "graph/cost.h"

#include <stdio.h>
#include <string.h>

#define FTR__SUMMARY_COLUMNS 6
#define FTR__SUMMARY_CELL 160

typedef struct ftr__summary_row {
    const char *name;                                   /* may be longer than a cell */
    char cell[FTR__SUMMARY_COLUMNS][FTR__SUMMARY_CELL]; /* cell[0] is unused: the name stands there */
} ftr__summary_row;

typedef struct ftr__summary {
    ftr_write_fn write;
    void *user;
    size_t width[FTR__SUMMARY_COLUMNS];
    bool measuring;                      /* rows only widen the columns; otherwise they are printed */
    int64_t multiply_adds, output_bytes; /* of all nodes */
    int64_t other_nodes, other_bytes;    /* of those without a row */
} ftr__summary;

static int64_t ftr__summary_count(const ftr_graph *graph, int32_t value) {
    int64_t count = ftr_shape_count(&graph->values[value].shape);
    return count > 0 ? count : 0;
}

static const ftr__node *ftr__summary_producer(const ftr_graph *graph, int32_t value) {
    return value > 0 ? &graph->nodes[graph->values[value].node] : NULL;
}

/* Whether a node before `node` takes the same variable: a shared parameter counts where it is used first. */
static bool ftr__summary_seen(const ftr_graph *graph, const ftr__node *node, int32_t input) {
    for (const ftr__node *other = graph->nodes; other <= node; other++)
        for (int32_t i = 0; i < (other == node ? input : other->in_count); i++)
            if (other->in[i] == node->in[input]) return true;
    return false;
}

/* Elements of the parameters that a node uses first; `variables` is set if it takes any parameter or buffer at all. */
static int64_t ftr__summary_parameters(const ftr_graph *graph, const ftr__node *node, bool *variables) {
    int64_t count = 0;
    *variables = false;
    for (int32_t i = 0; i < node->in_count; i++) {
        const ftr__node *producer = ftr__summary_producer(graph, node->in[i]);
        if (!producer || producer->variable < 0) continue;
        *variables = true;
        bool trained = graph->variables[producer->variable].trainable;
        if (trained && !ftr__summary_seen(graph, node, i)) count += ftr__summary_count(graph, node->in[i]);
    }
    return count;
}

static int64_t ftr__summary_bytes(const ftr_graph *graph, const ftr__node *node) {
    if (node->out_count < 1) return 0;
    const ftr__value *value = &graph->values[node->first_out];
    return ftr__summary_count(graph, node->first_out) * (int64_t)ftr_dtype_size(value->dtype);
}

/* 1,234,567. */
static void ftr__summary_number(char *text, int64_t number) {
    char digits[24];
    int length = snprintf(digits, sizeof digits, "%lld", (long long)number);
    size_t used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
}

static bool ftr__summary_is_source(const ftr__node *node) { return node->op <= FTR_OP_constant; }

/* Fills a node's row and adds it to the totals; false if it has none of its own. */
static bool ftr__summary_fill(ftr__summary *summary, const ftr_graph *graph, const ftr__node *node,
                              ftr__summary_row *row) {
    if (node->dead || (ftr__summary_is_source(node) && node->op != FTR_OP_input)) return false;
    bool input = node->op == FTR_OP_input, variables;
    int64_t parameters = ftr__summary_parameters(graph, node, &variables);
    int64_t multiply_adds = ftr__node_multiply_adds(graph, node), bytes = ftr__summary_bytes(graph, node);
    summary->multiply_adds += multiply_adds;
    summary->output_bytes += bytes;
    bool pool = node->op == FTR_OP_max_pool2d || node->op == FTR_OP_avg_pool2d;
    if (!input && !variables && !pool && node->op != FTR_OP_matmul) {
        summary->other_nodes++;
        summary->other_bytes += bytes;
        return false;
    }
    row->name = node->name;
    snprintf(row->cell[1], FTR__SUMMARY_CELL, "%s", ftr_op_name(node->op));
    char shape[FTR__SHAPE_TEXT];
    const ftr_shape none = {0};
    const ftr_shape *out = node->out_count > 0 ? &graph->values[node->first_out].shape : &none;
    snprintf(row->cell[2], FTR__SUMMARY_CELL, "%s", ftr__shape_text(out, shape));
    row->cell[3][0] = row->cell[4][0] = '\0';
    if (!input) ftr__summary_number(row->cell[3], parameters);
    if (!input) ftr__summary_number(row->cell[4], multiply_adds);
    ftr__summary_number(row->cell[5], bytes);
    return true;
}

static void ftr__summary_spaces(const ftr__summary *summary, size_t count) {
    for (; count > 0; count--) summary->write(summary->user, " ", 1);
}

/* Columns 0 to 2 are text and stand left, the others are numbers and stand right. */
static void ftr__summary_print(const ftr__summary *summary, const ftr__summary_row *row) {
    for (int32_t i = 0; i < FTR__SUMMARY_COLUMNS; i++) {
        const char *text = i == 0 ? row->name : row->cell[i];
        size_t length = strlen(text), blanks = summary->width[i] - length;
        if (i > 0) ftr__summary_spaces(summary, 2);
        if (i > 2) ftr__summary_spaces(summary, blanks);
        summary->write(summary->user, text, length);
        if (i <= 2) ftr__summary_spaces(summary, blanks);
    }
    summary->write(summary->user, "\n", 1);
}

static void ftr__summary_emit(ftr__summary *summary, const ftr__summary_row *row) {
    if (!summary->measuring) {
        ftr__summary_print(summary, row);
        return;
    }
    for (int32_t i = 0; i < FTR__SUMMARY_COLUMNS; i++) {
        size_t length = strlen(i == 0 ? row->name : row->cell[i]);
        if (length > summary->width[i]) summary->width[i] = length;
    }
}

static void ftr__summary_other(const ftr__summary *summary, ftr__summary_row *row) {
    memset(row, 0, sizeof *row);
    row->name = "others";
    char number[32];
    ftr__summary_number(number, summary->other_nodes);
    snprintf(row->cell[1], FTR__SUMMARY_CELL, "%s %s", number, summary->other_nodes == 1 ? "op" : "ops");
    ftr__summary_number(row->cell[3], 0);
    ftr__summary_number(row->cell[4], 0);
    ftr__summary_number(row->cell[5], summary->other_bytes);
}

/* All rows once. The totals start from zero each time. */
static void ftr__summary_rows(ftr__summary *summary, const ftr_graph *graph, bool measuring) {
    ftr__summary_row row = {"layer", {"", "op", "output shape", "parameters", "multiply-adds", "output bytes"}};
    summary->measuring = measuring;
    summary->multiply_adds = summary->output_bytes = summary->other_nodes = summary->other_bytes = 0;
    ftr__summary_emit(summary, &row);
    for (int32_t n = 0; n < graph->node_count; n++)
        if (ftr__summary_fill(summary, graph, &graph->nodes[n], &row)) ftr__summary_emit(summary, &row);
    if (summary->other_nodes == 0) return;
    ftr__summary_other(summary, &row);
    ftr__summary_emit(summary, &row);
}

static void ftr__summary_totals(const ftr__summary *summary, const ftr_graph *graph) {
    int64_t count[3] = {0}, bytes = 0; /* trained, frozen, in buffers */
    for (int32_t i = 0; i < graph->variable_count; i++) {
        const ftr__variable *variable = &graph->variables[i];
        const int32_t kind = !variable->trainable ? 2 : variable->frozen ? 1 : 0;
        count[kind] += ftr__summary_count(graph, variable->value);
        bytes += (int64_t)variable->bytes;
    }
    char a[32], b[32], c[32];
    ftr__summary_number(a, count[0]);
    ftr__summary_number(b, count[1]);
    ftr__print(summary->write, summary->user, "parameters: %s trained", a);
    if (count[1] > 0) ftr__print(summary->write, summary->user, ", %s frozen", b);
    ftr__summary_number(b, count[2]);
    ftr__summary_number(c, bytes);
    ftr__print(summary->write, summary->user, ", %s in buffers, %s bytes together\n", b, c);
    ftr__summary_number(a, summary->multiply_adds);
    ftr__summary_number(b, summary->output_bytes);
    ftr__print(summary->write, summary->user,
               "one forward pass of the whole batch: %s multiply-adds (matrix products and convolutions), %s bytes of "
               "outputs\n",
               a, b);
}

ftr_status ftr_model_summary(const ftr_graph *graph, ftr_write_fn write, void *user) {
    if (!graph) return FTR_ERROR_INVALID_ARGUMENT;
    if (!write) return ftr__error(graph->context, FTR_ERROR_INVALID_ARGUMENT, "ftr_model_summary: write is NULL");
    if (graph->status != FTR_OK) return ftr__error(graph->context, graph->status, "%s", graph->message);
    ftr__summary summary = {.write = write, .user = user};
    ftr__summary_rows(&summary, graph, true);
    ftr__summary_rows(&summary, graph, false);
    ftr__summary_totals(&summary, graph);
    return FTR_OK;
}
