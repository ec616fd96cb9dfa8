/* A run that is killed with SIGKILL, at any time and at each call by which a checkpoint reaches the disk, and started
 * again until it is done, is the unbroken run, bit by bit; and what is called a checkpoint is never damaged.
 * FTR_FAULT=long: 200 stories of kills at random times and a kill at each call; otherwise some of both. */
#include "io_calls.h"
#include "trainee.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

typedef struct fixture {
    char made[FTR_TEST_PATH], folder[FTR_TEST_PATH];
} fixture;

static int setup(void **state) {
    fixture *f = calloc(1, sizeof *f);
    ftr_test_folder(f->made);
    ftr_test_path(f->folder, f->made, "run");
    *state = f;
    return 0;
}

static int teardown(void **state) {
    fixture *f = *state;
    ftr_test_remove(f->made);
    free(f);
    return 0;
}

static bool is_long(void) {
    const char *effort = getenv("FTR_FAULT");
    return effort && strcmp(effort, "long") == 0;
}

/* ------------------------------------------------------------------------------------------------------ children -- */

/* In the child: the number of the call to die at, and how. */
static int64_t die_at;
static bool die_after;
static int64_t calls;

static io_action count_down(const char *call, const char *path) {
    (void)call;
    (void)path;
    const int64_t n = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    if (n != die_at) return IO_PASS;
    return die_after ? IO_KILL_AFTER : IO_KILL;
}

typedef struct child {
    pid_t id;
    int pipe;
} child;

/* What a child sends home. */
typedef struct report {
    trainee_result result;
    int64_t calls;
} report;

/* A run in a process of its own, which dies at its call number `at` (0: at none). The test itself has one thread here.
 * */
static child start(const trainee_desc *desc, int64_t at, bool after) {
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    const pid_t id = fork();
    assert_true(id >= 0);
    if (id == 0) {
        static report r;
        close(ends[0]);
        calls = 0;
        die_at = at;
        die_after = after;
        io_hook = count_down;
        trainee_run(desc, &r.result);
        io_hook = NULL;
        r.calls = calls;
        const unsigned char *bytes = (const unsigned char *)&r;
        for (size_t sent = 0; sent < sizeof r;) {
            const ssize_t n = write(ends[1], bytes + sent, sizeof r - sent);
            if (n <= 0) _exit(3);
            sent += (size_t)n;
        }
        _exit(0);
    }
    close(ends[1]);
    return (child){id, ends[0]};
}

/* Whether the child lived to the end of its run; *r is then filled. Any other death than by SIGKILL fails the test. */
static bool finish(const child *c, report *r) {
    size_t got = 0;
    for (ssize_t n; got < sizeof *r && (n = read(c->pipe, (unsigned char *)r + got, sizeof *r - got)) > 0;)
        got += (size_t)n;
    close(c->pipe);
    int how = 0;
    assert_int_equal(waitpid(c->id, &how, 0), c->id);
    if (got == sizeof *r) return true;
    if (!WIFSIGNALED(how) || WTERMSIG(how) != SIGKILL) fail_msg("a run ended with status %#x", (unsigned)how);
    return false;
}

static bool run_child(const trainee_desc *desc, int64_t at, bool after, report *r) {
    const child c = start(desc, at, after);
    return finish(&c, r);
}

/* No checkpoint was damaged: the log says nothing. */
static void check(const report *r, const trainee_result *whole) {
    trainee_compare(&r->result, whole);
    assert_string_equal(r->result.log.text, "");
}

static trainee_desc describe(const fixture *f, trainee_config config) {
    trainee_desc desc = trainee_defaults();
    desc.config = config;
    desc.resume = FTR_RESUME_AUTO;
    desc.checkpoint.directory = f->folder;
    desc.checkpoint.every_steps = 3;
    desc.checkpoint.every_epochs = 2;
    desc.checkpoint.keep_last = 2;
    desc.checkpoint.keep_best = 1;
    desc.checkpoint.metric = "loss";
    return desc;
}

