/* Disks that fill up or fail, memory that runs out, signals while a save is under way: training goes on or ends as the
 * description says, the error names what failed, and the newest intact checkpoint always loads.
 * FTR_FAULT=long: each call fails in each way; otherwise every fifth. */
#include "io_calls.h"
#include "trainee.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

typedef struct fixture {
    char made[FTR_TEST_PATH], folder[FTR_TEST_PATH];
    trainee_result whole;
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    ftr_test_folder(f->made);
    ftr_test_path(f->folder, f->made, "run");
    const trainee_desc desc = trainee_defaults();
    trainee_run(&desc, &f->whole);
    *state = f;
    return f->whole.status == FTR_OK ? 0 : -1;
}

static int teardown(void **state) {
    fixture *f = *state;
    io_hook = NULL;
    ftr_test_remove(f->made);
    free(f);
    return 0;
}

static bool is_long(void) {
    const char *effort = getenv("FTR_FAULT");
    return effort && strcmp(effort, "long") == 0;
}

static trainee_desc describe(const fixture *f) {
    trainee_desc desc = trainee_defaults();
    desc.checkpoint.directory = f->folder;
    desc.checkpoint.every_steps = 3;
    desc.checkpoint.keep_last = 2;
    desc.resume = FTR_RESUME_AUTO;
    return desc;
}

/* The newest checkpoint of the directory, which must be intact; resumed from it the run must come to the right end. */
static void check_resumes(const fixture *f, bool must) {
    io_hook = NULL;
    trainee_desc desc = describe(f);
    trainee_result result;
    desc.resume = must ? FTR_RESUME_MUST : FTR_RESUME_AUTO;
    trainee_run(&desc, &result);
    trainee_compare(&result, &f->whole);
    assert_string_equal(result.log.text, ""); /* nothing was passed over */
    assert_int_equal(ftr_test_entries(f->folder, ".tmp-"), 0);
}

/* ------------------------------------------------------------------------------------------------- failing calls -- */

static int64_t calls, strike_at;
static io_action strike;
static char struck_call[32], struck_path[FTR_TEST_PATH];

/* The one call that fails. */
static io_action strike_once(const char *call, const char *path) {
    const int64_t n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    const bool fits = strike == IO_FAIL || strcmp(call, "write") == 0;
    if (n < strike_at || !fits || *struck_call) return IO_PASS;
    snprintf(struck_path, sizeof struck_path, "%s", path);
    snprintf(struck_call, sizeof struck_call, "%s", call);
    return strike;
}

/* From one call on all of this kind fail: the disk is full. */
static io_action strike_all(const char *call, const char *path) {
    (void)path;
    const int64_t n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    return n >= strike_at && strcmp(call, "write") == 0 ? IO_FAIL : IO_PASS;
}

static void arm(int64_t at, io_action action, int error) {
    calls = 0;
    strike_at = at;
    strike = action;
    io_error = error;
    *struck_call = *struck_path = 0;
}

/* What the run says of the call that failed: the folder and the call, or what it was made for. */
static void check_told(const trainee_result *r, int64_t at) {
    const char *reason = strerror(strike == IO_NOTHING ? ENOSPC : io_error);
    const char *text = r->status == FTR_OK ? r->log.text : r->message;
    char name[64] = "";
    const char *slash = strrchr(struck_path, '/');
    snprintf(name, sizeof name, "%s", slash ? slash + 1 : "");
    const bool thread = strcmp(struck_call, "pthread_create") == 0;
    if (strcmp(name, ".lock") == 0 && strcmp(struck_call, "close") == 0) return; /* the lock is gone all the same */
    /* one that cannot be looked at when the directory is opened is left alone, and that is all */
    if (strstr(struck_path, "/step-") && strcmp(name, "checkpoint.json") == 0 && !*text) return;
    if (!*text || (!thread && !strstr(text, reason)))
        fail_msg("call %lld, %s of %s: found '%s', expected a sentence with '%s'", (long long)at, struck_call,
                 struck_path, text, reason);
    if (strstr(name, ".safetensors") || strcmp(name, "checkpoint.json") == 0) {
        /* a file of a save: its name and the call */
        const bool removed = strcmp(struck_call, "unlink") == 0;
        if (!removed && (!strstr(text, name) || !strstr(text, struck_call)))
            fail_msg("call %lld, %s of %s: found '%s'", (long long)at, struck_call, struck_path, text);
    }
}

