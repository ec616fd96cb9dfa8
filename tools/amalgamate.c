/* Makes fasttrain.h and fasttrain_cuda.cu from src/.
 *
 *   amalgamate SRC LICENSE OUTPUT         the single file
 *   amalgamate --cuda SRC LICENSE OUTPUT  the CUDA backend's
 *   amalgamate --umbrella SRC OUTPUT      a header that includes the public headers of SRC, for builds from src/
 *
 * SRC/MANIFEST lists the files and their order. Includes of project files are dropped, because the file was written out
 * before; so an include has to name a file that stands above its own in MANIFEST. A source that includes a template
 * gets, in place of that line, an include of the single file by itself with FTR__TEMPLATE_PASS set: the templates are
 * its other half. OUTPUT is left alone when it would not change. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES 1024

typedef enum kind { API, PRIVATE, SOURCE, TEMPLATE, CUDA } kind;
static const char *const kind_names[] = {"api", "private", "source", "template", "cuda"};

typedef enum directive { TEXT, INCLUDE_SYSTEM, INCLUDE_PROJECT, OPEN, CLOSE, OTHER } directive;

typedef struct line {
    char *text; /* without the line end */
    directive directive;
    char *name; /* of an include */
} line;

typedef struct file {
    kind kind;
    char *path; /* relative to SRC */
    line *lines;
    size_t count;
    size_t guard[3]; /* the lines of its include guard: ifndef, define, endif */
    bool guarded, written;
    int pass; /* template that a source includes: its FTR__TEMPLATE_PASS; otherwise 0 */
} file;

typedef struct buffer {
    char *data;
    size_t size, capacity;
    bool blank; /* the last line was empty */
} buffer;

static file files[MAX_FILES];
static size_t file_count;
static int pass_count;
static char *headers[MAX_FILES]; /* system headers that were included unconditionally */
static size_t header_count;

