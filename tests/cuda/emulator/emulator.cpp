/* The machine behind emulator.h: fibers, barriers, warps, shared memory and the checks of memory accesses. One launch runs at a
 * time (a lock), on the host thread that asked for it. */
#include "emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#ifdef EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace ftr_emu {

place here;

/* ---------------------------------------------------------------------------------------------------------- faults -- */

static std::mutex report_lock;
static int report_count;
static std::string report_text;

void report(const char *format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    std::lock_guard<std::mutex> guard(report_lock);
    if (report_count++ == 0) report_text = text;
    if (report_count <= 4) fprintf(stderr, "emulator: %s\n", text);
}

int reports() { return report_count; }
const char *first_report() { return report_text.c_str(); }
void clear_reports() {
    report_count = 0;
    report_text.clear();
}

/* ---------------------------------------------------------------------------------------------------------- fibers -- */

enum class state { ready, at_barrier, in_warp, done };

struct thread {
    uint3 index;
    int number, warp, lane;
    state is;
    const void *site; /* where it waits */
    unsigned mask;    /* of a warp's exchange */
    int predicate;    /* of a barrier's */
    uint64_t value;   /* given */
    uint64_t values[32];
};

constexpr size_t STACK = 256 << 10;
constexpr int MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 48 << 10; /* without an opt-in */

/* Where a fiber, or the scheduler, goes on. */
#ifdef __x86_64__
typedef void *context;
#else
typedef ucontext_t context;
#endif

struct fiber {
    void *stack;
    context at;
    int runs; /* number of the thread that it runs */
};

struct array {
    size_t offset, bytes;
};

/* A launch under way. */
struct machine {
    const launch *what;
    uint64_t launch_number, block_number;
    uint32_t interval; /* barriers passed by the block, from 1 */
    std::vector<thread> threads;
    std::deque<fiber> fibers; /* contexts do not move */
    std::vector<int> idle;      /* fibers whose thread is done */
    std::vector<int> of_thread; /* the fiber of a thread; -1: none yet */
    int current;                /* thread; -1: none */
    bool failed;
    context scheduler;
    std::map<const void *, array> arrays;
    size_t shared_used, dynamic_offset;
    unsigned char *shared; /* with room around arrays */
};

static std::recursive_mutex machine_lock;
static machine now;
static thread_local bool inside; /* this host thread is in a kernel */
constexpr size_t SHARED_ROOM = 256 << 10, GAP = 64;

static thread &self() { return now.threads[(size_t)now.current]; }
int lane() { return self().lane; }

static void arrive_home() {
    const thread &t = self();
    here.thread = t.index;
}

/* Goes on at `to`; `from` is where it was left. swapcontext() does this too, with a system call a time. */
#ifdef __x86_64__
extern "C" void ftr_emu_change(void **from, void *to);
asm(".text\n"
    ".type ftr_emu_change,@function\n"
    "ftr_emu_change:\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp,(%rdi)\n"
    "movq %rsi,%rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "ret\n"
    ".size ftr_emu_change,.-ftr_emu_change\n");
static void change(context &from, context &to) { ftr_emu_change(&from, to); }
#else
static void change(context &from, context &to) { swapcontext(&from, &to); }
#endif

#ifdef EMU_ASAN
static const void *scheduler_stack;
static size_t scheduler_size;
#endif

static void leave(fiber &f) {
#ifdef EMU_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack, scheduler_size);
#endif
    change(f.at, now.scheduler);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_size);
#endif
}

/* Leaves the fiber for the scheduler, and comes back when the thread is ready again. */
static void pause() {
    leave(now.fibers[(size_t)now.of_thread[(size_t)now.current]]);
    arrive_home();
}

struct stopped {}; /* thrown through a kernel's frames when a launch is given up */

static void wait(state how, const void *site) {
    thread &t = self();
    t.is = how;
    t.site = site;
    pause();
    if (now.failed) throw stopped();
}

void barrier(const void *site) {
    self().predicate = 0;
    wait(state::at_barrier, site);
}

static int predicates;
int barrier_count(const void *site, int predicate) {
    self().predicate = predicate;
    wait(state::at_barrier, site);
    return predicates;
}

uint64_t exchange(unsigned mask, uint64_t value, int source, const void *site) {
    thread &t = self();
    t.mask = mask;
    t.value = value;
    if (!(mask >> t.lane & 1)) report("kernel %s: lane %d calls a warp's exchange with mask %08x", now.what->kernel, t.lane, mask);
    wait(state::in_warp, site);
    if (source < 0 || source > 31) return value;
    if (!(mask >> source & 1))
        report("kernel %s: lane %d reads lane %d, which is not in the mask %08x", now.what->kernel, t.lane, source, mask);
    return self().values[source];
}

