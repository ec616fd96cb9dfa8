/* A double of the CUDA runtime. Streams are queues; nothing in them runs until the host waits for something, and then the
 * streams' next pieces of work run in a random order that events allow. A missing event is therefore a wrong result. Captured
 * graphs are kept with their edges and run in a random order that these allow.
 *
 * Rules that are checked beside the calls' own: the default stream is not used; what a copy reads and writes is live memory;
 * nothing is freed that a stream still needs without the wait that CUDA promises; calls that are not allowed during a
 * capture; an event or stream is not used after its end. */
#include "doubles.h"
#include "emulator.h"

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

using ftr_emu::report;

struct graph_node {
    const char *what;
    std::function<void()> work;
    std::vector<int> after;
};

struct CUgraph_st {
    std::vector<graph_node> nodes;
};

struct CUgraphExec_st {
    std::vector<graph_node> nodes;
};

struct capture {
    CUgraph_st *graph;
    cudaStream_t origin;
    std::set<cudaStream_t> joined;
};

struct work {
    const char *what;
    std::function<bool()> ready; /* empty: at once */
    std::function<void()> run;
};

struct CUstream_st {
    std::deque<work> queue;
    std::shared_ptr<capture> into;
    std::vector<int> after; /* nodes of the capture that the next one waits for */
};

struct CUevent_st {
    uint64_t asked, done; /* records */
    std::shared_ptr<capture> into;
    std::vector<int> after;
    bool timing;
};

namespace {

std::recursive_mutex lock;
ftr_double_machine machine = {1, 9, 0, (size_t)1 << 30, 13000, 1};
int64_t calls, fail_at, live;
std::string failed;
size_t used;
uint64_t state = 1;
std::set<cudaStream_t> streams;
std::set<cudaEvent_t> events;
std::map<const void *, size_t> device_memory, host_memory;
thread_local cudaError_t last_error = cudaSuccess;
thread_local int device = 0;

uint64_t draw() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

cudaError_t fail(cudaError_t error) {
    last_error = error;
    return error;
}

/* One piece of work of some stream; false if none can run. */
bool advance() {
    std::vector<cudaStream_t> able;
    for (cudaStream_t s : streams)
        if (!s->queue.empty() && (!s->queue.front().ready || s->queue.front().ready())) able.push_back(s);
    if (able.empty()) return false;
    cudaStream_t s = able[draw() % able.size()];
    const work w = s->queue.front();
    s->queue.pop_front();
    w.run();
    return true;
}

template <typename F> void advance_until(const char *call, F done) {
    while (!done())
        if (!advance()) {
            report("%s: the streams wait for each other", call);
            return;
        }
}

bool is_stream(const char *call, cudaStream_t stream) {
    if (streams.count(stream)) return true;
    report("%s: %s", call, stream ? "no stream, or one that was destroyed" : "the default stream");
    return false;
}

bool is_event(const char *call, cudaEvent_t event) {
    if (events.count(event)) return true;
    report("%s: no event, or one that was destroyed", call);
    return false;
}

bool any_capture() {
    for (cudaStream_t s : streams)
        if (s->into) return true;
    return false;
}

/* Calls that may not be made while a stream is captured. */
bool refuses_capture(const char *call) {
    if (!any_capture()) return false;
    report("%s: called during a capture", call);
    return true;
}

size_t block_of(const std::map<const void *, size_t> &memory, const void *begin, size_t bytes) {
    auto next = memory.upper_bound(begin);
    if (next == memory.begin()) return 0;
    --next;
    const size_t offset = (size_t)((const char *)begin - (const char *)next->first);
    return offset + bytes <= next->second ? next->second : 0;
}

void run_nodes(const std::vector<graph_node> &nodes) {
    std::vector<bool> done(nodes.size());
    for (size_t left = nodes.size(); left > 0; left--) {
        std::vector<size_t> able;
        for (size_t i = 0; i < nodes.size(); i++) {
            bool free = !done[i];
            for (int before : nodes[i].after) free = free && done[(size_t)before];
            if (free) able.push_back(i);
        }
        const size_t next = able[draw() % able.size()];
        done[next] = true;
        nodes[next].work();
    }
}

void copy_now(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (to_device && !block_of(device_memory, to, bytes)) return report("cudaMemcpy: %zu bytes to what is no device memory", bytes);
    if (from_device && !block_of(device_memory, from, bytes))
        return report("cudaMemcpy: %zu bytes from what is no device memory", bytes);
    if (!to_device && block_of(device_memory, to, 1)) return report("cudaMemcpy: device memory as the host's");
    memmove(to, from, bytes);
    if (to_device) ftr_emu::memory_written(to, bytes);
}

} // namespace