static void fail(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("amalgamate: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static void *allocate(void *old, size_t size) {
    void *memory = realloc(old, size);
    if (!memory) fail("out of memory");
    return memory;
}

static char *copy_text(const char *text, size_t length) {
    char *copy = allocate(NULL, length + 1);
    memcpy(copy, text, length);
    copy[length] = 0;
    return copy;
}

/* The whole file with a 0 behind it; NULL if it cannot be opened. */
static char *read_file(const char *path) {
    FILE *stream = fopen(path, "rb");
    if (!stream) return NULL;
    char *data = NULL;
    size_t size = 0, got;
    do {
        data = allocate(data, size + 65537);
        got = fread(data + size, 1, 65536, stream);
        size += got;
    } while (got > 0);
    data[size] = 0;
    if (ferror(stream)) fail("%s: %s", path, strerror(errno));
    if (memchr(data, 0, size)) fail("%s: holds a 0 byte", path);
    fclose(stream);
    return data;
}

static void put(buffer *out, const char *text) {
    size_t length = strlen(text);
    if (length == 0 && out->blank) return;
    if (out->size + length + 1 > out->capacity) {
        out->capacity = 2 * out->capacity + length + 1024;
        out->data = allocate(out->data, out->capacity);
    }
    memcpy(out->data + out->size, text, length);
    out->data[out->size + length] = '\n';
    out->size += length + 1;
    out->blank = length == 0;
}

static void put_format(buffer *out, const char *format, const char *argument) {
    char text[1024];
    if (snprintf(text, sizeof text, format, argument) >= (int)sizeof text) fail("%s: too long", argument);
    put(out, text);
}

static file *find_file(const char *path) {
    for (size_t i = 0; i < file_count; i++)
        if (strcmp(files[i].path, path) == 0) return &files[i];
    return NULL;
}

/* ------------------------------------------------------------------------------------------------------- reading -- */

/* Fills in what kind of directive a line is. `text` starts with '#'. */
static void classify(line *l, const char *text, const char *where) {
    text++;
    text += strspn(text, " \t");
    size_t word = strspn(text, "abcdefghijklmnopqrstuvwxyz");
    l->directive = OTHER;
    if (word >= 2 && strncmp(text, "if", 2) == 0) l->directive = OPEN;
    if (word == 5 && strncmp(text, "endif", 5) == 0) l->directive = CLOSE;
    if (word != 7 || strncmp(text, "include", 7) != 0) return;
    text += word + strspn(text + word, " \t");
    const char *end = strchr(text + 1, *text == '<' ? '>' : '"');
    if ((*text != '<' && *text != '"') || !end) fail("%s: an include names its file in <> or \"\": %s", where, l->text);
    l->directive = *text == '<' ? INCLUDE_SYSTEM : INCLUDE_PROJECT;
    l->name = copy_text(text + 1, (size_t)(end - text - 1));
}

/* Whether a block comment is open at the end of a line. */
static bool comment_after(const char *text, bool comment) {
    for (char quote = 0; *text; text++) {
        if (comment) {
            if (text[0] == '*' && text[1] == '/') comment = false, text++;
        } else if (quote) {
            if (*text == '\\' && text[1])
                text++;
            else if (*text == quote)
                quote = 0;
        } else if (text[0] == '/' && text[1] == '*') {
            comment = true, text++;
        } else if (text[0] == '/' && text[1] == '/') {
            return false;
        } else if (*text == '"' || *text == '\'') {
            quote = *text;
        }
    }
    return comment;
}

static void split_lines(file *f, const char *text) {
    bool comment = false, continued = false;
    while (*text) {
        size_t length = strcspn(text, "\n"), used = length;
        while (used > 0 && isspace((unsigned char)text[used - 1])) used--;
        f->lines = allocate(f->lines, (f->count + 1) * sizeof *f->lines);
        line *l = &f->lines[f->count++];
        *l = (line){.text = copy_text(text, used)};
        const char *start = l->text + strspn(l->text, " \t");
        if (*start == '#' && !comment && !continued) classify(l, start, f->path);
        comment = comment_after(l->text, comment);
        continued = used > 0 && l->text[used - 1] == '\\';
        text += length + (text[length] == '\n');
    }
    if (comment) fail("%s: a comment is not closed", f->path);
}

/* An include guard: #ifndef X, #define X are the first directives, and the #endif that ends it is the last one. */
static void find_guard(file *f) {
    size_t found = 0;
    int depth = 0;
    bool whole = true;
    for (size_t i = 0; i < f->count; i++) {
        if (f->lines[i].directive == TEXT) continue;
        if (found < 2)
            f->guard[found++] = i;
        else
            f->guard[2] = i;
        if (f->lines[i].directive == OPEN) depth++;
        if (f->lines[i].directive == CLOSE) depth--;
        if (depth < 0) fail("%s:%zu: #endif without #if", f->path, i + 1);
        if (depth == 0 && found == 2 && f->guard[2] != 0) {
            for (size_t k = i + 1; k < f->count; k++) whole = whole && f->lines[k].directive == TEXT;
        }
    }
    if (depth != 0) fail("%s: #if without #endif", f->path);
    char first[256], second[256];
    f->guarded = whole && found == 2 && f->guard[2] > f->guard[1] &&
                 sscanf(f->lines[f->guard[0]].text, " # ifndef %255s", first) == 1 &&
                 sscanf(f->lines[f->guard[1]].text, " # define %255s", second) == 1 && strcmp(first, second) == 0;
    bool header = (f->kind == API || f->kind == PRIVATE || strstr(f->path, ".cuh")) && !strstr(f->path, ".def");
    if (header && found > 0 && !f->guarded)
        fail("src/%s: a header needs an include guard around everything but comments", f->path);
}

static void read_manifest(const char *src) {
    char path[1024], kind_name[16], name[512], rest[2];
    snprintf(path, sizeof path, "%s/MANIFEST", src);
    char *text = read_file(path);
    if (!text) fail("%s: %s", path, strerror(errno));
    int number = 0;
    for (char *next = text; *next;) {
        char *entry = next;
        next += strcspn(next, "\n");
        if (*next) *next++ = 0;
        number++;
        entry += strspn(entry, " \t\r");
        if (!*entry || *entry == '#') continue;
        file f = {0};
        if (sscanf(entry, "%15s %511s %1s", kind_name, name, rest) != 2)
            fail("%s:%d: expected 'kind file', found '%s'", path, number, entry);
        while (f.kind <= CUDA && strcmp(kind_names[f.kind], kind_name) != 0) f.kind++;
        if (f.kind > CUDA) fail("%s:%d: unknown kind '%s'", path, number, kind_name);
        if (find_file(name)) fail("%s:%d: %s is listed twice", path, number, name);
        if (file_count == MAX_FILES) fail("%s:%d: more than %d files", path, number, MAX_FILES);
        f.path = copy_text(name, strlen(name));
        files[file_count++] = f;
    }
    free(text);
}

static void read_sources(const char *src) {
    char path[1024];
    int missing = 0;
    for (size_t i = 0; i < file_count; i++) {
        file *f = &files[i];
        snprintf(path, sizeof path, "%s/%s", src, f->path);
        char *text = read_file(path);
        if (!text) {
            fprintf(stderr, "amalgamate: %s: %s (listed in %s/MANIFEST)\n", path, strerror(errno), src);
            missing++;
            continue;
        }
        split_lines(f, text);
        find_guard(f);
        free(text);
    }
    if (missing) exit(1);
}

/* ------------------------------------------------------------------------------------------------------- writing -- */

static bool first_time(const char *header) {
    for (size_t i = 0; i < header_count; i++)
        if (strcmp(headers[i], header) == 0) return false;
    if (header_count == MAX_FILES) fail("more than %d system headers", MAX_FILES);
    headers[header_count++] = copy_text(header, strlen(header));
    return true;
}

/* The file that an include names, after checking that it may be included there. */
static file *included_file(const file *from, size_t at) {
    const char *name = from->lines[at].name;
    file *f = find_file(name);
    if (!f) fail("src/%s:%zu: includes \"%s\", which is not in MANIFEST", from->path, at + 1, name);
    if (f >= from) fail("src/%s:%zu: includes \"%s\", which is not above it in MANIFEST", from->path, at + 1, name);
    if (f->kind == SOURCE) fail("src/%s:%zu: includes the source \"%s\"", from->path, at + 1, name);
    if (f->kind != API && (f->kind == CUDA) != (from->kind == CUDA))
        fail("src/%s:%zu: includes \"%s\", which is %s", from->path, at + 1, name, kind_names[f->kind]);
    if (f->kind != API && from->kind == API)
        fail("src/%s:%zu: a public header includes \"%s\", which is %s", from->path, at + 1, name, kind_names[f->kind]);
    if (f->kind == TEMPLATE && from->kind != SOURCE && from->kind != TEMPLATE)
        fail("src/%s:%zu: a header includes the template \"%s\"", from->path, at + 1, name);
    return f;
}

static void put_file(buffer *out, file *f);

static void put_include(buffer *out, const file *f, size_t at) {
    char number[16];
    file *to = included_file(f, at);
    if (to->kind != TEMPLATE) return;
    to->written = true;
    if (f->kind == TEMPLATE) {
        put_file(out, to);
        return;
    }
    if (to->pass == 0) to->pass = ++pass_count;
    snprintf(number, sizeof number, "%d", to->pass);
    put_format(out, "#define FTR__TEMPLATE_PASS %s", number);
    put(out, "#include FASTTRAIN_SELF");
    put(out, "#undef FTR__TEMPLATE_PASS");
}

static void put_file(buffer *out, file *f) {
    int depth = 0;
    f->written = true;
    put(out, "");
    put_format(out, "/* ---- src/%s ---- */", f->path);
    for (size_t i = 0; i < f->count; i++) {
        const line *l = &f->lines[i];
        if (f->guarded && (i == f->guard[0] || i == f->guard[1] || i == f->guard[2])) continue;
        if (l->directive == OPEN) depth++;
        if (l->directive == CLOSE) depth--;
        if (l->directive == INCLUDE_PROJECT) {
            put_include(out, f, i);
        } else if (l->directive != INCLUDE_SYSTEM || depth > 0 || f->kind == TEMPLATE || first_time(l->name)) {
            put(out, l->text);
        }
    }
}

static bool has_directives(const file *f) {
    for (size_t i = 0; i < f->count; i++)
        if (f->lines[i].directive != TEXT &&
            !(f->guarded && (i == f->guard[0] || i == f->guard[1] || i == f->guard[2])))
            return true;
    return false;
}

static void put_feature_macros(buffer *out) {
    put(out, "");
    put(out, "/* The implementation uses POSIX. These have to stand before the first system header of the .c file. */");
    put(out, "#ifdef FASTTRAIN_IMPLEMENTATION");
    put(out, "#ifndef _GNU_SOURCE");
    put(out, "#define _GNU_SOURCE");
    put(out, "#endif");
    put(out, "#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)");
    put(out, "#define _DARWIN_C_SOURCE");
    put(out, "#endif");
    put(out, "#endif");
}

static void put_api(buffer *out) {
    bool macros = false;
    put(out, "#ifndef FASTTRAIN_H");
    put(out, "#define FASTTRAIN_H");
    for (size_t i = 0; i < file_count; i++) {
        if (files[i].kind != API) continue;
        if (!macros && has_directives(&files[i])) {
            put_feature_macros(out);
            macros = true;
        }
        put_file(out, &files[i]);
    }
    put(out, "#endif /* FASTTRAIN_H */");
    put(out, "");
}

static void put_implementation(buffer *out) {
    put(out, "#if defined(FASTTRAIN_IMPLEMENTATION) && !defined(FASTTRAIN_IMPLEMENTATION_DONE)");
    put(out, "#define FASTTRAIN_IMPLEMENTATION_DONE");
    put(out, "#ifdef __cplusplus");
    put(out, "#error \"fasttrain.h: define FASTTRAIN_IMPLEMENTATION in a .c file; the implementation is C11\"");
    put(out, "#endif");
    put(out, "#if defined(__GLIBC__) && !defined(__USE_MISC)");
    put(out,
        "#error \"fasttrain.h: where FASTTRAIN_IMPLEMENTATION is defined, include fasttrain.h before other headers\"");
    put(out, "#endif");
    put(out, "#define FTR_LIB static");
    put(out, "/* How this file includes itself, once an instruction set. Where it has another name and the compiler "
             "does not know");
    put(out, " * __FILE_NAME__ (gcc before 12), define FASTTRAIN_SELF to that name, in quotes. */");
    put(out, "#ifndef FASTTRAIN_SELF");
    put(out, "#ifdef __FILE_NAME__");
    put(out, "#define FASTTRAIN_SELF __FILE_NAME__");
    put(out, "#else");
    put(out, "#define FASTTRAIN_SELF \"fasttrain.h\"");
    put(out, "#endif");
    put(out, "#endif");
    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind == PRIVATE || files[i].kind == SOURCE) put_file(out, &files[i]);
    put(out, "");
    put(out, "#endif /* FASTTRAIN_IMPLEMENTATION */");
    put(out, "");
}

