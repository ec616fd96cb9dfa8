/* `make bench`: each workload and its PyTorch twin in turn, in one go. From the root of the tree:
 *
 *     build/bench/run [NAME=VALUE]... [WORKLOAD]...
 *
 *   PYTHON=python3   interpreter with PyTorch; if it has none, fasttrain alone is run
 *   THREADS=2  DTYPE=f32 (or bf16)  PAIRS=5  ROUND=2 (seconds of a round)
 *   REST=0           seconds without work before each round: for machines that are fast for a moment only
 *   SIMD=avx2        (portable, avx512, neon) limits fasttrain, and PyTorch alike
 *   MODES="..."      of PyTorch: eager channels_last compile compile_channels_last, for inference onnxruntime too
 *   CHECK=1          compares parameters and first losses only
 *   JSON=build/bench.json
 *
 * Both programs of a workload stay alive: one gets its rounds while the other sleeps in read(). Each mode of PyTorch is
 * tried for a round; the fastest is the one to beat. Then come pairs of rounds, the side that begins alternating. Only
 * the ratio of a pair means something: on shared machines speed drifts from minute to minute. */
#include <math.h>

#include "side.h"

enum { MOST_PAIRS = 101, START_SECONDS = 900 };

static const struct workload {
    const char *name, *program, *arguments[2];
    bool images; /* layouts matter */
} workloads[] = {
    {"mlp", "mlp", {NULL, NULL}, false},
    {"cnn", "cnn", {NULL, NULL}, true},
    {"rn20", "rn20", {NULL, NULL}, true},
    {"rn18", "rn18", {NULL, NULL}, true},
    {"rn50", "rn50", {NULL, NULL}, true},
    {"mbv2", "mbv2", {NULL, NULL}, true},
    {"mbv3", "mbv3", {NULL, NULL}, true},
    {"effb0", "effb0", {NULL, NULL}, true},
    {"gpt", "gpt", {NULL, NULL}, false},
    {"infer-rn50-b16", "infer", {"rn50", "16"}, true},
    {"infer-rn50-b1", "infer", {"rn50", "1"}, true},
    {"infer-mbv3-b16", "infer", {"mbv3", "16"}, true},
    {"infer-mbv3-b1", "infer", {"mbv3", "1"}, true},
    {"infer-effb0-b16", "infer", {"effb0", "16"}, true},
    {"infer-effb0-b1", "infer", {"effb0", "1"}, true},
};
enum { WORKLOADS = sizeof workloads / sizeof workloads[0] };

typedef struct settings {
    const char *python, *threads, *dtype, *pairs, *round, *rest, *simd, *modes, *check, *json;
} settings;

/* A row of the table. Samples/s are medians of the rounds. */
typedef struct row {
    const char *name;
    char simd[16], mode[32];
    bool has_pytorch;
    double fasttrain, pytorch, ratio, ratio_min, ratio_max, rss[2], first_step[2];
} row;

static bool infers(const struct workload *w) { return strcmp(w->program, "infer") == 0; }

/* Whether a list of words has this one. */
static bool has_word(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ' ') && (at[length] == 0 || at[length] == ' ')) return true;
    return false;
}

static bool start_fasttrain(side *s, const settings *o, const struct workload *w) {
    char program[64], log[128], simd[64];
    snprintf(program, sizeof program, "build/bench/%s", w->program);
    snprintf(log, sizeof log, "build/bench/%s.log", w->name);
    snprintf(simd, sizeof simd, "FASTTRAIN_SIMD=%s", o->simd);
    char *argv[12] = {program};
    int count = 1;
    for (int i = 0; i < 2; i++)
        if (w->arguments[i]) argv[count++] = (char *)w->arguments[i];
    const char *const rest[] = {"--threads", o->threads, "--dtype", o->dtype, *o->check ? "--check" : "--serve"};
    for (int i = 0; i < 5; i++) argv[count++] = (char *)rest[i];
    char *environment[] = {*o->simd ? simd : NULL, NULL};
    return side_start(s, log, argv, environment);
}

