/* One side of a comparison: a child process that gets lines on its stdin and answers with lines, see bench.h --serve.
 * Its stderr goes to a file, whose last line is the reason when it dies. POSIX alone. */
#ifndef BENCH_SIDE_H
#define BENCH_SIDE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct side {
    pid_t pid; /* 0: none */
    int to, from;
    size_t kept;       /* bytes of `buffer`, read and not yet looked at */
    char buffer[8192]; /* what it printed */
    char log[512];     /* file with its stderr */
    char reason[1024]; /* why the last call failed */
} side;

static inline double side_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The last line of the log that says something. */
static inline void side_last_words(const side *s, char *words, size_t size) {
    FILE *file = fopen(s->log, "r");
    char line[700];
    words[0] = 0;
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\r\n")] = 0;
        if (line[strspn(line, " \t")]) snprintf(words, size, "%s", line);
    }
    if (file) fclose(file);
}

/* Ends the process: its stdin ends; after `patience` seconds it is killed. Returns its status as waitpid() has it. */
static inline int side_stop(side *s, double patience) {
    int status = 0;
    if (!s->pid) return 0;
    close(s->to), close(s->from);
    for (double end = side_now() + patience; waitpid(s->pid, &status, WNOHANG) == 0;) {
        if (side_now() > end) {
            kill(s->pid, SIGKILL);
            waitpid(s->pid, &status, 0);
            break;
        }
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    s->pid = 0;
    return status;
}

/* Starts a program; false with a reason. `argv` ends with NULL; so does `environment`, "NAME=value" in addition to the
 * caller's. */
static inline bool side_start(side *s, const char *log, char *const argv[], char *const environment[]) {
    int in[2], out[2];
    *s = (side){.pid = 0};
    snprintf(s->log, sizeof s->log, "%s", log);
    signal(SIGPIPE, SIG_IGN); /* a side that has gone shows as the end of its output */
    int errors = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (errors < 0 || pipe(in) || pipe(out)) {
        snprintf(s->reason, sizeof s->reason, "%s: %s", log, strerror(errno));
        return false;
    }
    fcntl(in[1], F_SETFD, FD_CLOEXEC), fcntl(out[0], F_SETFD, FD_CLOEXEC); /* or the other side would hold them open */
    fflush(NULL);
    s->pid = fork();
    if (s->pid == 0) {
        dup2(in[0], 0), dup2(out[1], 1), dup2(errors, 2);
        close(in[0]), close(out[1]), close(errors);
        signal(SIGPIPE, SIG_DFL);
        for (int i = 0; environment && environment[i]; i++) putenv(environment[i]);
        execvp(argv[0], argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(in[0]), close(out[1]), close(errors);
    s->to = in[1], s->from = out[0];
    if (s->pid < 0) {
        s->pid = 0;
        snprintf(s->reason, sizeof s->reason, "fork: %s", strerror(errno));
        close(s->to), close(s->from);
        return false;
    }
    return true;
}

/* The next line that holds `mark`, within `timeout` seconds; others are passed over. False with a reason, and the
 * process is gone. */
static inline bool side_read(side *s, const char *mark, double timeout, char *line, size_t size) {
    const double end = side_now() + timeout;
    char words[700];
    if (!s->pid) return false;
    for (;;) {
        char *newline = memchr(s->buffer, '\n', s->kept);
        if (newline || s->kept == sizeof s->buffer - 1) {
            const size_t length = newline ? (size_t)(newline - s->buffer) : s->kept;
            s->buffer[length] = 0;
            const bool found = strstr(s->buffer, mark) != NULL;
            if (found) snprintf(line, size, "%.*s", (int)(size - 1), s->buffer);
            s->kept -= newline ? length + 1 : length;
            memmove(s->buffer, s->buffer + (newline ? length + 1 : length), s->kept);
            if (found) return true;
            continue;
        }
        struct pollfd wait = {.fd = s->from, .events = POLLIN};
        const double left = end - side_now();
        if (left <= 0) {
            side_stop(s, 0);
            snprintf(s->reason, sizeof s->reason, "no answer within %.0f s; killed", timeout);
            return false;
        }
        if (poll(&wait, 1, (int)(1e3 * left) + 1) <= 0) continue;
        const ssize_t got = read(s->from, s->buffer + s->kept, sizeof s->buffer - 1 - s->kept);
        if (got > 0) {
            s->kept += (size_t)got;
            continue;
        }
        if (got < 0 && errno == EINTR) continue;
        const int status = side_stop(s, 10);
        side_last_words(s, words, sizeof words);
        if (WIFSIGNALED(status))
            snprintf(s->reason, sizeof s->reason, "killed by signal %d; %s", WTERMSIG(status), words);
        else
            snprintf(s->reason, sizeof s->reason, "exit status %d; %s", WEXITSTATUS(status), words);
        return false;
    }
}

/* Sends a line and reads the answer; as side_read(). */
static inline bool side_ask(side *s, const char *question, const char *mark, double timeout, char *line, size_t size) {
    const size_t length = strlen(question);
    /* A failed write shows as the end of its output. */
    if (s->pid && write(s->to, question, length) != (ssize_t)length) timeout = 10;
    return side_read(s, mark, timeout, line, size);
}

/* The number behind "key=" in a line; NAN if there is none. */
static inline double side_number(const char *line, const char *key) {
    char pattern[64];
    snprintf(pattern, sizeof pattern, " %s=", key);
    const char *at = strstr(line, pattern);
    return at ? strtod(at + strlen(pattern), NULL) : (double)NAN;
}

static inline int side_compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Sorts them. */
static inline double side_median(double *values, int count) {
    qsort(values, (size_t)count, sizeof *values, side_compare);
    return count % 2 ? values[count / 2] : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}

#endif
