/* Trains a small GPT on the bytes of a text, in a loop of its own, and lets it write. README.md has examples;
 * `gpt --help` lists the options.
 *
 * There are two graphs with equal weights: one for training, with a batch of sequences, and one that writes, with a
 * single sequence. Weights are copied from the first to the second before it writes. */
#define FASTTRAIN_IMPLEMENTATION
#include "fasttrain.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BIBLE "bible -f Gen1:1-Rev22:21 2>/dev/null"
#define HELD_OUT_BATCHES 4 /* a measurement of the held-out loss */

typedef struct options {
    const char *text, *save, *load, *prompt;
    int64_t steps, batch, context, layers, width, heads, seed, threads, sample_every, generate, top_k;
    double lr, temperature;
} options;

/* The bytes that occur, in ascending order: token i is byte[i]. */
typedef struct vocabulary {
    int32_t count;
    unsigned char byte[256];
    int32_t token[256]; /* -1: the byte does not occur */
} vocabulary;

typedef struct text {
    const char *name;
    unsigned char *bytes;
    int64_t count;
    int64_t trained; /* the rest is held out */
} text;

/* A graph: tokens [batch, context] to logits, and the loss of each token's successor. */
typedef struct model {
    ftr_graph *graph;
    ftr_tensor tokens, next, logits, loss;
    int64_t batch, context;
} model;

typedef struct program {
    options chosen;
    vocabulary words;
    text corpus;
    ftr_context *context;
    model writer, learner;
    ftr_plan *write, *learn, *measure;
    int32_t *tokens, *next; /* a batch */
    float *logits;          /* [context, vocabulary] */
} program;

/* Prints the sentence of a failure. */
static bool fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("gpt: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return false;
}

static bool ok(const program *p, ftr_status status) {
    return status == FTR_OK || fail("%s", ftr_error_message(p->context));
}

/* ------------------------------------------------------------------------------------------------------- options -- */

typedef struct option {
    const char *name, *argument, *help;
    size_t at; /* of the value in `options` */
    enum { STRING, INTEGER, REAL } kind;
    double min, max;
} option;

#define OPTION(name, argument, field, kind, min, max, help)                                                            \
    { name, argument, help, offsetof(options, field), kind, min, max }

static const option option_table[] = {
    OPTION("--text", "FILE", text, STRING, 0, 0, "what to learn; without it the output of `bible`, if it is installed"),
    OPTION("--steps", "N", steps, INTEGER, 0, 1e9, "steps of training; 1000, with --load 0"),
    OPTION("--batch", "N", batch, INTEGER, 1, 65536, "sequences a step; 16"),
    OPTION("--context", "N", context, INTEGER, 1, 65536, "bytes of a sequence; 64"),
    OPTION("--layers", "N", layers, INTEGER, 1, 1000, "blocks of the network; 4"),
    OPTION("--width", "N", width, INTEGER, 1, 65536, "of the network; 128"),
    OPTION("--heads", "N", heads, INTEGER, 1, 65536, "of attention, which divide the width; 4"),
    OPTION("--lr", "X", lr, REAL, 0, 1e9, "highest learning rate; 0.003"),
    OPTION("--seed", "N", seed, INTEGER, 0, 9e15, "of first weights, the choice of sequences and what is written; 1"),
    OPTION("--threads", "N", threads, INTEGER, 0, 1024, "0, the default, is one for each core"),
    OPTION("--sample-every", "N", sample_every, INTEGER, 0, 1e9,
           "write after so many steps; 0 is only at the end; 100"),
    OPTION("--save", "FILE", save, STRING, 0, 0, "where the weights and the vocabulary go, as safetensors"),
    OPTION("--load", "FILE", load, STRING, 0, 0, "weights to start from, which --save wrote"),
    OPTION("--generate", "N", generate, INTEGER, 0, 1e9, "bytes to write; 200"),
    OPTION("--prompt", "TEXT", prompt, STRING, 0, 0, "what the written text starts with; a new line"),
    OPTION("--temperature", "X", temperature, REAL, 0, 1e9, "0 takes the likeliest byte, 1 follows the network; 0.8"),
    OPTION("--top-k", "N", top_k, INTEGER, 0, 256, "choose among the likeliest N; 0, the default, is all"),
};