unsigned ballot(unsigned mask, bool predicate, const void *site) {
    exchange(mask, predicate, -1, site);
    unsigned bits = 0;
    for (int i = 0; i < 32; i++)
        if (mask >> i & 1) bits |= (unsigned)(self().values[i] & 1) << i;
    return bits;
}

static void run_thread() {
    try {
        now.what->body();
    } catch (const stopped &) {
    }
    self().is = state::done;
}

static void fiber_main() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    for (;;) {
        arrive_home();
        run_thread();
        leave(now.fibers[(size_t)now.of_thread[(size_t)now.current]]);
    }
}

/* A fiber that begins with fiber_main(). */
static void begin(fiber &f) {
#ifdef __x86_64__
    void **top = (void **)((char *)f.stack + STACK);
    *--top = nullptr; /* fiber_main() never returns */
    *--top = (void *)fiber_main;
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.at = top;
#else
    getcontext(&f.at);
    f.at.uc_stack.ss_sp = f.stack;
    f.at.uc_stack.ss_size = STACK;
    f.at.uc_link = nullptr;
    makecontext(&f.at, fiber_main, 0);
#endif
}

static int take_fiber() {
    if (!now.idle.empty()) {
        const int index = now.idle.back();
        now.idle.pop_back();
        return index;
    }
    fiber f = {};
    f.stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f.stack == MAP_FAILED) {
        fprintf(stderr, "emulator: no memory for a fiber\n");
        abort();
    }
    now.fibers.push_back(f);
    fiber &made = now.fibers.back();
    begin(made);
    return (int)now.fibers.size() - 1;
}

/* Runs a thread until it waits or is done. */
static void resume(int number) {
    now.current = number;
    if (now.of_thread[(size_t)number] < 0) now.of_thread[(size_t)number] = take_fiber();
    fiber &f = now.fibers[(size_t)now.of_thread[(size_t)number]];
    f.runs = number;
#ifdef EMU_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, f.stack, STACK);
#endif
    change(now.scheduler, f.at);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    now.current = -1;
    if (now.threads[(size_t)number].is == state::done) {
        now.idle.push_back(now.of_thread[(size_t)number]);
        now.of_thread[(size_t)number] = -1;
    }
}

/* ------------------------------------------------------------------------------------------- barriers and exchanges -- */

/* Lets a warp's lanes go that all wait for an exchange with one mask. */
static bool finish_exchange(int warp) {
    const int first = warp * 32, count = (int)now.threads.size();
    unsigned waiting = 0, there = 0, mask = 0;
    for (int i = first; i < first + 32 && i < count; i++) {
        const thread &t = now.threads[(size_t)i];
        if (t.is != state::done) there |= 1u << t.lane;
        if (t.is == state::in_warp) {
            if (!mask) mask = t.mask;
            if (t.mask == mask) waiting |= 1u << t.lane;
        }
    }
    if (!mask || (mask & ~waiting & there)) return false;
    if (mask & ~there)
        report("kernel %s: a warp's exchange with mask %08x lacks lanes %08x, which have ended or never were", now.what->kernel,
               mask, mask & ~there);
    uint64_t values[32] = {0};
    for (int i = 0; i < 32; i++)
        if (waiting >> i & 1) values[i] = now.threads[(size_t)(first + i)].value;
    for (int i = 0; i < 32; i++)
        if (waiting >> i & 1) {
            thread &t = now.threads[(size_t)(first + i)];
            memcpy(t.values, values, sizeof values);
            t.is = state::ready;
        }
    return true;
}

static bool finish_barrier() {
    const void *site = nullptr;
    int sum = 0;
    bool different = false;
    for (const thread &t : now.threads) {
        if (t.is == state::done) continue;
        if (t.is != state::at_barrier) return false;
        different = different || (site && t.site != site);
        site = t.site;
        sum += t.predicate;
    }
    if (!site) return false;
    if (different) {
        report("kernel %s, block (%u, %u, %u): threads wait at different barriers", now.what->kernel, here.block.x,
               here.block.y, here.block.z);
        return false;
    }
    predicates = sum;
    now.interval++;
    for (thread &t : now.threads)
        if (t.is == state::at_barrier) t.is = state::ready;
    return true;
}