namespace ftr_double {

bool fails(const char *name) {
    /* What gives something back has done so even if it reports an error, often that of work before it. */
    if (strstr(name, "Free") || strstr(name, "Destroy")) return false;
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (++calls != fail_at) return false;
    failed = name;
    return true;
}

void made() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    live++;
}
void gone() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    live--;
}

cudaError_t put(cudaStream_t stream, const char *what, std::function<void()> run) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (!is_stream(what, stream)) return fail(cudaErrorInvalidResourceHandle);
    if (!stream->into) {
        stream->queue.push_back({what, nullptr, std::move(run)});
        return cudaSuccess;
    }
    auto &nodes = stream->into->graph->nodes;
    nodes.push_back({what, std::move(run), stream->after});
    stream->after = {(int)nodes.size() - 1};
    return cudaSuccess;
}

void finish_all() {
    std::lock_guard<std::recursive_mutex> guard(lock);
    while (advance()) {
    }
}

bool capturing(cudaStream_t stream) { return stream && stream->into; }

void check_memory(const char *call, const char *what, const void *begin, size_t bytes, size_t alignment) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    if (bytes && !block_of(device_memory, begin, bytes))
        report("%s: %s: %zu bytes that are no device memory", call, what, bytes);
    if ((uintptr_t)begin % alignment) report("%s: %s is not aligned to %zu bytes", call, what, alignment);
}

} // namespace ftr_double

namespace ftr_emu {
cudaError_t enqueue(const launch &what, cudaStream_t stream) {
    if (ftr_double::fails(what.kernel)) return fail(cudaErrorLaunchFailure);
    return ftr_double::put(stream, what.kernel, [what]() { run(what); });
}
} // namespace ftr_emu

/* ---------------------------------------------------------------------------------------------------- for the tests -- */

void ftr_double_reset(void) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    machine = {1, 9, 0, (size_t)1 << 30, 13000, 1};
    state = 0x9e3779b97f4a7c15u;
    calls = fail_at = live = 0;
    failed.clear();
    ftr_emu::clear_reports();
}

void ftr_double_set(const ftr_double_machine *m) {
    machine = *m;
    state = m->order * 2 + 1;
}

void ftr_double_fail(int64_t call) {
    calls = 0;
    fail_at = call;
    failed.clear();
}
int64_t ftr_double_calls(void) { return calls; }
const char *ftr_double_failed(void) { return failed.c_str(); }
int64_t ftr_double_live(void) { return live; }
int ftr_double_faults(void) { return ftr_emu::reports(); }
const char *ftr_double_first_fault(void) { return ftr_emu::first_report(); }

/* ------------------------------------------------------------------------------------------------------- the runtime -- */

#define CALL(name) \
    std::lock_guard<std::recursive_mutex> guard(lock); \
    if (ftr_double::fails(#name)) return fail(cudaErrorUnknown)

extern "C" {

const char *CUDARTAPI cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorUnknown: return "cudaErrorUnknown";
    default: return "another error";
    }
}

const char *CUDARTAPI cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorUnknown: return "unknown error";
    default: return "another error";
    }
}