/* What limits PyTorch, oneDNN and MKL to an instruction set; none for what they have anyway. */
static void limits(const char *simd, char *environment[4]) {
    static char avx2[3][40] = {"ATEN_CPU_CAPABILITY=avx2", "ONEDNN_MAX_CPU_ISA=AVX2", "MKL_ENABLE_INSTRUCTIONS=AVX2"};
    static char sse[3][40] = {"ATEN_CPU_CAPABILITY=default", "ONEDNN_MAX_CPU_ISA=SSE41",
                              "MKL_ENABLE_INSTRUCTIONS=SSE4_2"};
    const bool is_avx2 = strcmp(simd, "avx2") == 0, is_sse = strcmp(simd, "portable") == 0;
    for (int i = 0; i < 3; i++) environment[i] = is_avx2 ? avx2[i] : is_sse ? sse[i] : NULL;
    environment[3] = NULL;
}

static bool start_twin(side *s, const settings *o, const struct workload *w, const char *mode) {
    char program[64], log[128], *environment[4];
    snprintf(program, sizeof program, "examples/bench/%s.py", w->program);
    snprintf(log, sizeof log, "build/bench/%s.%s.log", w->name, mode);
    char *argv[16] = {(char *)o->python, program};
    int count = 2;
    for (int i = 0; i < 2; i++)
        if (w->arguments[i]) argv[count++] = (char *)w->arguments[i];
    const char *const rest[] = {
        "--mode", mode, "--threads", o->threads, "--dtype", o->dtype, *o->check ? "--check" : "--serve"};
    for (int i = 0; i < 7; i++) argv[count++] = (char *)rest[i];
    limits(o->simd, environment);
    return side_start(s, log, argv, environment);
}

/* One round: samples/s, or a negative number with s->reason. */
static double round_of(side *s, const settings *o, char *line, size_t size) {
    char question[64];
    const double rest = strtod(o->rest, NULL);
    if (rest > 0) {
        const struct timespec pause = {(time_t)rest, (long)((rest - floor(rest)) * 1e9)};
        nanosleep(&pause, NULL);
    }
    snprintf(question, sizeof question, "%s\n", o->round);
    if (!side_ask(s, question, " samples_per_second=", 120 + 60 * strtod(o->round, NULL), line, size)) return -1;
    return side_number(line, "samples_per_second");
}

/* Whether both do the same work: as many parameters, and a first loss of one size. Weights and data are random, each
 * side's its own; without a loss the logits of untrained weights are compared, which vary more. */
static bool same_work(const struct workload *w, const char *ours, const char *theirs) {
    const double a = side_number(ours, "parameters"), b = side_number(theirs, "parameters");
    const double x = side_number(ours, "loss"), y = side_number(theirs, "loss"), factor = infers(w) ? 10 : 1.5;
    const bool same = a == b && x < y * factor && y < x * factor;
    fprintf(same ? stdout : stderr, "  %s: %.0f and %.0f parameters, first %s %.4g and %.4g\n",
            same ? "same work" : "NOT THE SAME WORK", a, b, infers(w) ? "logits" : "loss", x, y);
    return same;
}

