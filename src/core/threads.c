/* A job is open while tasks may be taken from it. Workers join an open job and count as active until they found no task
 * left; the caller works too, then closes the job and waits for the active ones. A worker that comes late finds the job
 * closed and never touches it. One atomic word holds the job's number, whether it is open and how many are active, so that
 * joining and leaving take no lock. Between jobs a worker spins for a moment, because the nodes of a step follow each other
 * closely, and sleeps then. With more threads than cores nobody spins. */
#include "core/threads.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

#if defined(__linux__)
#include <errno.h>
#include <sched.h>
#include <sys/resource.h>
#endif

#define FTR__SPINS 4000 /* 100 to 200 microseconds */

/* ftr__pool.state: the job's number, then whether it is open, then the active workers. */
#define FTR__JOB_NEXT ((uint64_t)1 << 32)
#define FTR__JOB_OPEN ((uint64_t)1 << 31)
#define FTR__JOB_ACTIVE (FTR__JOB_OPEN - 1)

/* A thread's part of a job's tasks: neighbours, so that it meets the same rows from node to node, which are then in its
 * core's cache. Whoever is done with its own part goes on with the others'. */
typedef struct ftr__part {
    _Alignas(FTR__ALIGNMENT) atomic_llong next;
    int64_t end;
} ftr__part;

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
    ftr__part *parts;     /* one a thread */

    pthread_mutex_t mutex; /* for those that sleep */
    pthread_cond_t job_opened;
    pthread_cond_t all_left;
    atomic_int sleeping;         /* workers that sleep, or are about to */
    atomic_bool caller_sleeping; /* likewise */
    atomic_bool stop;
    atomic_ullong state;

    /* The job: written by the caller while none is open and nobody active. */
    ftr__task_fn fn;
    void *arg;
};

static inline void ftr__pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

static void ftr__take_tasks(ftr__pool *pool, int32_t worker) {
    for (int32_t i = 0; i < pool->threads; i++) {
        ftr__part *part = &pool->parts[(worker + i) % pool->threads];
        for (;;) {
            const int64_t task = (int64_t)atomic_fetch_add_explicit(&part->next, 1, memory_order_relaxed);
            if (task >= part->end) break;
            pool->fn(pool->arg, task, worker);
        }
    }
}

static uint64_t ftr__job_number(uint64_t state) { return state / FTR__JOB_NEXT; }

/* Waits for another job than number `seen`, or for the end. */
static void ftr__await_job(ftr__pool *pool, uint64_t seen) {
    for (int32_t i = 0; i < pool->spins; i++) {
        if (ftr__job_number(atomic_load_explicit(&pool->state, memory_order_acquire)) != seen) return;
        ftr__pause();
    }
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleeping, 1); /* before looking again: the caller opens a job, then looks for sleepers */
    while (!atomic_load(&pool->stop) && ftr__job_number(atomic_load(&pool->state)) == seen)
        pthread_cond_wait(&pool->job_opened, &pool->mutex);
    atomic_fetch_sub(&pool->sleeping, 1);
    pthread_mutex_unlock(&pool->mutex);
}

/* Counts as active if the job is open. *seen is its number. */
static bool ftr__join_job(ftr__pool *pool, uint64_t *seen) {
    unsigned long long state = atomic_load(&pool->state);
    do {
        *seen = ftr__job_number(state);
        if (!(state & FTR__JOB_OPEN)) return false;
    } while (!atomic_compare_exchange_weak(&pool->state, &state, state + 1));
    return true;
}

static void ftr__leave_job(ftr__pool *pool) {
    const uint64_t state = atomic_fetch_sub(&pool->state, 1);
    if ((state & FTR__JOB_ACTIVE) != 1 || !atomic_load(&pool->caller_sleeping)) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_signal(&pool->all_left);
    pthread_mutex_unlock(&pool->mutex);
}

static void *ftr__worker_main(void *arg) {
    ftr__worker *worker = arg;
    ftr__pool *pool = worker->pool;
    uint64_t seen = 0;
    while (!atomic_load(&pool->stop)) {
        if (ftr__join_job(pool, &seen)) {
            ftr__take_tasks(pool, worker->index);
            ftr__leave_job(pool);
        }
        ftr__await_job(pool, seen);
    }
    return NULL;
}

static void ftr__pool_open_job(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg) {
    pool->fn = fn;
    pool->arg = arg;
    for (int32_t i = 0; i < pool->threads; i++) {
        atomic_store_explicit(&pool->parts[i].next, tasks * i / pool->threads, memory_order_relaxed);
        pool->parts[i].end = tasks * (i + 1) / pool->threads;
    }
    const uint64_t number = ftr__job_number(atomic_load_explicit(&pool->state, memory_order_relaxed)) + 1;
    atomic_store(&pool->state, number * FTR__JOB_NEXT | FTR__JOB_OPEN);
    if (atomic_load(&pool->sleeping) == 0) return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
}

static bool ftr__pool_is_busy(ftr__pool *pool) { return (atomic_load(&pool->state) & FTR__JOB_ACTIVE) != 0; }

static void ftr__pool_close_job(ftr__pool *pool) {
    atomic_fetch_and(&pool->state, ~FTR__JOB_OPEN);
    for (int32_t i = 0; i < pool->spins && ftr__pool_is_busy(pool); i++) ftr__pause();
    if (!ftr__pool_is_busy(pool)) return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->caller_sleeping, true); /* before looking again: a worker leaves, then looks for the caller */
    while (ftr__pool_is_busy(pool)) pthread_cond_wait(&pool->all_left, &pool->mutex);
    atomic_store(&pool->caller_sleeping, false);
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

/* The parts, the pool, its workers. */
static size_t ftr__pool_bytes(int32_t threads) {
    return (size_t)threads * (sizeof(ftr__part) + sizeof(ftr__worker)) + sizeof(ftr__pool);
}

ftr_status ftr__pool_create(ftr_context *context, int32_t threads, ftr__pool **pool) {
    *pool = NULL;
    const size_t bytes = ftr__pool_bytes(threads);
    ftr__part *parts = ftr__allocate(context, bytes);
    if (!parts) return ftr__out_of_memory(context, "thread pool", bytes);
    ftr__pool *made = (ftr__pool *)(void *)(parts + threads);
    *made = (ftr__pool){.threads = threads, .parts = parts, .workers = (ftr__worker *)(made + 1)};
    made->spins = threads <= ftr__core_count() ? FTR__SPINS : 0;
    atomic_init(&made->sleeping, 0);
    atomic_init(&made->caller_sleeping, false);
    atomic_init(&made->stop, false);
    atomic_init(&made->state, 0);
    for (int32_t i = 0; i < threads; i++) {
        atomic_init(&parts[i].next, 0);
        parts[i].end = 0;
    }
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
    atomic_store(&pool->stop, true);
    atomic_fetch_add(&pool->state, FTR__JOB_NEXT); /* for those that spin */
    pthread_cond_broadcast(&pool->job_opened);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->all_left);
    pthread_cond_destroy(&pool->job_opened);
    pthread_mutex_destroy(&pool->mutex);
    ftr__release(context, pool->parts, ftr__pool_bytes(pool->threads));
}

int32_t ftr__core_count(void) {
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return (int32_t)CPU_COUNT(&set);
#endif
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online > 0 && online <= 1024 ? (int32_t)online : 1;
}