static void put_templates(buffer *out) {
    char number[16];
    put(out, "#else /* FTR__TEMPLATE_PASS: this file was included by itself */");
    for (size_t i = 0; i < file_count; i++) {
        if (files[i].kind != TEMPLATE || files[i].pass == 0) continue;
        snprintf(number, sizeof number, "%d", files[i].pass);
        put_format(out, "#if FTR__TEMPLATE_PASS == %s", number);
        put_file(out, &files[i]);
        put(out, "#endif");
    }
    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind == TEMPLATE && !files[i].written)
            fail("src/%s: no source includes this template", files[i].path);
    put(out, "#endif /* FTR__TEMPLATE_PASS */");
    put(out, "");
}

static void put_license(buffer *out, const char *path) {
    char *text = read_file(path);
    if (!text) fail("%s: %s", path, strerror(errno));
    put(out, "/*");
    for (char *next = text; *next;) {
        char *start = next;
        next += strcspn(next, "\n");
        if (*next) *next++ = 0;
        put(out, start);
    }
    put(out, "*/");
    free(text);
}

static void put_single_file(buffer *out, const char *license) {
    put(out, "/* fasttrain: a deep-learning trainer in one file. MIT license, at the end of the file.");
    put(out, " * Generated from src/ by `make amalgamate`: a change belongs there.");
    put(out, " *");
    put(out, " *     #define FASTTRAIN_IMPLEMENTATION   in exactly one .c file, before other headers");
    put(out, " *     #include \"fasttrain.h\"");
    put(out, " *");
    put(out, " * Link with -lm -lpthread. */");
    put(out, "#ifndef FTR__TEMPLATE_PASS");
    put_api(out);
    put_implementation(out);
    put_templates(out);
    put_license(out, license);
}