/* Tries each mode; `best` is the fastest, ready for its rounds. */
static bool best_mode(const settings *o, const struct workload *w, const char *ours, side *best, char *mode,
                      bool *different) {
    static const char *const modes[] = {"onnxruntime", "eager", "channels_last", "compile", "compile_channels_last"};
    char line[1024];
    double top = 0;
    best->pid = 0;
    for (int i = 0; i < 5; i++) {
        const bool onnx = i == 0;
        if (*o->modes && !has_word(o->modes, modes[i])) continue;
        if (!w->images && strstr(modes[i], "channels_last")) continue;
        /* The file is f32, and nothing limits ONNX Runtime to an instruction set. */
        if (onnx && (!infers(w) || strcmp(o->dtype, "f32") != 0 || strcmp(o->simd, "avx2") == 0 ||
                     strcmp(o->simd, "portable") == 0))
            continue;
        side tried;
        double speed = -1;
        if (start_twin(&tried, o, w, modes[i]) &&
            side_read(&tried, " first_step_seconds=", START_SECONDS, line, sizeof line)) {
            if (!same_work(w, ours, line)) {
                *different = true;
                side_stop(&tried, 10);
                break;
            }
            speed = *o->check ? 1 : round_of(&tried, o, line, sizeof line);
        }
        if (speed < 0)
            printf("  %s does not run: %s\n", modes[i], tried.reason);
        else if (!*o->check)
            printf("  %s\n", line);
        fflush(stdout);
        if (speed > top) {
            side_stop(best, 10);
            *best = tried;
            top = speed;
            snprintf(mode, 32, "%s", modes[i]);
        } else {
            side_stop(&tried, 10);
        }
        if (*o->check && top > 0) break;
    }
    if (*different) side_stop(best, 10);
    return best->pid != 0 || (*o->check && top > 0);
}

/* The pairs of rounds. False when a side died; its reason says why. */
static bool pairs_of(const settings *o, side *ours, side *theirs, row *r) {
    double speed[2][MOST_PAIRS] = {{0}}, ratio[MOST_PAIRS];
    char line[2][1024];
    side *sides[2] = {ours, theirs};
    const int pairs = atoi(o->pairs), count = r->has_pytorch ? 2 : 1;
    if (round_of(ours, o, line[0], sizeof line[0]) < 0) return false; /* as the trial warmed the twin up */
    for (int i = 0; i < pairs; i++) {
        for (int k = 0; k < count; k++) {
            const int which = count == 2 ? (k + i) % 2 : 0;
            speed[which][i] = round_of(sides[which], o, line[which], sizeof line[which]);
            if (speed[which][i] < 0) return false;
        }
        ratio[i] = count == 2 ? speed[0][i] / speed[1][i] : 0;
    }
    for (int k = 0; k < count; k++) {
        r->rss[k] = side_number(line[k], "peak_rss_mib");
        r->first_step[k] = side_number(line[k], "first_step_seconds");
    }
    r->fasttrain = side_median(speed[0], pairs);
    if (count == 1) return true;
    r->pytorch = side_median(speed[1], pairs);
    r->ratio = side_median(ratio, pairs);
    r->ratio_min = ratio[0], r->ratio_max = ratio[pairs - 1];
    return true;
}

/* Runs a workload; false when something failed, with the reason printed. A row has fasttrain's figures even if PyTorch
 * failed; *complete says whether it has those. */
static bool run(const settings *o, const struct workload *w, bool with_pytorch, row *r, bool *complete) {
    side ours, theirs = {.pid = 0};
    char line[1024];
    bool different = false, good = true;
    *r = (row){.name = w->name};
    *complete = false;
    printf("%s\n", w->name);
    fflush(stdout);
    if (!start_fasttrain(&ours, o, w) || !side_read(&ours, " first_step_seconds=", START_SECONDS, line, sizeof line)) {
        fprintf(stderr, "  fasttrain failed: %s\n", ours.reason);
        return false;
    }
    printf("  %s\n", line);
    sscanf(line, "%*s fasttrain %15s", r->simd);
    if (with_pytorch) {
        r->has_pytorch = best_mode(o, w, line, &theirs, r->mode, &different);
        if (!r->has_pytorch) fprintf(stderr, "  no mode of PyTorch ran: see build/bench/%s.*.log\n", w->name);
        good = r->has_pytorch && !different;
    }
    if (!*o->check && !different) {
        *complete = pairs_of(o, &ours, &theirs, r);
        if (!*complete) {
            const bool dead = ours.pid == 0;
            fprintf(stderr, "  %s died: %s\n", dead ? "fasttrain" : "PyTorch", dead ? ours.reason : theirs.reason);
            good = false;
        }
    }
    side_stop(&ours, 10);
    side_stop(&theirs, 10);
    return good;
}