cudaError_t CUDARTAPI cudaGetLastError(void) {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t CUDARTAPI cudaPeekAtLastError(void) { return last_error; }

cudaError_t CUDARTAPI cudaRuntimeGetVersion(int *version) {
    CALL(cudaRuntimeGetVersion);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDriverGetVersion(int *version) {
    CALL(cudaDriverGetVersion);
    *version = machine.driver;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceCount(int *count) {
    CALL(cudaGetDeviceCount);
    *count = 0;
    if (machine.driver < CUDART_VERSION / 1000 * 1000) return fail(cudaErrorInsufficientDriver);
    if (machine.devices == 0) return fail(cudaErrorNoDevice);
    *count = machine.devices;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaSetDevice(int index) {
    CALL(cudaSetDevice);
    if (index < 0 || index >= machine.devices) return fail(cudaErrorInvalidDevice);
    device = index;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDevice(int *index) {
    CALL(cudaGetDevice);
    *index = device;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGetDeviceProperties(cudaDeviceProp *p, int index) {
    CALL(cudaGetDeviceProperties);
    if (index < 0 || index >= machine.devices) return fail(cudaErrorInvalidDevice);
    memset(p, 0, sizeof *p);
    snprintf(p->name, sizeof p->name, "emulated device %d.%d", machine.compute_major, machine.compute_minor);
    p->totalGlobalMem = machine.memory;
    p->sharedMemPerBlock = 48 << 10;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->major = machine.compute_major;
    p->minor = machine.compute_minor;
    p->multiProcessorCount = 4;
    p->l2CacheSize = 50 << 20;
    p->maxThreadsPerMultiProcessor = 2048;
    p->memoryBusWidth = 5120;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int index) {
    CALL(cudaDeviceGetAttribute);
    if (index < 0 || index >= machine.devices) return fail(cudaErrorInvalidDevice);
    switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 4; break;
    case cudaDevAttrClockRate: *value = 1980000; break;
    case cudaDevAttrMemoryClockRate: *value = 2619000; break;
    case cudaDevAttrGlobalMemoryBusWidth: *value = 5120; break;
    default: report("cudaDeviceGetAttribute: the double does not know attribute %d", (int)attribute); *value = 0;
    }
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemGetInfo(size_t *free_bytes, size_t *total) {
    CALL(cudaMemGetInfo);
    *free_bytes = machine.memory - used;
    *total = machine.memory;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMalloc(void **memory, size_t bytes) {
    CALL(cudaMalloc);
    *memory = nullptr;
    if (refuses_capture("cudaMalloc")) return fail(cudaErrorStreamCaptureUnsupported);
    if (bytes == 0) return cudaSuccess;
    if (used > machine.memory || bytes > machine.memory - used) return fail(cudaErrorMemoryAllocation);
    *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!*memory) return fail(cudaErrorMemoryAllocation);
    if (bytes <= (size_t)64 << 20) memset(*memory, 0xfb, bytes); /* NaN in each floating-point type; more is not run on */
    device_memory[*memory] = bytes;
    ftr_emu::memory_added(*memory, bytes);
    used += bytes;
    live++;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFree(void *memory) {
    CALL(cudaFree);
    if (!memory) return cudaSuccess;
    if (refuses_capture("cudaFree")) return fail(cudaErrorStreamCaptureUnsupported);
    auto found = device_memory.find(memory);
    if (found == device_memory.end()) {
        report("cudaFree: no device memory, or freed before");
        return fail(cudaErrorInvalidValue);
    }
    ftr_double::finish_all(); /* cudaFree() waits for the device */
    ftr_emu::memory_removed(memory);
    used -= found->second;
    device_memory.erase(found);
    live--;
    free(memory);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMallocHost(void **memory, size_t bytes) {
    CALL(cudaMallocHost);
    *memory = malloc(bytes ? bytes : 1);
    if (!*memory) return fail(cudaErrorMemoryAllocation);
    memset(*memory, 0xfb, bytes);
    host_memory[*memory] = bytes ? bytes : 1;
    live++;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaFreeHost(void *memory) {
    CALL(cudaFreeHost);
    if (!memory) return cudaSuccess;
    if (!host_memory.erase(memory)) {
        report("cudaFreeHost: no page-locked memory, or freed before");
        return fail(cudaErrorInvalidValue);
    }
    ftr_double::finish_all();
    live--;
    free(memory);
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    CALL(cudaMemcpyAsync);
    if (bytes == 0) return cudaSuccess;
    if (kind != cudaMemcpyHostToDevice && kind != cudaMemcpyDeviceToHost && kind != cudaMemcpyDeviceToDevice) {
        report("cudaMemcpyAsync: kind %d", (int)kind);
        return fail(cudaErrorInvalidMemcpyDirection);
    }
    if (!is_stream("cudaMemcpyAsync", stream)) return fail(cudaErrorInvalidResourceHandle);
    const bool paged_source = kind == cudaMemcpyHostToDevice && !block_of(host_memory, from, bytes);
    const bool paged_target = kind == cudaMemcpyDeviceToHost && !block_of(host_memory, to, bytes);
    if (paged_source) { /* staged before the call returns */
        if (stream->into) report("cudaMemcpyAsync: a capture copies from memory that is not page-locked");
        std::vector<char> staged((const char *)from, (const char *)from + bytes);
        return ftr_double::put(stream, "cudaMemcpyAsync",
                               [to, staged, kind]() { copy_now(to, staged.data(), staged.size(), kind); });
    }
    const cudaError_t error =
        ftr_double::put(stream, "cudaMemcpyAsync", [to, from, bytes, kind]() { copy_now(to, from, bytes, kind); });
    if (paged_target) {
        if (stream->into) report("cudaMemcpyAsync: a capture copies to memory that is not page-locked");
        else advance_until("cudaMemcpyAsync", [stream]() { return stream->queue.empty(); });
    }
    return error;
}

cudaError_t CUDARTAPI cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream) {
    CALL(cudaMemsetAsync);
    if (bytes == 0) return cudaSuccess;
    return ftr_double::put(stream, "cudaMemsetAsync", [memory, value, bytes]() {
        if (!block_of(device_memory, memory, bytes)) return report("cudaMemsetAsync: %zu bytes that are no device memory", bytes);
        memset(memory, value, bytes);
        ftr_emu::memory_written(memory, bytes);
    });
}

cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    CALL(cudaStreamCreateWithFlags);
    if (flags != cudaStreamNonBlocking) report("cudaStreamCreateWithFlags: a stream that waits for the default stream");
    *stream = new CUstream_st();
    streams.insert(*stream);
    live++;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
    CALL(cudaStreamDestroy);
    if (!is_stream("cudaStreamDestroy", stream)) return fail(cudaErrorInvalidResourceHandle);
    advance_until("cudaStreamDestroy", [stream]() { return stream->queue.empty(); });
    streams.erase(stream);
    delete stream;
    live--;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
    CALL(cudaStreamSynchronize);
    if (!is_stream("cudaStreamSynchronize", stream)) return fail(cudaErrorInvalidResourceHandle);
    if (refuses_capture("cudaStreamSynchronize")) return fail(cudaErrorStreamCaptureUnsupported);
    advance_until("cudaStreamSynchronize", [stream]() { return stream->queue.empty(); });
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaDeviceSynchronize(void) {
    CALL(cudaDeviceSynchronize);
    if (refuses_capture("cudaDeviceSynchronize")) return fail(cudaErrorStreamCaptureUnsupported);
    ftr_double::finish_all();
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    CALL(cudaEventCreateWithFlags);
    *event = new CUevent_st();
    (*event)->timing = !(flags & cudaEventDisableTiming);
    events.insert(*event);
    live++;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
    CALL(cudaEventDestroy);
    if (!is_event("cudaEventDestroy", event)) return fail(cudaErrorInvalidResourceHandle);
    while (event->done < event->asked && advance()) {
    }
    events.erase(event);
    delete event;
    live--;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    CALL(cudaEventRecord);
    if (!is_event("cudaEventRecord", event) || !is_stream("cudaEventRecord", stream))
        return fail(cudaErrorInvalidResourceHandle);
    event->into = stream->into;
    if (stream->into) {
        event->after = stream->after;
        return cudaSuccess;
    }
    const uint64_t number = ++event->asked;
    stream->queue.push_back({"cudaEventRecord", nullptr, [event, number]() { event->done = number; }});
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    CALL(cudaStreamWaitEvent);
    if (!is_event("cudaStreamWaitEvent", event) || !is_stream("cudaStreamWaitEvent", stream))
        return fail(cudaErrorInvalidResourceHandle);
    if (event->into || stream->into) {
        if (!event->into || (stream->into && stream->into != event->into)) {
            report("cudaStreamWaitEvent: a capture waits for what is not in it");
            return fail(cudaErrorStreamCaptureIsolation);
        }
        stream->into = event->into;
        stream->into->joined.insert(stream);
        stream->after.insert(stream->after.end(), event->after.begin(), event->after.end());
        return cudaSuccess;
    }
    const uint64_t number = event->asked;
    stream->queue.push_back({"cudaStreamWaitEvent", [event, number]() { return event->done >= number; }, []() {}});
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
    CALL(cudaEventSynchronize);
    if (!is_event("cudaEventSynchronize", event)) return fail(cudaErrorInvalidResourceHandle);
    if (refuses_capture("cudaEventSynchronize")) return fail(cudaErrorStreamCaptureUnsupported);
    const uint64_t number = event->asked;
    advance_until("cudaEventSynchronize", [event, number]() { return event->done >= number; });
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaEventQuery(cudaEvent_t event) {
    CALL(cudaEventQuery);
    if (!is_event("cudaEventQuery", event)) return fail(cudaErrorInvalidResourceHandle);
    advance(); /* time goes by */
    return event->done >= event->asked ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    CALL(cudaEventElapsedTime);
    if (!is_event("cudaEventElapsedTime", from) || !is_event("cudaEventElapsedTime", to))
        return fail(cudaErrorInvalidResourceHandle);
    if (!from->timing || !to->timing || from->done < from->asked || to->done < to->asked) {
        report("cudaEventElapsedTime: events without timing, or not over");
        return fail(cudaErrorInvalidResourceHandle);
    }
    *ms = 0.001f;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    CALL(cudaStreamBeginCapture);
    if (!is_stream("cudaStreamBeginCapture", stream)) return fail(cudaErrorInvalidResourceHandle);
    if (stream->into) {
        report("cudaStreamBeginCapture: the stream is captured already");
        return fail(cudaErrorIllegalState);
    }
    stream->into = std::make_shared<capture>();
    stream->into->graph = new CUgraph_st();
    stream->into->origin = stream;
    stream->after.clear();
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    std::lock_guard<std::recursive_mutex> guard(lock);
    const bool fails = ftr_double::fails("cudaStreamEndCapture"); /* which ends the capture too */
    if (!is_stream("cudaStreamEndCapture", stream)) return fail(cudaErrorInvalidResourceHandle);
    if (!stream->into || stream->into->origin != stream) {
        report("cudaStreamEndCapture: no capture began in this stream");
        return fail(cudaErrorIllegalState);
    }
    *graph = stream->into->graph;
    live++;
    /* each fork has to lead back to the stream that the capture began in */
    std::set<int> reached(stream->after.begin(), stream->after.end());
    for (int i = (int)(*graph)->nodes.size() - 1; i >= 0; i--)
        if (reached.count(i)) reached.insert((*graph)->nodes[(size_t)i].after.begin(), (*graph)->nodes[(size_t)i].after.end());
    bool unjoined = false;
    for (cudaStream_t s : stream->into->joined) {
        for (int node : s->after) unjoined = unjoined || !reached.count(node);
        s->into = nullptr;
        s->after.clear();
    }
    stream->into = nullptr;
    stream->after.clear();
    if (fails) {
        delete *graph;
        *graph = nullptr;
        live--;
        return fail(cudaErrorUnknown);
    }
    if (unjoined) {
        report("cudaStreamEndCapture: a stream of the capture did not join it again");
        return fail(cudaErrorStreamCaptureUnjoined);
    }
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long) {
    CALL(cudaGraphInstantiate);
    *made = new CUgraphExec_st{graph->nodes};
    live++;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
    CALL(cudaGraphLaunch);
    if (!is_stream("cudaGraphLaunch", stream)) return fail(cudaErrorInvalidResourceHandle);
    const std::vector<graph_node> nodes = graph->nodes;
    return ftr_double::put(stream, "cudaGraphLaunch", [nodes]() { run_nodes(nodes); });
}

cudaError_t CUDARTAPI cudaGraphDestroy(cudaGraph_t graph) {
    CALL(cudaGraphDestroy);
    delete graph;
    live--;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphExecDestroy(cudaGraphExec_t graph) {
    CALL(cudaGraphExecDestroy);
    delete graph;
    live--;
    return cudaSuccess;
}

cudaError_t CUDARTAPI cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    CALL(cudaGraphGetNodes);
    if (nodes) report("cudaGraphGetNodes: the double only counts");
    *count = graph->nodes.size();
    return cudaSuccess;
}
}