static void put_cuda_file(buffer *out, const char *license) {
    put(out, "/* The CUDA backend of fasttrain, for nvcc. MIT license, at the end of the file.");
    put(out, " * Generated from src/ by `make amalgamate`: a change belongs there.");
    put(out, " *");
    put(out, " *     nvcc -std=c++17 -O2 -c fasttrain_cuda.cu");
    put(out, " *");
    put(out, " * Stands beside the fasttrain.h of the same version. */");
    put(out, "#include \"fasttrain.h\"");
    put(out, "#define FTR__CUDA_LIB static");
    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind == CUDA) put_file(out, &files[i]);
    put(out, "");
    put_license(out, license);
}

static void put_umbrella(buffer *out) {
    put(out, "/* The public headers of src/, for builds from src/. Generated. */");
    put(out, "#ifndef FASTTRAIN_H");
    put(out, "#define FASTTRAIN_H");
    for (size_t i = 0; i < file_count; i++)
        if (files[i].kind == API && !strstr(files[i].path, ".def")) put_format(out, "#include \"%s\"", files[i].path);
    put(out, "#endif");
}

/* Written beside OUTPUT and renamed: OUTPUT is never half a file. */
static void write_output(const char *path, const buffer *out) {
    char *old = read_file(path), temporary[1024];
    bool same = old && strlen(old) == out->size && memcmp(old, out->data, out->size) == 0;
    free(old);
    if (same) return;
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary) fail("%s: too long", path);
    FILE *stream = fopen(temporary, "wb");
    if (!stream) fail("%s: %s", temporary, strerror(errno));
    bool written = fwrite(out->data, 1, out->size, stream) == out->size;
    if (fclose(stream) != 0 || !written) fail("%s: %s", temporary, strerror(errno));
    if (rename(temporary, path) != 0) fail("%s: %s", path, strerror(errno));
}

int main(int count, char **arguments) {
    bool umbrella = count == 4 && strcmp(arguments[1], "--umbrella") == 0;
    bool cuda = count == 5 && strcmp(arguments[1], "--cuda") == 0;
    if (count != 4 && !cuda) {
        fputs("usage: amalgamate [--cuda] SRC LICENSE OUTPUT\n       amalgamate --umbrella SRC OUTPUT\n", stderr);
        return 2;
    }
    buffer out = {0};
    const char *src = arguments[umbrella || cuda ? 2 : 1];
    read_manifest(src);
    if (umbrella) {
        put_umbrella(&out);
    } else {
        read_sources(src);
        if (cuda)
            put_cuda_file(&out, arguments[3]);
        else
            put_single_file(&out, arguments[2]);
    }
    write_output(arguments[count - 1], &out);
    free(out.data);
    return 0;
}