/* A first run makes some checkpoints and stops; a second one resumes it, with one call failing. */
static void sweep(fixture *f, io_action action, int error, ftr_checkpoint_failure policy, int64_t stride,
                  int64_t *struck) {
    trainee_desc first = describe(f);
    first.epochs = 1;
    for (int64_t at = 1;; at += stride) {
        trainee_result r;
        ftr_test_remove(f->folder);
        trainee_run(&first, &r);
        assert_int_equal(r.status, FTR_OK);
        trainee_desc desc = describe(f);
        desc.checkpoint.on_failure = policy;
        arm(at, action, error);
        io_hook = strike_once;
        trainee_run(&desc, &r);
        io_hook = NULL;
        if (!*struck_call) {
            assert_true(calls < at || action != IO_FAIL);
            break;
        }
        ++*struck;
        if (action == IO_SHORT) {
            trainee_compare(&r, &f->whole);
            assert_string_equal(r.log.text, "");
        } else {
            check_told(&r, at);
            if (policy == FTR_CHECKPOINT_WARN && r.status == FTR_OK) {
                trainee_compare(&r, &f->whole);
                if (r.train.checkpoints.failed > 1)
                    fail_msg("one call failed, and %lld saves", (long long)r.train.checkpoints.failed);
            } else if (r.status != FTR_OK) {
                assert_true(r.status == FTR_ERROR_IO || r.status == FTR_ERROR_THREAD);
            }
        }
        check_resumes(f, true);
    }
}

static void each_call_fails(void **state) {
    fixture *f = *state;
    const int64_t stride = is_long() ? 1 : 5;
    int64_t struck = 0;
    sweep(f, IO_FAIL, ENOSPC, FTR_CHECKPOINT_WARN, stride, &struck);
    sweep(f, IO_FAIL, EIO, FTR_CHECKPOINT_STOP, stride, &struck);
    sweep(f, IO_SHORT, 0, FTR_CHECKPOINT_STOP, stride, &struck);
    sweep(f, IO_NOTHING, 0, FTR_CHECKPOINT_WARN, stride, &struck);
    print_message("%lld calls failed in turn\n", (long long)struck);
    assert_true(struck > 100);
}

/* A disk that is full from some call on. */
static void full_disk(void **state) {
    fixture *f = *state;
    for (int64_t at = 1; at < 300; at += is_long() ? 7 : 60) {
        trainee_result r;
        trainee_desc desc = describe(f);
        ftr_test_remove(f->folder);
        arm(at, IO_FAIL, ENOSPC);
        io_hook = strike_all;
        trainee_run(&desc, &r);
        io_hook = NULL;
        trainee_compare(&r, &f->whole); /* training went on to the end */
        if (r.train.checkpoints.failed > 0) assert_non_null(strstr(r.log.text, strerror(ENOSPC)));
        check_resumes(f, r.train.checkpoints.saved > 0);
    }
}

/* With FTR_CHECKPOINT_STOP the run ends at the next save, with the whole sentence. */
static io_action no_optimizer_file(const char *call, const char *path) {
    return strcmp(call, "open") == 0 && strstr(path, "/optimizer.safetensors") ? IO_FAIL : IO_PASS;
}

static void policies(void **state) {
    fixture *f = *state;
    char expected[2 * FTR_TEST_PATH];
    trainee_result r;
    trainee_desc desc = describe(f);
    io_error = EACCES;
    io_hook = no_optimizer_file;
    desc.checkpoint.on_failure = FTR_CHECKPOINT_STOP;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_ERROR_IO);
    snprintf(expected, sizeof expected,
             "%s/step-000000000003: the checkpoint was not written: open of optimizer.safetensors: Permission denied",
             f->folder);
    assert_string_equal(r.message, expected);
    assert_int_equal(r.train.steps, 6);
    assert_int_equal(r.train.checkpoints.failed, 1);

    io_hook = no_optimizer_file;
    desc.checkpoint.on_failure = FTR_CHECKPOINT_WARN;
    trainee_run(&desc, &r);
    io_hook = NULL;
    trainee_compare(&r, &f->whole);
    assert_int_equal(r.train.checkpoints.saved, 0);
    assert_int_equal(r.train.checkpoints.failed, r.log.messages);
    strcat(expected, "; training goes on\n");
    assert_true(strncmp(r.log.text, expected, strlen(expected)) == 0);
    assert_int_equal(ftr_test_entries(f->folder, "step-"), 0);
}

/* ------------------------------------------------------------------------------------------------- failing reads -- */

/* The newest checkpoint cannot be read: the one before is taken. */
static io_action no_newest(const char *call, const char *path) {
    return strcmp(call, "open") == 0 && strstr(path, "step-000000000009/weights") ? IO_FAIL : IO_PASS;
}

