/* The calls by which checkpoints reach the disk, with a hook in front of each: the program's own definitions stand
 * before those of the C library. */
#ifndef FTR_TESTS_FAULTS_IO_CALLS_H
#define FTR_TESTS_FAULTS_IO_CALLS_H

#include <stdbool.h>

typedef enum io_action {
    IO_PASS = 0,
    IO_FAIL,       /* the call fails with io_error */
    IO_SHORT,      /* a write takes half of what it is given */
    IO_NOTHING,    /* a write takes nothing and says so */
    IO_KILL,       /* the process is killed before the call */
    IO_KILL_AFTER, /* the process is killed after the call; a write has then taken half */
    IO_DELAY       /* the call takes 200 ms longer */
} io_action;

/* Told of each call while it is not NULL, from any thread: "open", "write", "fsync", "close", "mkdir", "rename",
 * "unlink", "rmdir", "opendir", "pthread_create", and the path, a file's also where the call has its descriptor only.
 * Of closes only those of files that were open for writing. A rename has its two paths with a '>' between them. */
extern io_action (*io_hook)(const char *call, const char *path);
extern int io_error; /* errno of IO_FAIL */

#endif