static void give_up() {
    int at_barrier = 0, in_warp = 0;
    for (const thread &t : now.threads) {
        at_barrier += t.is == state::at_barrier;
        in_warp += t.is == state::in_warp;
    }
    report("kernel %s, block (%u, %u, %u): a divergent barrier: %d threads wait at a barrier, %d in a warp's exchange, the "
           "others have ended",
           now.what->kernel, here.block.x, here.block.y, here.block.z, at_barrier, in_warp);
    now.failed = true;
    for (size_t i = 0; i < now.threads.size(); i++)
        if (now.threads[i].is != state::done && now.of_thread[i] >= 0) resume((int)i);
}

static void run_block() {
    const dim3 size = now.what->block;
    const int count = (int)(size.x * size.y * size.z);
    now.threads.assign((size_t)count, thread());
    now.of_thread.assign((size_t)count, -1);
    now.interval = 1;
    now.block_number++;
    for (int i = 0; i < count; i++) {
        thread &t = now.threads[(size_t)i];
        const unsigned u = (unsigned)i;
        t.index = make_uint3(u % size.x, u / size.x % size.y, u / size.x / size.y);
        t.number = i;
        t.warp = i / 32;
        t.lane = i % 32;
    }
    for (int live = count; live > 0 && !now.failed;) {
        bool ran = false;
        for (int i = 0; i < count; i++) {
            if (now.threads[(size_t)i].is != state::ready) continue;
            ran = true;
            resume(i);
            live -= now.threads[(size_t)i].is == state::done;
        }
        bool freed = false;
        for (int w = 0; w * 32 < count; w++) freed = finish_exchange(w) || freed;
        if (!freed) freed = finish_barrier();
        if (!ran && !freed && live > 0) give_up();
    }
}

/* ---------------------------------------------------------------------------------------------------- shared memory -- */

static void close_room(size_t begin, size_t end) {
#ifdef EMU_ASAN
    ASAN_POISON_MEMORY_REGION(now.shared + begin, end - begin);
#else
    (void)begin;
    (void)end;
#endif
}

static size_t add_shared(size_t bytes, size_t alignment) {
    const size_t offset = (now.shared_used + GAP + alignment - 1) / alignment * alignment;
    if (offset + bytes + GAP > SHARED_ROOM) {
        report("kernel %s: %zu bytes of shared memory do not fit", now.what->kernel, bytes);
        abort();
    }
#ifdef EMU_ASAN
    ASAN_UNPOISON_MEMORY_REGION(now.shared + offset, bytes);
#endif
    now.shared_used = offset + bytes;
    return offset;
}

static size_t shared_bytes;

void *shared_array(const void *site, size_t bytes, size_t alignment) {
    auto found = now.arrays.find(site);
    if (found == now.arrays.end()) {
        found = now.arrays.insert({site, {add_shared(bytes, alignment), bytes}}).first;
        shared_bytes += bytes;
        if (shared_bytes > MOST_SHARED)
            report("kernel %s: %zu bytes of shared memory, at most %zu without an opt-in", now.what->kernel, shared_bytes,
                   MOST_SHARED);
    }
    if (found->second.bytes != bytes)
        report("kernel %s: an array of shared memory has %zu bytes for one thread, %zu for another", now.what->kernel,
               found->second.bytes, bytes);
    return now.shared + found->second.offset;
}

void *dynamic_shared() { return now.shared + now.dynamic_offset; }

/* ---------------------------------------------------------------------------------------------- accesses to memory -- */

/* The last accesses to a byte. */
struct trace {
    uint64_t write_launch, read_launch;
    uint32_t write_block, read_block;
    uint32_t write_interval, read_interval;
    int16_t write_thread, read_thread; /* read_thread -2: several */
    bool written, atomic;
};

/* Traces of a piece of memory, some bytes at a time, made when these are first accessed. */
constexpr size_t CHUNK = 1024;

struct piece {
    size_t bytes;
    std::vector<std::unique_ptr<trace[]>> chunks;

    trace &at(size_t byte) {
        std::unique_ptr<trace[]> &chunk = chunks[byte / CHUNK];
        if (!chunk) chunk.reset(new trace[CHUNK]());
        return chunk[byte % CHUNK];
    }
};

static std::map<uintptr_t, piece> pieces; /* of device memory, by their begin */
static std::vector<trace> shared_traces(SHARED_ROOM);

#ifdef EMU_TRACE
constexpr bool tracing = true;
#else
constexpr bool tracing = false;
#endif

void memory_added(const void *begin, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    piece p = {bytes, {}};
    if (tracing) p.chunks.resize(bytes / CHUNK + 1);
    pieces[(uintptr_t)begin] = std::move(p);
}