static void unreadable(void **state) {
    fixture *f = *state;
    trainee_desc desc = describe(f);
    trainee_result r;
    desc.epochs = 2; /* steps 3, 6, 9 and 10, of which 9 and 10 stay; 10 goes */
    trainee_run(&desc, &r);
    assert_int_equal(r.status, FTR_OK);
    char path[FTR_TEST_PATH];
    ftr_test_remove(ftr_test_path(path, f->folder, "step-000000000010"));
    desc.epochs = 4;
    io_error = EIO;
    io_hook = no_newest;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_ERROR_FORMAT); /* there is no other */
    assert_non_null(strstr(r.message, "no checkpoint is intact (step-000000000009): "));
    assert_non_null(strstr(r.message, "step-000000000009/weights.safetensors: cannot be opened: Input/output error"));
    check_resumes(f, true);
}

/* --------------------------------------------------------------------------------------------------------- order -- */

/* Calls as they come, one a line: the call, then names without the directory. */
static char trace[1 << 18];
static size_t trace_length;
static pthread_mutex_t trace_mutex = PTHREAD_MUTEX_INITIALIZER;
static const char *trace_folder;

static void put_name(const char *path, size_t length) {
    const size_t folder = strlen(trace_folder);
    const bool inside = length >= folder && strncmp(path, trace_folder, folder) == 0;
    if (inside) path += folder, length -= folder;
    trace_length += (size_t)snprintf(trace + trace_length, sizeof trace - trace_length, " %.*s",
                                     length ? (int)length : 4, length ? path : "ROOT");
}

static io_action record(const char *call, const char *path) {
    pthread_mutex_lock(&trace_mutex);
    trace_length += (size_t)snprintf(trace + trace_length, sizeof trace - trace_length, "%s", call);
    const char *arrow = strchr(path, '>');
    put_name(path, arrow ? (size_t)(arrow - path) : strlen(path));
    if (arrow) put_name(arrow + 1, strlen(arrow + 1));
    trace_length += (size_t)snprintf(trace + trace_length, sizeof trace - trace_length, "\n");
    pthread_mutex_unlock(&trace_mutex);
    return IO_PASS;
}

/* Nothing is named before it is durable, nothing old goes before that: the calls of one save. */
static void order(void **state) {
    fixture *f = *state;
    trainee_desc desc = describe(f);
    trainee_result r;
    desc.epochs = 2;
    desc.checkpoint.keep_last = 1;
    trace_folder = f->folder;
    trace_length = 0;
    io_hook = record;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_OK);
    char *begin = strstr(trace, "mkdir /.tmp-step-000000000009\n");
    assert_non_null(begin);
    static const char expected[] = "mkdir /.tmp-step-000000000009\n"
                                   "open /.tmp-step-000000000009/weights.safetensors\n"
                                   "fsync /.tmp-step-000000000009/weights.safetensors\n"
                                   "close /.tmp-step-000000000009/weights.safetensors\n"
                                   "open /.tmp-step-000000000009/optimizer.safetensors\n"
                                   "fsync /.tmp-step-000000000009/optimizer.safetensors\n"
                                   "close /.tmp-step-000000000009/optimizer.safetensors\n"
                                   "open /.tmp-step-000000000009/best.safetensors\n"
                                   "fsync /.tmp-step-000000000009/best.safetensors\n"
                                   "close /.tmp-step-000000000009/best.safetensors\n"
                                   "open /.tmp-step-000000000009/checkpoint.json\n"
                                   "fsync /.tmp-step-000000000009/checkpoint.json\n"
                                   "close /.tmp-step-000000000009/checkpoint.json\n"
                                   "open /.tmp-step-000000000009\n"
                                   "fsync /.tmp-step-000000000009\n"
                                   "rename /.tmp-step-000000000009 /step-000000000009\n"
                                   "open ROOT\n"
                                   "fsync ROOT\n"
                                   "rename /step-000000000006 /.tmp-old-step-000000000006\n"
                                   "opendir /.tmp-old-step-000000000006\n"
                                   "unlink\n"
                                   "unlink\n"
                                   "unlink\n"
                                   "unlink\n"
                                   "rmdir /.tmp-old-step-000000000006\n";
    char found[sizeof expected + 256];
    size_t used = 0;
    for (char *line = begin; *line && used < sizeof expected - 1;) {
        char *end = strchr(line, '\n') + 1;
        const size_t length = (size_t)(end - line);
        if (strncmp(line, "unlink", 6) == 0) {
            used += (size_t)sprintf(found + used, "unlink\n"); /* in whatever order the folder has them */
        } else if (strncmp(line, "write", 5) != 0) {
            assert_true(used + length < sizeof found);
            memcpy(found + used, line, length);
            used += length;
        }
        line = end;
    }
    found[used < sizeof expected - 1 ? used : sizeof expected - 1] = 0;
    assert_string_equal(found, expected);
}

