/* Mixup and cutmix. */
#include "oracle_tools.h"

enum { PURPOSE_MIX = 5 };

typedef struct numbers {
    const ftr_kernel_call *call;
    uint64_t next;
} numbers;

/* 53 bits: 27 of one number and 26 of the next. */
static double unit(numbers *n) {
    uint64_t key = n->call->attr->mix.key;
    double high = floor(stream_number(n->call->seed, PURPOSE_MIX, key, n->call->step, n->next) / 32.0);
    double low = floor(stream_number(n->call->seed, PURPOSE_MIX, key, n->call->step, n->next + 1) / 64.0);
    n->next += 2;
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

static int64_t index_below(numbers *n, int64_t count) { return (int64_t)floor(unit(n) * (double)count); }

/* A point in the unit circle; its first coordinate, stretched. */
static double normal(numbers *n) {
    for (;;) {
        double x = 2 * unit(n) - 1, y = 2 * unit(n) - 1, size = x * x + y * y;
        if (size > 0 && size < 1) {
            return x * sqrt(-2 * log(size) / size);
        }
    }
}

/* Marsaglia and Tsang. */
static double gamma_number(numbers *n, double shape) {
    double d = shape - 1.0 / 3;
    for (;;) {
        double x = normal(n), v = pow(1 + x / sqrt(9 * d), 3), u = 1 - unit(n);
        if (v > 0 && log(u) < x * x / 2 + d - d * v + d * log(v)) {
            return d * v;
        }
    }
}

static double beta_number(numbers *n, double alpha) {
    if (alpha > 1) {
        double a = gamma_number(n, alpha), b = gamma_number(n, alpha);
        return a / (a + b);
    }
    for (;;) { /* Joehnk; both powers may be too small for a double, their ratio need not be */
        double u = 1 - unit(n), v = 1 - unit(n);
        if (pow(u, 1 / alpha) + pow(v, 1 / alpha) <= 1) {
            return 1 / (1 + pow(v / u, 1 / alpha));
        }
    }
}

size_t oracle_mix_draw_workspace(const ftr_kernel_call *call) { return (size_t)call->attr->mix.rows * sizeof(int64_t); }

/* The rows that count are a list; partners are the list rolled, or shuffled. */
static void draw_partners(numbers *n, const ftr_view *mask, const ftr_view *partners, int64_t *rows) {
    int64_t count = 0;
    for (int64_t i = 0; i < partners->count; i++) {
        set_int(partners, i, i);
        if (!mask || get(mask, i) != 0) {
            rows[count++] = i;
        }
    }
    if (n->call->attr->mix.pairs == FTR_MIX_ROLL) {
        for (int64_t i = 0; i < count; i++) {
            set_int(partners, rows[i], rows[(i + count - 1) % count]);
        }
        return;
    }
    for (int64_t i = count - 1; i > 0; i--) {
        int64_t j = index_below(n, i + 1), a = get_int(partners, rows[i]);
        set_int(partners, rows[i], get_int(partners, rows[j]));
        set_int(partners, rows[j], a);
    }
}

static int64_t within(int64_t x, int64_t most) { return x < 0 ? 0 : x > most ? most : x; }

ftr_status oracle_mix_draw(const ftr_kernel_call *call) {
    numbers n = {.call = call};
    double u = unit(&n), own = 1, own_target = 1;
    int64_t height = call->attr->mix.image[0], width = call->attr->mix.image[1], box[4] = {0};
    if (u < call->attr->mix.mixup) {
        own = own_target = beta_number(&n, call->attr->mix.mixup_alpha);
    } else if (u < call->attr->mix.mixup + call->attr->mix.cutmix) {
        double half = sqrt(1 - beta_number(&n, call->attr->mix.cutmix_alpha)) / 2;
        int64_t x = index_below(&n, width), y = index_below(&n, height);
        int64_t dx = (int64_t)(half * (double)width), dy = (int64_t)(half * (double)height);
        box[0] = within(y - dy, height);
        box[1] = within(x - dx, width);
        box[2] = within(y + dy, height);
        box[3] = within(x + dx, width);
        own_target = 1 - (double)((box[2] - box[0]) * (box[3] - box[1])) / (double)(height * width);
    }
    double weights[4] = {own, 1 - own, own_target, 1 - own_target};
    for (int i = 0; i < 4; i++) {
        set(&call->out[0], i, weights[i]);
        set_int(&call->out[2], i, box[i]);
    }
    draw_partners(&n, optional_input(call, 0), &call->out[1], call->workspace);
    return FTR_OK;
}

/* Whether element `index` of x [n, h, w, ..] is in the box. */
static bool inside(const ftr_view *x, const ftr_view *box, int64_t index) {
    int64_t c[FTR_MAX_RANK];
    coordinates(&x->shape, index, c);
    return box && c[1] >= get_int(box, 0) && c[1] < get_int(box, 2) && c[2] >= get_int(box, 1) &&
           c[2] < get_int(box, 3);
}

/* The weights of element `index` and of the partner's. */
static void weights_at(const ftr_kernel_call *call, int64_t index, double *own, double *other) {
    int first = call->attr->mix.targets ? 2 : 0;
    bool in_box = inside(&call->in[0], optional_input(call, 3), index);
    *own = in_box ? 0 : get(&call->in[1], first);
    *other = in_box ? 1 : get(&call->in[1], first + 1);
}

static bool is_outside(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0], *box = optional_input(call, 3);
    bool wrong = false;
    for (int64_t i = 0; i < call->in[2].count && x->count > 0; i++) {
        wrong = wrong || get_int(&call->in[2], i) < 0 || get_int(&call->in[2], i) >= x->shape.dim[0];
    }
    for (int i = 0; i < 2 && box && x->count > 0; i++) {
        int64_t from = get_int(box, i), to = get_int(box, i + 2);
        wrong = wrong || from < 0 || from > to || to > x->shape.dim[i + 1];
    }
    return wrong;
}

