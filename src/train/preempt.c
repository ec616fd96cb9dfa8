#include "train/preempt.h"

#include <time.h>

static const int ftr__preempt_signals[] = {SIGTERM, SIGUSR1};

static void ftr__preempt_fill(sigset_t *set) {
    sigemptyset(set);
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__preempt_signals); i++) sigaddset(set, ftr__preempt_signals[i]);
}

void ftr__preempt_begin(ftr__preempt *preempt) {
    sigset_t set;
    ftr__preempt_fill(&set);
    preempt->active = pthread_sigmask(SIG_BLOCK, &set, &preempt->before) == 0;
}

#if defined(__APPLE__)

/* macOS lacks sigtimedwait(). A signal that is pending for this thread or the process does not make sigwait() wait. */
int32_t ftr__preempt_poll(const ftr__preempt *preempt) {
    sigset_t pending, one;
    if (!preempt->active || sigpending(&pending) != 0) return 0;
    for (int32_t i = 0; i < FTR__ARRAY_LENGTH(ftr__preempt_signals); i++) {
        int taken = 0;
        if (sigismember(&pending, ftr__preempt_signals[i]) != 1) continue;
        sigemptyset(&one);
        sigaddset(&one, ftr__preempt_signals[i]);
        if (sigwait(&one, &taken) == 0) return (int32_t)taken;
    }
    return 0;
}

#else

int32_t ftr__preempt_poll(const ftr__preempt *preempt) {
    const struct timespec at_once = {0, 0};
    sigset_t set;
    if (!preempt->active) return 0;
    ftr__preempt_fill(&set);
    const int taken = sigtimedwait(&set, NULL, &at_once);
    return taken > 0 ? (int32_t)taken : 0;
}

#endif

void ftr__preempt_end(ftr__preempt *preempt) {
    if (preempt->active) pthread_sigmask(SIG_SETMASK, &preempt->before, NULL);
    preempt->active = false;
}