/* ---------------------------------------------------------------------------------------------------- slow disks -- */

static io_action slow_sync(const char *call, const char *path) {
    (void)path;
    return strcmp(call, "fsync") == 0 ? IO_DELAY : IO_PASS;
}

/* The next save waits for the one before, or is left out. */
static void busy(void **state) {
    fixture *f = *state;
    trainee_result r;
    trainee_desc desc = describe(f);
    desc.epochs = 1;
    desc.checkpoint.every_steps = 1;
    desc.checkpoint.when_busy = FTR_CHECKPOINT_SKIP;
    io_hook = slow_sync;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_OK);
    assert_int_equal(r.train.checkpoints.saved + r.train.checkpoints.skipped, 6); /* five steps and the end */
    assert_true(r.train.checkpoints.skipped >= 3);
    assert_true(r.train.checkpoints.stall_seconds < 0.2); /* copies alone */
    assert_true(r.train.checkpoints.write_seconds > 1.0);
    check_resumes(f, true);
    ftr_test_remove(f->folder);
    desc.checkpoint.every_steps = 2;
    desc.checkpoint.when_busy = FTR_CHECKPOINT_WAIT;
    io_hook = slow_sync;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_OK);
    assert_int_equal(r.train.checkpoints.saved, 3);
    assert_true(r.train.checkpoints.stall_seconds > 0.5); /* the second waits for the first */
    check_resumes(f, true);
}

/* Two signals: the first ends the run, the second the waiting for its last save. */
static void second_signal(void **state) {
    fixture *f = *state;
    trainee_result r;
    trainee_desc desc = describe(f);
    desc.handle_signals = true;
    desc.signal_step = 8;
    desc.checkpoint.every_steps = 100;
    desc.checkpoint.every_epochs = 1; /* at step 5; its writing takes a second and more */
    io_hook = slow_sync;
    const double begun = ftr_time_seconds();
    trainee_run(&desc, &r);
    const double seconds = ftr_time_seconds() - begun;
    io_hook = NULL;
    assert_int_equal(r.status, FTR_ERROR_IO);
    assert_true(r.train.preempted);
    assert_int_equal(r.train.steps, 8);
    assert_non_null(strstr(r.message, "step"));
    if (seconds > 1.0) fail_msg("it took %.2f s", seconds);
    assert_int_equal(ftr_test_entries(f->folder, ".tmp-"), 0);
    check_resumes(f, false);

    /* the save of step 5 is on disk before the signals come: it is there afterwards */
    ftr_test_remove(f->folder);
    desc.epochs = 1;
    desc.signal_step = 0;
    trainee_run(&desc, &r);
    assert_int_equal(r.status, FTR_OK);
    desc.epochs = 4;
    desc.signal_step = 8;
    io_hook = slow_sync;
    trainee_run(&desc, &r);
    io_hook = NULL;
    assert_int_equal(r.status, FTR_ERROR_IO);
    assert_int_equal(r.train.resumed_at, 5);
    assert_int_equal(ftr_test_entries(f->folder, "step-"), 1);
    check_resumes(f, true);
}

/* -------------------------------------------------------------------------------------------------------- memory -- */

/* Each allocation fails once, of a run that begins and of one that resumes. */
static void out_of_memory(void **state) {
    fixture *f = *state;
    for (int resumes = 0; resumes < 2; resumes++) {
        int64_t failures = 0;
        for (int64_t n = 1;; n += is_long() ? 1 : 3) {
            trainee_result r;
            trainee_desc desc = describe(f);
            ftr_test_remove(f->folder);
            if (resumes) {
                desc.epochs = 1;
                trainee_run(&desc, &r);
                assert_int_equal(r.status, FTR_OK);
            }
            ftr_test_memory memory = {.fail_at = n};
            desc.epochs = 2;
            desc.memory = &memory;
            desc.checkpoint.on_failure = FTR_CHECKPOINT_STOP;
            trainee_run(&desc, &r);
            assert_int_equal(memory.blocks, 0);
            assert_int_equal(memory.live, 0);
            assert_int_equal(memory.wrong, 0);
            if (memory.calls < n) {
                assert_int_equal(r.status, FTR_OK);
                break;
            }
            assert_int_equal(r.status, FTR_ERROR_OUT_OF_MEMORY);
            failures++;
            check_resumes(f, resumes);
        }
        print_message("%lld allocations failed in turn\n", (long long)failures);
        assert_true(failures >= 10);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_call_fails), TEST(full_disk), TEST(policies),      TEST(unreadable),
        TEST(order),           TEST(busy),      TEST(second_signal), TEST(out_of_memory),
    };
    return cmocka_run_group_tests_name("checkpoint faults", tests, NULL, NULL);
}
