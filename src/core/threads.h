/* Thread pool. A job is cut into tasks by the caller, from the problem alone; threads take tasks in any order. Results
 * are the same for any number of threads because a task's work depends only on its number. */
#ifndef FTR_CORE_THREADS_H
#define FTR_CORE_THREADS_H

#include "core/core.h"

#include <pthread.h>

typedef struct ftr__pool ftr__pool;

/* `worker` is 0 .. threads - 1 and serves to pick a scratch area; 0 is the calling thread. */
typedef void (*ftr__task_fn)(void *arg, int64_t task, int32_t worker);

/* A pool of `threads` threads, the caller's included. */
FTR_LIB ftr_status ftr__pool_create(ftr_context *context, int32_t threads, ftr__pool **pool);
FTR_LIB void ftr__pool_destroy(ftr_context *context, ftr__pool *pool);
FTR_LIB int32_t ftr__pool_threads(const ftr__pool *pool);

/* Runs task 0 .. tasks - 1 and returns when all are done. Not reentrant. */
FTR_LIB void ftr__pool_run(ftr__pool *pool, int64_t tasks, ftr__task_fn fn, void *arg);

/* Starts a thread that takes no signals of the application's: all but those that a fault of its own raises, and
 * SIGPROF, are blocked in it. An error number, 0 for none. */
FTR_LIB int ftr__thread_start(pthread_t *thread, void *(*run)(void *), void *arg);

/* Lets the other threads of the system go before the calling one from now on, where that can be asked for. */
FTR_LIB void ftr__thread_step_back(void);

/* Cores that this process may use. */
FTR_LIB int32_t ftr__core_count(void);

#endif