#define OPTION_COUNT (sizeof option_table / sizeof option_table[0])

static void print_help(void) {
    printf("usage: gpt [OPTION VALUE]...\n\n");
    for (size_t i = 0; i < OPTION_COUNT; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s %s", option_table[i].name, option_table[i].argument);
        printf("  %-17s %s\n", name, option_table[i].help);
    }
}

static bool set_option(options *chosen, const option *which, const char *value) {
    void *at = (char *)chosen + which->at;
    char *end = NULL;
    errno = 0;
    double number = which->kind == STRING ? 0
                    : which->kind == REAL ? strtod(value, &end)
                                          : (double)strtoll(value, &end, 10);
    if (which->kind == STRING) {
        *(const char **)at = value;
        return true;
    }
    if (end == value || *end != '\0' || errno || !(number >= which->min && number <= which->max))
        return fail("%s is '%s', expected %s from %.0f to %.0f", which->name, value,
                    which->kind == REAL ? "a number" : "a whole number", which->min, which->max);
    if (which->kind == REAL)
        *(double *)at = number;
    else
        *(int64_t *)at = (int64_t)number;
    return true;
}

/* Options that were not given stay as they are. */
static bool parse(int argc, char **argv, options *chosen) {
    for (int i = 1; i < argc; i += 2) {
        const option *found = NULL;
        for (size_t k = 0; k < OPTION_COUNT; k++)
            if (strcmp(argv[i], option_table[k].name) == 0) found = &option_table[k];
        if (!found) return fail("'%s' is no option; --help lists them", argv[i]);
        if (i + 1 == argc) return fail("%s has no %s behind it", argv[i], found->argument);
        if (!set_option(chosen, found, argv[i + 1])) return false;
    }
    return true;
}

/* -1 stands for what was not given. */
static const options not_given = {.steps = -1,
                                  .batch = -1,
                                  .context = -1,
                                  .layers = -1,
                                  .width = -1,
                                  .heads = -1,
                                  .seed = -1,
                                  .threads = -1,
                                  .sample_every = -1,
                                  .generate = -1,
                                  .top_k = -1,
                                  .lr = -1,
                                  .temperature = -1};

static void set_default(int64_t *value, int64_t otherwise) {
    if (*value < 0) *value = otherwise;
}

/* After the sizes of a loaded network are known. */
static void set_defaults(options *chosen) {
    set_default(&chosen->steps, chosen->load ? 0 : 1000);
    set_default(&chosen->batch, 16);
    set_default(&chosen->context, 64);
    set_default(&chosen->layers, 4);
    set_default(&chosen->width, 128);
    set_default(&chosen->heads, 4);
    set_default(&chosen->seed, 1);
    set_default(&chosen->threads, 0);
    set_default(&chosen->sample_every, 100);
    set_default(&chosen->generate, 200);
    set_default(&chosen->top_k, 0);
    if (chosen->lr < 0) chosen->lr = 3e-3;
    if (chosen->temperature < 0) chosen->temperature = 0.8;
}

/* ---------------------------------------------------------------------------------------------------------- text -- */

/* Appends all of a stream. */
static bool read_stream(text *into, FILE *stream) {
    int64_t room = into->count;
    for (;;) {
        if (into->count == room) {
            room = room * 2 + 65536;
            unsigned char *larger = realloc(into->bytes, (size_t)room);
            if (!larger) return fail("%s: no memory for %lld bytes", into->name, (long long)room);
            into->bytes = larger;
        }
        size_t got = fread(into->bytes + into->count, 1, (size_t)(room - into->count), stream);
        if (got == 0) return !ferror(stream) || fail("%s: %s", into->name, strerror(errno));
        into->count += (int64_t)got;
    }
}

static bool read_file(text *into, const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return fail("%s: %s", path, strerror(errno));
    bool good = read_stream(into, file);
    fclose(file);
    return good;
}