/* What the unbroken run of a configuration comes to; computed once. */
static const trainee_result *unbroken(trainee_config config) {
    static struct {
        trainee_config config;
        trainee_result result;
    } known[256];
    static size_t count;
    static report r;
    for (size_t i = 0; i < count; i++)
        if (memcmp(&known[i].config, &config, sizeof config) == 0) return &known[i].result;
    trainee_desc desc = trainee_defaults();
    desc.config = config;
    assert_true(run_child(&desc, 0, false, &r));
    if (r.result.status != FTR_OK) fail_msg("%s", r.result.message);
    const ftr_train_result *train = &r.result.train;
    assert_int_equal(train->skipped_steps > 0, trainee_skips(&config));
    if (train->skipped_steps >= train->steps / 2)
        fail_msg("optimizer %d: %lld of %lld steps were left out", config.optimizer, (long long)train->skipped_steps,
                 (long long)train->steps);
    assert_true(count < FTR_TEST_LENGTH(known));
    known[count].config = config;
    known[count].result = r.result;
    return &known[count++].result;
}

/* --------------------------------------------------------------------------------------------------------- tests -- */

static double now(void) { return ftr_time_seconds(); }

static void random_times(void **state) {
    fixture *f = *state;
    static report r;
    const int stories = is_long() ? 200 : 12;
    ftr_test_rng rng = {2024};
    int64_t kills = 0, resumed = 0, amp[3] = {0}, bf16 = 0, skipped = 0, skips_resumed = 0;
    for (int story = 0; story < stories; story++) {
        const trainee_config config = trainee_draw(&rng, story);
        const trainee_result *whole = unbroken(config);
        trainee_desc desc = describe(f, config);
        desc.microseconds = 150;
        amp[config.amp]++;
        bf16 += config.state == FTR_BF16;
        skipped += whole->train.skipped_steps > 0;
        ftr_test_remove(f->folder);
        const double begun = now();
        assert_true(run_child(&desc, 0, false, &r));
        const double seconds = now() - begun;
        check(&r, whole);
        ftr_test_remove(f->folder);
        bool done = false;
        for (int kill_count = 0; kill_count < 6 && !done; kill_count++) {
            const child c = start(&desc, 0, false);
            usleep((useconds_t)(1e6 * seconds * ftr_test_uniform(&rng, 0.0, 1.0)));
            kill(c.id, SIGKILL);
            done = finish(&c, &r); /* it may have been faster */
            kills += !done;
        }
        if (!done) assert_true(run_child(&desc, 0, false, &r));
        resumed += r.result.train.resumed_at > 0;
        skips_resumed += r.result.train.resumed_at > 0 && r.result.train.skipped_steps > 0;
        check(&r, whole);
    }
    print_message(
        "%d stories, %lld kills, %lld resumed runs; f32 %lld, fp16 %lld (%lld with steps left out, %lld of them "
        "resumed), bf16 %lld; optimizer's state in bf16 %lld\n",
        stories, (long long)kills, (long long)resumed, (long long)amp[FTR_AMP_OFF], (long long)amp[FTR_AMP_FP16],
        (long long)skipped, (long long)skips_resumed, (long long)amp[FTR_AMP_BF16], (long long)bf16);
    assert_true(kills >= stories && resumed >= stories / 2); /* otherwise this showed little */
    assert_true(skips_resumed > 0 && bf16 > 0 && amp[FTR_AMP_BF16] > 0);
}

/* Each call of a run's writing, in turn: dead before it, dead after it; then the same for the run that resumes. */
static void each_call(void **state) {
    fixture *f = *state;
    static report r;
    const int64_t stride = is_long() ? 1 : 13;
    trainee_config config = trainee_defaults().config;
    config.optimizer = 1;
    int64_t deaths = 0, total = 0;
    for (int after = 0; after < 2; after++) {
        config.around = after;
        const trainee_result *whole = unbroken(config);
        for (int64_t at = 1;; at += stride) {
            const trainee_desc desc = describe(f, config);
            ftr_test_remove(f->folder);
            const bool lived = run_child(&desc, at, after, &r);
            if (lived) {
                total = r.calls;
                assert_true(r.calls < at);
                break;
            }
            deaths++;
            if (!run_child(&desc, 1 + at % 40, after, &r)) { /* and once more, early in the next run */
                deaths++;
                assert_true(run_child(&desc, 0, false, &r));
            }
            check(&r, whole);
            assert_int_equal(ftr_test_entries(f->folder, ".tmp-"), 0);
        }
    }
    print_message("%lld deaths at calls of a run with %lld\n", (long long)deaths, (long long)total);
    assert_true(total > 100);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {TEST(random_times), TEST(each_call)};
    return cmocka_run_group_tests_name("kill", tests, NULL, NULL);
}
