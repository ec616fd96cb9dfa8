/* Draws the learning rate schedules as a page of small plots, for docs/schedules.svg: `make docs`. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <stdio.h>

enum { STEPS = 200, COLUMNS = 4, WIDTH = 200, HEIGHT = 90, LEFT = 14, TOP = 30, ROW = 140, COLUMN = 228 };

typedef struct plot {
    const char *name, *code;
    ftr_schedule schedule;
} plot;

static ftr_schedule warm(ftr_schedule schedule, int64_t steps) {
    schedule.warmup_steps = steps;
    return schedule;
}

static ftr_schedule three_phase(void) {
    ftr_schedule s = ftr_schedule_one_cycle(STEPS);
    s.pct_start = 0.4, s.three_phase = true, s.anneal = FTR_ANNEAL_LINEAR;
    return s;
}

static ftr_schedule root_decay(void) {
    ftr_schedule s = ftr_schedule_stable_decay(20, 100, 80);
    s.anneal = FTR_ANNEAL_SQRT;
    return s;
}

/* A plot with its origin at (x, y): axes, the curve, and what it is. */
static void draw(const plot *p, int x, int y) {
    printf("<g transform=\"translate(%d %d)\">\n", x, y);
    printf("<text y=\"-16\" class=\"name\">%s</text><text y=\"-5\" class=\"code\">%s</text>\n", p->name, p->code);
    printf("<path class=\"axis\" d=\"M0 0V%dH%d\"/>\n<path class=\"curve\" d=\"", HEIGHT, WIDTH);
    int length = 0;
    for (int t = 0; t < STEPS; t++) {
        const double lr = ftr_schedule_lr(&p->schedule, 1.0, t);
        const bool flat = t > 0 && t + 1 < STEPS && lr == ftr_schedule_lr(&p->schedule, 1.0, t - 1) &&
                          lr == ftr_schedule_lr(&p->schedule, 1.0, t + 1);
        if (flat) continue;
        length += printf("%s%d %.4g", t ? length ? " " : "" : "M", t * WIDTH / STEPS, HEIGHT * (1.0 - lr));
        if (length > 100) length = 0, printf("\n");
    }
    printf("\"/>\n</g>\n");
}

int main(void) {
    static const int64_t drops[] = {60, 120, 160}, ends[] = {40, 120};
    const ftr_schedule parts[] = {ftr_schedule_linear(0.1, 1.0, 40), ftr_schedule_exponential(0.985),
                                  ftr_schedule_cosine(80, 0.05)};
    const plot plots[] = {
        {"Step", "step(40, 0.6)", ftr_schedule_step(40, 0.6)},
        {"Multi-step", "multi_step({60, 120, 160}, 0.4)", ftr_schedule_multi_step(drops, 3, 0.4)},
        {"Exponential", "exponential(0.98)", ftr_schedule_exponential(0.98)},
        {"Linear", "linear(0.2, 1, 120)", ftr_schedule_linear(0.2, 1.0, 120)},
        {"Polynomial", "polynomial(200, 2)", ftr_schedule_polynomial(STEPS, 2.0)},
        {"Cosine", "cosine(200, 0.05)", ftr_schedule_cosine(STEPS, 0.05)},
        {"Cosine, warm restarts", "cosine_restarts(29, 2, 0)", ftr_schedule_cosine_restarts(29, 2, 0.0)},
        {"Cosine behind a warm-up", "cosine(170, 0), .warmup_steps = 30",
         warm(ftr_schedule_cosine(STEPS - 30, 0.0), 30)},
        {"One cycle", "one_cycle(200)", ftr_schedule_one_cycle(STEPS)},
        {"One cycle, three phases", ".three_phase, .anneal = LINEAR", three_phase()},
        {"Warm-up, stable, decay", "stable_decay(20, 100, 80), SQRT", root_decay()},
        {"Chain", "linear, exponential, cosine", ftr_schedule_chain(parts, ends, 2)},
    };
    const int count = (int)(sizeof plots / sizeof *plots);
    printf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\">\n"
           "<!-- Made by tools/schedules.c: make docs -->\n"
           "<style>.name{font-size:12px;fill:#24292f}.code{font-size:9px;font-family:monospace;fill:#57606a}"
           ".axis{fill:none;stroke:#8c959f;stroke-width:1}.curve{fill:none;stroke:#0969da;stroke-width:1.5}</style>\n"
           "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
           COLUMNS * COLUMN, (count + COLUMNS - 1) / COLUMNS * ROW);
    for (int i = 0; i < count; i++) draw(&plots[i], LEFT + i % COLUMNS * COLUMN, TOP + i / COLUMNS * ROW);
    printf("</svg>\n");
    return 0;
}