void memory_removed(const void *begin) {
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    pieces.erase((uintptr_t)begin);
}

static piece *piece_of(uintptr_t address, size_t bytes, size_t *offset) {
    auto next = pieces.upper_bound(address);
    if (next == pieces.begin()) return nullptr;
    --next;
    *offset = address - next->first;
    return *offset + bytes <= next->second.bytes ? &next->second : nullptr;
}

bool memory_holds(const void *begin, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    size_t offset;
    return piece_of((uintptr_t)begin, bytes, &offset) != nullptr;
}

void memory_written(const void *begin, size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    size_t offset;
    piece *p = piece_of((uintptr_t)begin, bytes, &offset);
    for (size_t i = 0; tracing && p && i < bytes; i++) p->at(offset + i).written = true;
}

static void race(const char *memory, const char *what, size_t at) {
    report("kernel %s, block (%u, %u, %u), thread (%u, %u, %u): a race in %s memory: %s of byte %zu", now.what->kernel,
           here.block.x, here.block.y, here.block.z, here.thread.x, here.thread.y, here.thread.z, memory, what, at);
}

/* In one launch, by two threads, with no barrier of one block between. Shared memory is another one in each block. */
static bool unordered(uint64_t launch_number, uint32_t block, uint32_t interval, int thread_number, bool is_shared) {
    if (launch_number != now.launch_number) return false;
    if (block != (uint32_t)now.block_number) return !is_shared;
    return interval == now.interval && thread_number != now.current;
}

static void touch(trace &t, const char *memory, bool write, bool atomic, size_t at, bool is_shared) {
    const bool fresh = is_shared && (t.write_launch != now.launch_number || t.write_block != (uint32_t)now.block_number);
    if (!write && (is_shared ? fresh : !t.written))
        report("kernel %s, block (%u, %u, %u), thread (%u, %u, %u): a read of %s memory that nothing wrote, byte %zu",
               now.what->kernel, here.block.x, here.block.y, here.block.z, here.thread.x, here.thread.y, here.thread.z,
               memory, at);
    const bool same_kind = atomic && t.atomic;
    if (t.write_launch && !same_kind && unordered(t.write_launch, t.write_block, t.write_interval, t.write_thread, is_shared))
        race(memory, write ? "two writes" : "a read after a write", at);
    if (write && t.read_launch && !same_kind && unordered(t.read_launch, t.read_block, t.read_interval, t.read_thread, is_shared))
        race(memory, "a write after a read", at);
    t.atomic = atomic;
    if (write) {
        t.write_launch = now.launch_number;
        t.write_block = (uint32_t)now.block_number;
        t.write_interval = now.interval;
        t.write_thread = (int16_t)now.current;
        t.written = true;
        return;
    }
    const bool again = t.read_launch == now.launch_number && t.read_block == (uint32_t)now.block_number &&
                       t.read_interval == now.interval;
    t.read_thread = again && t.read_thread != now.current ? (int16_t)-2 : (int16_t)now.current;
    t.read_launch = now.launch_number;
    t.read_block = (uint32_t)now.block_number;
    t.read_interval = now.interval;
}

static bool on_a_stack(uintptr_t address) {
    const fiber &f = now.fibers[(size_t)now.of_thread[(size_t)now.current]];
    return address - (uintptr_t)f.stack < STACK;
}

static bool in_an_array(size_t offset, size_t bytes) {
    if (offset >= now.dynamic_offset && offset + bytes <= now.dynamic_offset + now.what->shared) return true;
    for (const auto &a : now.arrays)
        if (offset >= a.second.offset && offset + bytes <= a.second.offset + a.second.bytes) return true;
    return false;
}

static void accessed(const void *address, size_t bytes, bool write, bool atomic) {
    if (!tracing || !inside || now.current < 0) return;
    const uintptr_t a = (uintptr_t)address;
    if (on_a_stack(a)) return;
    const size_t offset = a - (uintptr_t)now.shared;
    inside = false; /* what the checks do is no access of the kernel's */
    if (offset < SHARED_ROOM) {
        if (!in_an_array(offset, bytes))
            report("kernel %s, thread (%u, %u, %u): an access of %zu bytes outside of the arrays in shared memory",
                   now.what->kernel, here.thread.x, here.thread.y, here.thread.z, bytes);
        for (size_t i = 0; i < bytes && offset + i < SHARED_ROOM; i++)
            touch(shared_traces[offset + i], "shared", write, atomic, offset + i, true);
    } else {
        size_t at;
        piece *p = piece_of(a, bytes, &at);
        if (p) {
            if (a % bytes && bytes <= 16 && !(bytes & (bytes - 1)))
                report("kernel %s: an access of %zu bytes at an address that is not aligned to them", now.what->kernel, bytes);
            for (size_t i = 0; i < bytes; i++) touch(p->at(at + i), "global", write, atomic, at + i, false);
        } else if (write) {
            report("kernel %s, block (%u, %u, %u), thread (%u, %u, %u): a write of %zu bytes outside of device memory",
                   now.what->kernel, here.block.x, here.block.y, here.block.z, here.thread.x, here.thread.y, here.thread.z,
                   bytes);
        }
    }
    inside = true;
}