/* A number, or null where there is none. */
static void put(FILE *file, const char *key, bool there, double value) {
    if (there && isfinite(value))
        fprintf(file, ", \"%s\": %.6g", key, value);
    else
        fprintf(file, ", \"%s\": null", key);
}

/* Speeds are samples/s, rss_ MiB, first_step_ seconds. Written anew after each workload, so that what was measured
 * stays when the run is broken off. */
static bool write_json(const settings *o, const row *rows, int count) {
    char part[512];
    snprintf(part, sizeof part, "%s.part", o->json);
    FILE *file = fopen(part, "w");
    if (!file) return fprintf(stderr, "%s: %s\n", part, strerror(errno)), false;
    fprintf(file, "[");
    for (int i = 0; i < count; i++) {
        const row *r = &rows[i];
        fprintf(file, "%s\n  {\"workload\": \"%s\", \"dtype\": \"%s\", \"threads\": %d, \"simd\": \"%s\"", i ? "," : "",
                r->name, o->dtype, atoi(o->threads), r->simd);
        put(file, "fasttrain", true, r->fasttrain);
        put(file, "pytorch", r->has_pytorch, r->pytorch);
        put(file, "ratio", r->has_pytorch, r->ratio);
        put(file, "ratio_min", r->has_pytorch, r->ratio_min);
        put(file, "ratio_max", r->has_pytorch, r->ratio_max);
        put(file, "rss_fasttrain", true, r->rss[0]);
        put(file, "rss_pytorch", r->has_pytorch, r->rss[1]);
        put(file, "first_step_fasttrain", true, r->first_step[0]);
        put(file, "first_step_pytorch", r->has_pytorch, r->first_step[1]);
        fprintf(file, r->has_pytorch ? ", \"mode\": \"%s\"}" : ", \"mode\": null}", r->mode);
    }
    fprintf(file, "\n]\n");
    if (fclose(file) || rename(part, o->json)) return fprintf(stderr, "%s: %s\n", o->json, strerror(errno)), false;
    return true;
}

static void print_header(void) {
    printf("\n%-16s %10s %10s  %-20s %15s  %15s  %s\n", "samples/s", "fasttrain", "PyTorch", "ratio (min to max)",
           "peak RSS, MiB", "first step, s", "PyTorch's mode");
}

static void print_row(const row *r) {
    char ratio[64];
    snprintf(ratio, sizeof ratio, "%.2f (%.2f to %.2f)", r->ratio, r->ratio_min, r->ratio_max);
    if (r->has_pytorch)
        printf("%-16s %10.5g %10.5g  %-20s %7.0f %7.0f  %7.2f %7.2f  %s\n", r->name, r->fasttrain, r->pytorch, ratio,
               r->rss[0], r->rss[1], r->first_step[0], r->first_step[1], r->mode);
    else
        printf("%-16s %10.5g %10s  %-20s %7.0f %7s  %7.2f %7s  %s\n", r->name, r->fasttrain, "-", "-", r->rss[0], "-",
               r->first_step[0], "-", "not run");
}

static void print_machine(const settings *o) {
    char line[256], model[200] = "CPU unknown";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "model name : %199[^\n]", model) == 1) break;
    if (file) fclose(file);
    const time_t now = time(NULL);
    strftime(line, sizeof line, "%Y-%m-%d", localtime(&now));
    printf("%s, %ld cores, %s; %s threads, %s%s%s; rounds of %s s after %s s of rest\n", model,
           sysconf(_SC_NPROCESSORS_ONLN), line, o->threads, o->dtype, *o->simd ? ", limited to " : "", o->simd, o->round,
           o->rest);
}