/* Nothing is there if the program is not installed. */
static bool read_bible(text *into) {
    FILE *pipe = popen(BIBLE, "r");
    if (!pipe) return true;
    into->name = "the King James Bible (bible-kjv)";
    bool good = read_stream(into, pipe);
    pclose(pipe);
    return good;
}

static bool read_text(program *p) {
    text *corpus = &p->corpus;
    if (p->chosen.text) {
        corpus->name = p->chosen.text;
        if (!read_file(corpus, p->chosen.text)) return false;
    } else {
        if (!read_bible(corpus)) return false;
        if (corpus->count == 0) {
            corpus->name = "LICENSE and README.md";
            printf("no --text, and the program bible is not installed: learning fasttrain's LICENSE and README.md\n");
            if (!read_file(corpus, "LICENSE") || !read_file(corpus, "README.md")) return false;
        }
    }
    int64_t needed = 10 * (p->chosen.context + 1);
    if (corpus->count < needed)
        return fail(
            "%s: %lld bytes, expected %lld or more: a tenth is held out, and a sequence has %lld and its successor",
            corpus->name, (long long)corpus->count, (long long)needed, (long long)p->chosen.context);
    corpus->trained = corpus->count - corpus->count / 10;
    return true;
}

static void add_words(vocabulary *words, const bool there[256]) {
    words->count = 0;
    for (int byte = 0; byte < 256; byte++) {
        words->token[byte] = there[byte] ? words->count : -1;
        if (there[byte]) words->byte[words->count++] = (unsigned char)byte;
    }
}

/* The text's own vocabulary; or, for a loaded network, whether its vocabulary has all bytes of the text. */
static bool check_words(program *p) {
    const text *corpus = &p->corpus;
    bool there[256] = {false};
    for (int64_t i = 0; i < corpus->count; i++) {
        if (p->chosen.load && p->words.token[corpus->bytes[i]] < 0)
            return fail("%s: byte 0x%02x at %lld is not in the vocabulary of %d bytes that %s was trained with",
                        corpus->name, corpus->bytes[i], (long long)i, (int)p->words.count, p->chosen.load);
        there[corpus->bytes[i]] = true;
    }
    if (!p->chosen.load) add_words(&p->words, there);
    return true;
}

/* -------------------------------------------------------------------------------------------------------- models -- */

static model build(const program *p, int64_t batch) {
    const options *chosen = &p->chosen;
    model m = {.graph = ftr_graph_create(p->context), .batch = batch, .context = chosen->context};
    ftr_shape shape = FTR_SHAPE(batch, chosen->context);
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS);
    desc.vocabulary = p->words.count;
    desc.context = chosen->context;
    desc.layers = (int32_t)chosen->layers;
    desc.width = chosen->width;
    desc.heads = (int32_t)chosen->heads;
    m.tokens = ftr_input(m.graph, "tokens", FTR_I32, shape);
    m.next = ftr_input(m.graph, "next", FTR_I32, shape);
    m.logits = ftr_gpt(m.tokens, &desc);
    m.loss = ftr_cross_entropy(m.logits, m.next, NULL);
    return m;
}

static size_t bytes_of(ftr_tensor tensor) {
    ftr_shape shape = ftr_shape_of(tensor);
    return (size_t)ftr_shape_count(&shape) * ftr_dtype_size(ftr_dtype_of(tensor));
}

/* Both graphs declare the same parameters in the same order. */
static bool copy_weights(const program *p, const model *from, const model *to) {
    for (int32_t i = 0; i < ftr_variable_count(from->graph); i++) {
        ftr_tensor source = ftr_variable_at(from->graph, i), target = ftr_variable_at(to->graph, i);
        size_t bytes = bytes_of(source);
        void *data = malloc(bytes);
        if (!data) return fail("no memory for %s", ftr_name_of(source));
        bool good = ok(p, ftr_variable_read(source, data, bytes)) && ok(p, ftr_variable_write(target, data, bytes));
        free(data);
        if (!good) return false;
    }
    return true;
}