void atomic_read(const void *address, void *value, size_t bytes) {
    accessed(address, bytes, false, true);
    memcpy(value, address, bytes);
}

void atomic_write(void *address, const void *value, size_t bytes) {
    accessed(address, bytes, true, true);
    memcpy(address, value, bytes);
}

/* -------------------------------------------------------------------------------------------------------- launching -- */

static bool check_launch(const launch &w) {
    const uint64_t threads = (uint64_t)w.block.x * w.block.y * w.block.z;
    const int before = reports();
    if (threads == 0 || threads > MOST_THREADS || w.block.x > 1024 || w.block.y > 1024 || w.block.z > 64)
        report("kernel %s: a block of (%u, %u, %u) threads", w.kernel, w.block.x, w.block.y, w.block.z);
    if (threads > (uint64_t)w.limit)
        report("kernel %s: %llu threads a block, launch bounds of %d", w.kernel, (unsigned long long)threads, w.limit);
    if (w.grid.x == 0 || w.grid.x > 0x7fffffffu || w.grid.y == 0 || w.grid.y > 65535 || w.grid.z == 0 || w.grid.z > 65535)
        report("kernel %s: a grid of (%u, %u, %u) blocks", w.kernel, w.grid.x, w.grid.y, w.grid.z);
    if (w.shared > MOST_SHARED)
        report("kernel %s: %zu bytes of dynamic shared memory, at most %zu", w.kernel, w.shared, MOST_SHARED);
    return reports() == before;
}

void run(const launch &what) {
    std::lock_guard<std::recursive_mutex> guard(machine_lock);
    if (!check_launch(what)) return;
    if (!now.shared) now.shared = (unsigned char *)aligned_alloc(1024, SHARED_ROOM);
    now.what = &what;
    now.launch_number++;
    now.block_number = 0;
    now.failed = false;
    inside = true;
    for (unsigned z = 0; z < what.grid.z && !now.failed; z++)
        for (unsigned y = 0; y < what.grid.y && !now.failed; y++)
            for (unsigned x = 0; x < what.grid.x && !now.failed; x++) {
                here = {make_uint3(0, 0, 0), make_uint3(x, y, z), what.block, what.grid};
                now.arrays.clear();
                now.shared_used = 0;
                close_room(0, SHARED_ROOM);
                now.dynamic_offset = add_shared(what.shared, 128);
                shared_bytes = what.shared;
                run_block();
            }
    inside = false;
    now.what = nullptr;
}

} // namespace ftr_emu

/* ----------------------------------------------------------------------------------- what the compiler calls (tracing) -- */

#ifdef EMU_TRACE
#define EMU_ACCESS(bytes) \
    void __tsan_read##bytes(void *a) { ftr_emu::accessed(a, bytes, false, false); } \
    void __tsan_write##bytes(void *a) { ftr_emu::accessed(a, bytes, true, false); } \
    void __tsan_unaligned_read##bytes(void *a) { ftr_emu::accessed(a, bytes, false, false); } \
    void __tsan_unaligned_write##bytes(void *a) { ftr_emu::accessed(a, bytes, true, false); } \
    void __tsan_volatile_read##bytes(void *a) { ftr_emu::accessed(a, bytes, false, false); } \
    void __tsan_volatile_write##bytes(void *a) { ftr_emu::accessed(a, bytes, true, false); }
extern "C" {
EMU_ACCESS(1)
EMU_ACCESS(2)
EMU_ACCESS(4)
EMU_ACCESS(8)
EMU_ACCESS(16)
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
void __tsan_read_range(void *a, size_t bytes) { ftr_emu::accessed(a, bytes, false, false); }
void __tsan_write_range(void *a, size_t bytes) { ftr_emu::accessed(a, bytes, true, false); }
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
#endif
