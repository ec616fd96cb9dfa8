#include "io_calls.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

io_action (*io_hook)(const char *call, const char *path);
int io_error;

enum { MOST = 256, PATH = 512 };

/* What a descriptor was opened for. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char paths[MOST][PATH];
static bool writable[MOST];

static void note(int descriptor, const char *path, bool writes) {
    if (descriptor < 0 || descriptor >= MOST) return;
    pthread_mutex_lock(&mutex);
    snprintf(paths[descriptor], PATH, "%s", path);
    writable[descriptor] = writes;
    pthread_mutex_unlock(&mutex);
}

/* False if it is not known. */
static bool look_up(int descriptor, char path[PATH], bool *writes) {
    if (descriptor < 0 || descriptor >= MOST) return false;
    pthread_mutex_lock(&mutex);
    memcpy(path, paths[descriptor], PATH);
    *writes = writable[descriptor];
    pthread_mutex_unlock(&mutex);
    return *path != 0;
}

/* What is to be done; failures and deaths before the call happen here. */
static io_action ask(const char *call, const char *path) {
    const io_action action = io_hook ? io_hook(call, path) : IO_PASS;
    if (action == IO_KILL) raise(SIGKILL);
    if (action == IO_DELAY) usleep(200000);
    if (action == IO_FAIL) errno = io_error;
    return action;
}

static int after(io_action action, int result) {
    if (action == IO_KILL_AFTER) raise(SIGKILL);
    return result;
}

/* ISO C has no conversion from dlsym()'s result to a function; POSIX has. */
#define REAL(type, name)                                                                                               \
    type real;                                                                                                         \
    {                                                                                                                  \
        void *found = dlsym(RTLD_NEXT, name);                                                                          \
        memcpy(&real, &found, sizeof real);                                                                            \
    }

typedef int (*open_fn)(const char *, int, ...);
typedef ssize_t (*write_fn)(int, const void *, size_t);
typedef int (*descriptor_fn)(int);
typedef int (*mkdir_fn)(const char *, mode_t);
typedef int (*rename_fn)(const char *, const char *);
typedef int (*unlinkat_fn)(int, const char *, int);
typedef int (*path_fn)(const char *);
typedef DIR *(*opendir_fn)(const char *);
typedef int (*create_fn)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    const mode_t mode = flags & O_CREAT ? (mode_t)va_arg(arguments, int) : 0;
    va_end(arguments);
    REAL(open_fn, "open");
    const io_action action = ask("open", path);
    if (action == IO_FAIL) return -1;
    const int descriptor = real(path, flags, mode);
    note(descriptor, path, (flags & O_ACCMODE) != O_RDONLY);
    return after(action, descriptor);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char path[PATH];
    bool writes;
    REAL(write_fn, "write");
    if (!look_up(descriptor, path, &writes)) return real(descriptor, data, size);
    const io_action action = ask("write", path);
    if (action == IO_FAIL) return -1;
    if (action == IO_NOTHING) return 0;
    const ssize_t written =
        real(descriptor, data, action == IO_SHORT || action == IO_KILL_AFTER ? (size + 1) / 2 : size);
    after(action, 0);
    return written;
}

int fsync(int descriptor) {
    char path[PATH] = "";
    bool writes;
    look_up(descriptor, path, &writes);
    REAL(descriptor_fn, "fsync");
    const io_action action = ask("fsync", path);
    return action == IO_FAIL ? -1 : after(action, real(descriptor));
}

int close(int descriptor) {
    char path[PATH];
    bool writes;
    REAL(descriptor_fn, "close");
    if (!look_up(descriptor, path, &writes)) return real(descriptor);
    note(descriptor, "", false);
    const io_action action = writes ? ask("close", path) : IO_PASS;
    const int result = real(descriptor);
    if (action == IO_FAIL) errno = io_error;
    return action == IO_FAIL ? -1 : after(action, result);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir_fn, "mkdir");
    const io_action action = ask("mkdir", path);
    return action == IO_FAIL ? -1 : after(action, real(path, mode));
}

int rename(const char *from, const char *to) {
    char both[2 * PATH];
    snprintf(both, sizeof both, "%s>%s", from, to);
    REAL(rename_fn, "rename");
    const io_action action = ask("rename", both);
    return action == IO_FAIL ? -1 : after(action, real(from, to));
}

int unlinkat(int folder, const char *path, int flags) {
    REAL(unlinkat_fn, "unlinkat");
    const io_action action = ask("unlink", path);
    return action == IO_FAIL ? -1 : after(action, real(folder, path, flags));
}

int rmdir(const char *path) {
    REAL(path_fn, "rmdir");
    const io_action action = ask("rmdir", path);
    return action == IO_FAIL ? -1 : after(action, real(path));
}

DIR *opendir(const char *path) {
    REAL(opendir_fn, "opendir");
    const io_action action = ask("opendir", path);
    DIR *directory = action == IO_FAIL ? NULL : real(path);
    after(action, 0);
    return directory;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument) {
    REAL(create_fn, "pthread_create");
    const io_action action = ask("pthread_create", "");
    return action == IO_FAIL ? io_error : after(action, real(thread, attributes, run, argument));
}