/* Whether the interpreter has PyTorch; otherwise says why not. */
static bool find_pytorch(const settings *o) {
    side s;
    char line[256];
    char *argv[] = {(char *)o->python, "-c", "import torch; print('torch', torch.__version__)", NULL};
    if (!*o->python) return printf("PYTHON names no interpreter with PyTorch: fasttrain alone\n"), false;
    const bool found =
        side_start(&s, "build/bench/python.log", argv, NULL) && side_read(&s, "torch ", 300, line, sizeof line);
    if (found)
        printf("%s: %s\n", o->python, line);
    else
        printf("%s has no PyTorch (%s): fasttrain alone\n", o->python, s.reason);
    side_stop(&s, 10);
    return found;
}

static bool parse(int argc, char **argv, settings *o, bool chosen[WORKLOADS]) {
    *o = (settings){"python3", "2", "f32", "5", "2", "0", "", "", "", "build/bench.json"};
    const struct {
        const char *name, **value;
    } names[] = {{"PYTHON=", &o->python}, {"THREADS=", &o->threads}, {"DTYPE=", &o->dtype},
                 {"PAIRS=", &o->pairs},   {"ROUND=", &o->round},     {"REST=", &o->rest},
                 {"SIMD=", &o->simd},     {"MODES=", &o->modes},     {"CHECK=", &o->check},
                 {"JSON=", &o->json}};
    bool any = false;
    for (int i = 1; i < argc; i++) {
        bool known = false;
        for (int k = 0; k < 10; k++) {
            if (strncmp(argv[i], names[k].name, strlen(names[k].name)) != 0) continue;
            *names[k].value = argv[i] + strlen(names[k].name);
            known = true;
        }
        for (int k = 0; k < WORKLOADS && !known; k++) /* "infer" is all that begin with "infer-" */
            if (strcmp(argv[i], workloads[k].name) == 0 || strcmp(argv[i], workloads[k].program) == 0)
                chosen[k] = any = true;
        for (int k = 0; k < WORKLOADS; k++)
            known = known || strcmp(argv[i], workloads[k].name) == 0 || strcmp(argv[i], workloads[k].program) == 0;
        if (!known) return fprintf(stderr, "run: '%s' is neither a setting nor a workload\n", argv[i]), false;
    }
    for (int k = 0; k < WORKLOADS && !any; k++) chosen[k] = true;
    if (atoi(o->pairs) < 1 || atoi(o->pairs) > MOST_PAIRS || atoi(o->threads) < 1 || !(strtod(o->round, NULL) > 0) ||
        (strcmp(o->dtype, "f32") != 0 && strcmp(o->dtype, "bf16") != 0))
        return fprintf(stderr, "run: PAIRS is 1 to %d, THREADS 1 or more, ROUND above 0, DTYPE f32 or bf16\n",
                       MOST_PAIRS),
               false;
    return true;
}

int main(int argc, char **argv) {
    settings o;
    bool chosen[WORKLOADS] = {false}, good = true, complete;
    row rows[WORKLOADS];
    int count = 0;
    if (!parse(argc, argv, &o, chosen)) return EXIT_FAILURE;
    print_machine(&o);
    const bool with_pytorch = find_pytorch(&o);
    for (int i = 0; i < WORKLOADS; i++) {
        if (!chosen[i]) continue;
        good = run(&o, &workloads[i], with_pytorch, &rows[count], &complete) && good;
        if (complete) print_row(&rows[count++]);
        if (!*o.check) good = write_json(&o, rows, count) && good;
    }
    if (*o.check) return good ? EXIT_SUCCESS : EXIT_FAILURE;
    print_header(); /* all rows together, after the lines of the modes */
    for (int i = 0; i < count; i++) print_row(&rows[i]);
    if (!with_pytorch) printf("PyTorch was not run: PYTHON=/path/to/python3 names an interpreter that has it\n");
    if (!good) printf("not everything ran: see above\n");
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