ftr_status oracle_mix(const ftr_kernel_call *call) {
    const ftr_view *x = &call->in[0];
    if (is_outside(call)) {
        return ftr_backend_error(call, FTR_ERROR_DATA, "a partner or the box is outside");
    }
    for (int64_t i = 0; i < x->count; i++) {
        double own, other;
        int64_t row = x->count / x->shape.dim[0];
        weights_at(call, i, &own, &other);
        int64_t partner = get_int(&call->in[2], i / row) * row + i % row;
        set(&call->out[0], i, (own != 0 ? own * get(x, i) : 0) + (other != 0 ? other * get(x, partner) : 0));
    }
    return FTR_OK;
}

size_t oracle_mix_grad_workspace(const ftr_kernel_call *call) { return (size_t)call->in[0].count * sizeof(double); }

/* The transpose: what an element of dy is made of gets its share of it. */
ftr_status oracle_mix_grad(const ftr_kernel_call *call) {
    const ftr_view *dy = &call->in[0];
    double *sum = call->workspace;
    if (is_outside(call)) {
        return ftr_backend_error(call, FTR_ERROR_DATA, "a partner or the box is outside");
    }
    for (int64_t i = 0; i < dy->count; i++) {
        sum[i] = 0;
    }
    for (int64_t i = 0; i < dy->count; i++) {
        double own, other;
        int64_t row = dy->count / dy->shape.dim[0];
        weights_at(call, i, &own, &other);
        sum[i] += own != 0 ? own * get(dy, i) : 0;
        sum[get_int(&call->in[2], i / row) * row + i % row] += other != 0 ? other * get(dy, i) : 0;
    }
    for (int64_t i = 0; i < dy->count; i++) {
        set(&call->out[0], i, sum[i]);
    }
    return FTR_OK;
}