static int64_t parameter_count(const model *m) {
    int64_t count = 0;
    for (int32_t i = 0; i < ftr_variable_count(m->graph); i++)
        count += (int64_t)(bytes_of(ftr_variable_at(m->graph, i)) / sizeof(float));
    return count;
}

static bool prepare(program *p) {
    const options *chosen = &p->chosen;
    p->writer = build(p, 1);
    ftr_compile_desc write = {.mode = FTR_MODE_EVAL, .outputs = &p->writer.logits, .output_count = 1};
    if (!ok(p, ftr_compile(p->writer.graph, &write, &p->write))) return false;
    if (chosen->load && !ok(p, ftr_load_weights(p->writer.graph, chosen->load, NULL, NULL))) return false;
    size_t sequence = (size_t)chosen->context, batch = (size_t)chosen->batch;
    p->tokens = malloc(batch * sequence * sizeof *p->tokens);
    p->next = malloc(batch * sequence * sizeof *p->next);
    p->logits = malloc(sequence * (size_t)p->words.count * sizeof *p->logits);
    if (!p->tokens || !p->next || !p->logits) return fail("no memory for a batch");
    if (chosen->steps == 0) return true;
    p->learner = build(p, chosen->batch);
    ftr_optimizer adamw = ftr_adamw(chosen->lr);
    ftr_compile_desc learn = {.loss = p->learner.loss, .optimizer = &adamw};
    ftr_compile_desc measure = {.mode = FTR_MODE_EVAL, .loss = p->learner.loss};
    return ok(p, ftr_compile(p->learner.graph, &learn, &p->learn)) &&
           ok(p, ftr_compile(p->learner.graph, &measure, &p->measure)) && copy_weights(p, &p->writer, &p->learner);
}

/* --------------------------------------------------------------------------------------------------------- files -- */

static const struct {
    const char *key;
    size_t at;
} sizes[] = {{"context", offsetof(options, context)},
             {"layers", offsetof(options, layers)},
             {"width", offsetof(options, width)},
             {"heads", offsetof(options, heads)}};

/* One file holds all: sizes and vocabulary stand in its metadata. */
static bool save(const program *p) {
    const ftr_graph *graph = p->writer.graph;
    int32_t count = ftr_variable_count(graph);
    size_t total = (size_t)parameter_count(&p->writer) * sizeof(float);
    ftr_safetensors_item *items = calloc((size_t)count, sizeof *items);
    char *data = malloc(total);
    bool good = (items && data) || fail("no memory for %zu bytes of weights", total);
    size_t used = 0;
    for (int32_t i = 0; i < count && good; i++) {
        ftr_tensor variable = ftr_variable_at(p->writer.graph, i);
        items[i] = (ftr_safetensors_item){ftr_name_of(variable), FTR_F32, ftr_shape_of(variable), data + used};
        good = ok(p, ftr_variable_read(variable, data + used, bytes_of(variable)));
        used += bytes_of(variable);
    }
    char bytes[2 * 256 + 1] = "", number[4][24];
    const char *metadata[12] = {"format", "pt", "vocabulary", bytes};
    for (int32_t i = 0; i < p->words.count; i++) snprintf(bytes + 2 * i, 3, "%02x", p->words.byte[i]);
    for (int i = 0; i < 4; i++) {
        snprintf(number[i], sizeof number[i], "%lld",
                 (long long)*(const int64_t *)((const char *)&p->chosen + sizes[i].at));
        metadata[4 + 2 * i] = sizes[i].key;
        metadata[5 + 2 * i] = number[i];
    }
    good = good && ok(p, ftr_safetensors_write(p->context, p->chosen.save, items, count, metadata, 6));
    free(data);
    free(items);
    return good;
}

/* Two hexadecimal digits a byte, ascending. */
static bool parse_words(const char *digits, vocabulary *words) {
    bool there[256] = {false};
    size_t length = strlen(digits);
    if (length == 0 || length % 2 || length > 512 || strspn(digits, "0123456789abcdef") != length) return false;
    for (int last = -1; *digits; digits += 2) {
        char pair[3] = {digits[0], digits[1], '\0'};
        int byte = (int)strtol(pair, NULL, 16);
        if (byte <= last) return false;
        there[last = byte] = true;
    }
    add_words(words, there);
    return true;
}

