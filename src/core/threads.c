/* A job is open while tasks may be taken from it. Workers join an open job under the mutex and count as active until
 * they found no task left; the caller works too, then closes the job and waits for the active ones. A worker that wakes
 * late finds the job closed and never touches it. Between jobs a worker spins for some microseconds, because the nodes
 * of a step follow each other closely, and sleeps then. With more threads than cores nobody spins. */
#include "core/threads.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__linux__)
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#endif

#define FTR__SPINS 1500

typedef struct ftr__worker {
    ftr__pool *pool;
    int32_t index;
    pthread_t thread;
} ftr__worker;

struct ftr__pool {
    int32_t threads;
    int32_t started; /* workers that run */
    int32_t spins;
    ftr__worker *workers; /* threads - 1 of them */

    pthread_mutex_t mutex;
    pthread_cond_t job_opened;
    pthread_cond_t all_left;
    int32_t sleeping;
    bool caller_sleeping;
    bool open, stop;
    atomic_int generation; /* counts jobs; written under the mutex */
    atomic_int active;     /* workers in the open job; written under the mutex */

    ftr__task_fn fn;
    void *arg;
    int64_t tasks;
    atomic_llong next;
};

static inline void ftr__pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void ftr__take_tasks(ftr__pool *pool, int32_t worker) {
    for (;;) {
        const int64_t task = (int64_t)atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks) return;
        pool->fn(pool->arg, task, worker);
    }
}

static void *ftr__worker_main(void *arg) {
    ftr__worker *worker = arg;
    ftr__pool *pool = worker->pool;
    int seen = 0;
    for (;;) {
        for (int32_t i = 0; i < pool->spins && atomic_load_explicit(&pool->generation, memory_order_acquire) == seen;
             i++)
            ftr__pause();
        pthread_mutex_lock(&pool->mutex);
        while (!pool->stop && atomic_load_explicit(&pool->generation, memory_order_relaxed) == seen) {
            pool->sleeping++;
            pthread_cond_wait(&pool->job_opened, &pool->mutex);
            pool->sleeping--;
        }
        seen = atomic_load_explicit(&pool->generation, memory_order_relaxed);
        const bool stop = pool->stop, join = pool->open && !pool->stop;
        if (join) atomic_fetch_add_explicit(&pool->active, 1, memory_order_relaxed);
        pthread_mutex_unlock(&pool->mutex);
        if (stop) return NULL;
        if (!join) continue;
        ftr__take_tasks(pool, worker->index);
        pthread_mutex_lock(&pool->mutex);
        if (atomic_fetch_sub_explicit(&pool->active, 1, memory_order_release) == 1 && pool->caller_sleeping)
            pthread_cond_signal(&pool->all_left);
        pthread_mutex_unlock(&pool->mutex);
    }
}

static void ftr__pool_open_job(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg) {
    pthread_mutex_lock(&pool->mutex);
    pool->fn = fn;
    pool->arg = arg;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    pool->open = true;
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    if (pool->sleeping > 0) pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
}

static void ftr__pool_close_job(ftr__pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    pool->open = false;
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->spins && atomic_load_explicit(&pool->active, memory_order_acquire) > 0; i++)
        ftr__pause();
    pthread_mutex_lock(&pool->mutex);
    pool->caller_sleeping = true;
    while (atomic_load_explicit(&pool->active, memory_order_acquire) > 0)
        pthread_cond_wait(&pool->all_left, &pool->mutex);
    pool->caller_sleeping = false;
    pthread_mutex_unlock(&pool->mutex);
}

void ftr__pool_run(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg) {
    if (pool->started == 0 || tasks <= 1) {
        for (int64_t task = 0; task < tasks; task++) fn(arg, task, 0);
        return;
    }
    ftr__pool_open_job(pool, tasks, fn, arg);
    ftr__take_tasks(pool, 0);
    ftr__pool_close_job(pool);
}

int32_t ftr__pool_threads(const ftr__pool *pool) { return pool->threads; }

int ftr__thread_start(pthread_t *thread, void *(*run)(void *), void *arg) {
    static const int kept[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
    sigset_t blocked, before;
    sigfillset(&blocked);
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(kept); i++) sigdelset(&blocked, kept[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, &before); /* a thread begins with the mask of the one that makes it */
    const int code = pthread_create(thread, NULL, run, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

void ftr__thread_step_back(void) {
#if defined(__linux__)
    const int nice =
        5; /* a quarter of a core that a thread of the usual 0 wants too: other processes may use it as well */
    errno = 0;
    const int now = getpriority(PRIO_PROCESS, 0); /* 0 is the thread, as Linux has it, not the process */
    if ((now != -1 || errno == 0) && now < nice) (void)setpriority(PRIO_PROCESS, 0, nice);
#endif
}

static ftr_status ftr__pool_start(ftr_context *context, ftr__pool *pool) {
    for (int32_t i = 0; i < pool->threads - 1; i++) {
        ftr__worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->index = i + 1;
        const int code = ftr__thread_start(&worker->thread, ftr__worker_main, worker);
        if (code)
            return ftr__error(context, FTR_ERROR_THREAD, "context: thread %d of %d could not be started (error %d)",
                              i + 2, pool->threads, code);
        pool->started++;
    }
    return FTR_OK;
}

ftr_status ftr__pool_create(ftr_context *context, int32_t threads, ftr__pool **pool) {
    *pool = NULL;
    const size_t worker_bytes = (size_t)threads * sizeof(ftr__worker);
    ftr__pool *made = ftr__allocate(context, sizeof *made + worker_bytes);
    if (!made) return ftr__out_of_memory(context, "thread pool", sizeof *made + worker_bytes);
    *made = (ftr__pool){.threads = threads, .workers = (ftr__worker *)(made + 1)};
    made->spins = threads <= ftr__core_count() ? FTR__SPINS : 0;
    atomic_init(&made->generation, 0);
    atomic_init(&made->active, 0);
    atomic_init(&made->next, 0);
    pthread_mutex_init(&made->mutex, NULL);
    pthread_cond_init(&made->job_opened, NULL);
    pthread_cond_init(&made->all_left, NULL);
    const ftr_status status = ftr__pool_start(context, made);
    if (status) {
        ftr__pool_destroy(context, made);
        return status;
    }
    *pool = made;
    return FTR_OK;
}

void ftr__pool_destroy(ftr_context *context, ftr__pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->mutex);
    pool->stop = true;
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->all_left);
    pthread_cond_destroy(&pool->job_opened);
    pthread_mutex_destroy(&pool->mutex);
    ftr__release(context, pool, sizeof *pool + (size_t)pool->threads * sizeof(ftr__worker));
}

int32_t ftr__core_count(void) {
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (int32_t)CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online <= 1024 ? (int32_t)online : 1;
}