/* Sizes and vocabulary of a saved network. A size that was also given on the command line must be the same. */
static bool read_metadata(options *chosen, vocabulary *words, const ftr_safetensors *file) {
    const char *digits = ftr_safetensors_metadata(file, "vocabulary");
    if (!digits || !parse_words(digits, words))
        return fail("%s: its metadata have no vocabulary as --save writes it", chosen->load);
    for (int i = 0; i < 4; i++) {
        const char *found = ftr_safetensors_metadata(file, sizes[i].key);
        char *end = NULL;
        long long size = found ? strtoll(found, &end, 10) : 0;
        int64_t *value = (int64_t *)((char *)chosen + sizes[i].at);
        if (!found || *end || size < 1 || size > 65536)
            return fail("%s: its metadata have no %s as --save writes it", chosen->load, sizes[i].key);
        if (*value >= 0 && *value != size)
            return fail("--%s is %lld, but %s has %lld", sizes[i].key, (long long)*value, chosen->load, size);
        *value = size;
    }
    return true;
}

static bool load(program *p) {
    ftr_safetensors *file = NULL;
    if (!ok(p, ftr_safetensors_open(p->context, p->chosen.load, &file))) return false;
    bool good = read_metadata(&p->chosen, &p->words, file);
    ftr_safetensors_close(file);
    return good;
}

/* ------------------------------------------------------------------------------------------------------- writing -- */

/* splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014), from 0 to 1. */
static double random_number(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

/* The value that `k` logits reach or exceed. */
static float kth_largest(const float *logits, int32_t count, int64_t k) {
    float kth = INFINITY;
    for (int64_t found = 0; found < k;) {
        float largest = -INFINITY;
        for (int32_t i = 0; i < count; i++)
            if (logits[i] < kth && logits[i] > largest) largest = logits[i];
        if (largest == -INFINITY) return kth; /* fewer than k */
        kth = largest;
        for (int32_t i = 0; i < count; i++) found += logits[i] == kth;
    }
    return kth;
}

/* Draws a token from softmax(logits / temperature), restricted to the top k. */
static int32_t choose(const options *chosen, const float *logits, int32_t count, uint64_t *state) {
    int32_t best = 0;
    for (int32_t i = 1; i < count; i++) best = logits[i] > logits[best] ? i : best;
    double number = random_number(state), sum = 0, weight[256];
    if (chosen->temperature == 0) return best;
    float least = chosen->top_k > 0 && chosen->top_k < count ? kth_largest(logits, count, chosen->top_k) : -INFINITY;
    for (int32_t i = 0; i < count; i++) {
        weight[i] = logits[i] >= least ? exp(((double)logits[i] - (double)logits[best]) / chosen->temperature) : 0;
        sum += weight[i];
    }
    number *= sum;
    for (int32_t i = 0; i < count; i++) {
        number -= weight[i];
        if (number < 0 && weight[i] > 0) return i;
    }
    return best;
}

/* New lines and printable bytes, those of UTF-8 included; others as \xNN. */
static void print_byte(unsigned char byte) {
    if (byte == '\n' || byte == '\t' || (byte >= 32 && byte != 127))
        putchar(byte);
    else
        printf("\\x%02x", byte);
}

/* Tokens of the prompt, without which a new line (or the first byte of the vocabulary) starts the text. Only the last
 * `context` of them count. Returns how many; 0 on a failure. */
static int64_t start_text(const program *p, int32_t *tokens) {
    const char *prompt = p->chosen.prompt;
    if (!prompt) {
        tokens[0] = p->words.token['\n'] >= 0 ? p->words.token['\n'] : 0;
        return 1;
    }
    int64_t length = (int64_t)strlen(prompt), skip = length > p->writer.context ? length - p->writer.context : 0;
    for (int64_t i = skip; i < length; i++) {
        tokens[i - skip] = p->words.token[(unsigned char)prompt[i]];
        if (tokens[i - skip] < 0)
            return fail("--prompt has byte 0x%02x, which the vocabulary lacks", (unsigned char)prompt[i]);
    }
    for (int64_t i = 0; i < length; i++) print_byte((unsigned char)prompt[i]);
    return length - skip;
}

/* Prints text: each byte is drawn by what the network makes of the `context` bytes before it. The places behind them
 * are filled with token 0, which no earlier place sees. */
static bool write_text(program *p) {
    int64_t context = p->writer.context, count = p->words.count;
    int32_t *tokens = calloc((size_t)context, sizeof *tokens);
    if (!tokens) return fail("no memory for a sequence");
    uint64_t state = (uint64_t)p->chosen.seed;
    int64_t length = start_text(p, tokens);
    bool good = length > 0;
    for (int64_t i = 0; i < p->chosen.generate && good; i++) {
        good = ok(p, ftr_feed(p->write, p->writer.tokens, tokens, (size_t)context * sizeof *tokens)) &&
               ok(p, ftr_step(p->write, NULL)) &&
               ok(p, ftr_read(p->write, p->writer.logits, p->logits, (size_t)(context * count) * sizeof *p->logits));
        if (!good) break;
        int32_t next = choose(&p->chosen, p->logits + (length - 1) * count, (int32_t)count, &state);
        print_byte(p->words.byte[next]);
        if (length == context)
            memmove(tokens, tokens + 1, (size_t)(context - 1) * sizeof *tokens);
        else
            length++;
        tokens[length - 1] = next;
    }
    free(tokens);
    if (good) putchar('\n');
    fflush(stdout);
    return good;
}

/* ------------------------------------------------------------------------------------------------------ training -- */

/* Row `row` of the batch: `context` tokens from byte `at` on, and their successors. */
static void put_sequence(program *p, int64_t row, int64_t at) {
    int64_t context = p->learner.context;
    const unsigned char *bytes = p->corpus.bytes + at;
    for (int64_t i = 0; i < context; i++) {
        p->tokens[row * context + i] = p->words.token[bytes[i]];
        p->next[row * context + i] = p->words.token[bytes[i + 1]];
    }
}

static bool run_batch(program *p, ftr_plan *plan, ftr_step_info *info) {
    size_t bytes = (size_t)(p->learner.batch * p->learner.context) * sizeof *p->tokens;
    return ok(p, ftr_feed(plan, p->learner.tokens, p->tokens, bytes)) &&
           ok(p, ftr_feed(plan, p->learner.next, p->next, bytes)) && ok(p, ftr_step(plan, info));
}

/* Mean loss of sequences spread evenly over what is held out. */
static bool held_out_loss(program *p, double *loss) {
    int64_t places = p->corpus.count - p->corpus.trained - p->learner.context,
            total = HELD_OUT_BATCHES * p->learner.batch;
    *loss = 0;
    for (int64_t i = 0; i < total; i++) {
        ftr_step_info info;
        put_sequence(p, i % p->learner.batch, p->corpus.trained + i * places / total);
        if ((i + 1) % p->learner.batch != 0) continue;
        if (!run_batch(p, p->measure, &info)) return false;
        *loss += info.loss / HELD_OUT_BATCHES;
    }
    return true;
}

/* Rises over the first tenth of the steps (20 at least, 100 at most), then falls along half a cosine to a tenth. */
static double learning_rate(const options *chosen, int64_t step) {
    double warm = fmin(fmax((double)chosen->steps / 10, 20), 100), done = (double)step + 1;
    if (done < warm) return chosen->lr * done / warm;
    double share = (done - warm) / ((double)chosen->steps - warm + 1);
    return chosen->lr * (0.55 + 0.45 * cos(3.14159265358979323846 * share));
}

/* Which sequences a step sees follows from the seed and the step: all places of the text come in a shuffled order. */
static bool learn_step(program *p, int64_t step, ftr_step_info *info) {
    int64_t places = p->corpus.trained - p->learner.context, batch = p->learner.batch;
    for (int64_t row = 0; row < batch; row++) {
        int64_t i = step * batch + row;
        put_sequence(p, row, ftr_shuffled_index((uint64_t)p->chosen.seed, (uint64_t)(i / places), i % places, places));
    }
    return ok(p, ftr_plan_set_lr(p->learn, learning_rate(&p->chosen, step))) && run_batch(p, p->learn, info);
}

static bool train(program *p) {
    const options *chosen = &p->chosen;
    int64_t every = chosen->steps < 10 ? 1 : chosen->steps / 10, counted = 0;
    double seconds = 0, sum = 0, held_out = 0;
    for (int64_t step = 1; step <= chosen->steps; step++) {
        ftr_step_info info;
        if (!learn_step(p, step - 1, &info)) return false;
        sum += info.loss, counted++, seconds += info.seconds;
        bool last = step == chosen->steps;
        if (step == 1 || step % every == 0 || last) {
            if (!held_out_loss(p, &held_out)) return false;
            printf("step %6lld  loss %.4f  held out %.4f  lr %.2e\n", (long long)step, sum / (double)counted, held_out,
                   learning_rate(chosen, step - 1));
            fflush(stdout);
            sum = 0, counted = 0;
        }
        if (!last && chosen->generate > 0 && chosen->sample_every > 0 && step % chosen->sample_every == 0) {
            printf("--- after %lld steps\n", (long long)step);
            if (!copy_weights(p, &p->learner, &p->writer) || !write_text(p)) return false;
            printf("---\n");
        }
    }
    double tokens = (double)chosen->steps * (double)(p->learner.batch * p->learner.context);
    printf("trained on %.0f tokens in %.1f s, %.0f tokens/s\n", tokens, seconds, tokens / seconds);
    return copy_weights(p, &p->learner, &p->writer);
}

/* ---------------------------------------------------------------------------------------------------------- main -- */

static bool run(program *p) {
    options *chosen = &p->chosen;
    if (chosen->load && !load(p)) return false;
    set_defaults(chosen);
    if (!chosen->load && chosen->steps == 0) return fail("--steps is 0, and there are no weights: --load names them");
    if (chosen->prompt && !*chosen->prompt) return fail("--prompt is empty");
    if (chosen->steps > 0 && (!read_text(p) || !check_words(p))) return false;
    if (!prepare(p)) return false;
    printf("%lld parameters: %lld layers, %lld wide, %lld heads, context %lld, vocabulary %d; %d thread(s), %s\n",
           (long long)parameter_count(&p->writer), (long long)chosen->layers, (long long)chosen->width,
           (long long)chosen->heads, (long long)chosen->context, (int)p->words.count,
           (int)ftr_context_threads(p->context), ftr_context_simd_name(p->context));
    if (chosen->steps > 0) {
        printf("%s: %lld bytes to train on, %lld held out\n", p->corpus.name, (long long)p->corpus.trained,
               (long long)(p->corpus.count - p->corpus.trained));
        if (!train(p)) return false;
    }
    if (chosen->save && !save(p)) return false;
    if (chosen->generate == 0) return true;
    printf("---\n");
    return write_text(p);
}

int main(int argc, char **argv) {
    static program p;
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0) return print_help(), 0;
    p.chosen = not_given;
    if (!parse(argc, argv, &p.chosen)) return 1;
    ftr_context_desc desc = {.seed = (uint64_t)(p.chosen.seed < 0 ? 1 : p.chosen.seed),
                             .threads = (int32_t)(p.chosen.threads < 0 ? 0 : p.chosen.threads)};
    bool good = ftr_context_create(&desc, &p.context) == FTR_OK || fail("no context, which needs memory and threads");
    good = good && run(&p);
    ftr_plan_destroy(p.learn);
    ftr_plan_destroy(p.measure);
    ftr_plan_destroy(p.write);
    ftr_graph_destroy(p.learner.graph);
    ftr_graph_destroy(p.writer.graph);
    ftr_context_destroy(p.context);
    free(p.tokens);
    free(p.next);
    free(p.logits);
    free(p.corpus.bytes);
    return good ? 0 : 1;
}
