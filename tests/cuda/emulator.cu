/* The emulator finds what it is there to find: each test plants a fault in a kernel, and sees it reported; and it runs correct
 * kernels without a report. */
#include "doubles.h"
#include "emulator.h"

#include <csetjmp>
#include <cstdarg>
#include <cstddef>
#include <cstring>
extern "C" {
#include <cmocka.h>
}

/* Device memory for a test. */
struct room {
    cudaStream_t stream;
    float *data; /* 1024 */
};

static room open_room() {
    room r = {};
    void *memory = nullptr;
    ftr_double_reset();
    assert_int_equal(cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking), cudaSuccess);
    assert_int_equal(cudaMalloc(&memory, 1024 * sizeof(float)), cudaSuccess);
    assert_int_equal(cudaMemsetAsync(memory, 0, 1024 * sizeof(float), r.stream), cudaSuccess);
    r.data = (float *)memory;
    return r;
}

static void close_room(room *r) {
    assert_int_equal(cudaStreamSynchronize(r->stream), cudaSuccess);
    assert_int_equal(cudaFree(r->data), cudaSuccess);
    assert_int_equal(cudaStreamDestroy(r->stream), cudaSuccess);
    assert_int_equal(ftr_double_live(), 0);
}

template <typename... P> static void launch(const room *r, void (*kernel)(P...), dim3 grid, dim3 block, P... arguments) {
    assert_int_equal(ftr_emu_launch<P...>("kernel", kernel, 256, grid, block, 0, r->stream, arguments...), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(r->stream), cudaSuccess);
}

/* The first report contains a text. */
static void expect_report(const char *text) {
    assert_true(ftr_double_faults() > 0);
    if (!strstr(ftr_double_first_fault(), text)) fail_msg("'%s' lacks '%s'", ftr_double_first_fault(), text);
    ftr_emu::clear_reports();
}

/* ------------------------------------------------------------------------------------------------------ good kernels -- */

__global__ void block_sums(const float *in, float *out) {
    FTR_SHARED(float, part, 256);
    part[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = part[0];
}

__global__ void fill(float *out, int count) {
    const int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) out[i] = (float)i;
}

__global__ void warp_exchanges(float *out) {
    const float up = __shfl_xor_sync(0xffffffffu, (float)threadIdx.x, 1);
    const float first = __shfl_sync(0xffffffffu, (float)threadIdx.x, 0);
    const unsigned odd = __ballot_sync(0xffffffffu, threadIdx.x & 1);
    out[threadIdx.x] = up + 100.0f * first + (odd == 0xaaaaaaaau ? 0.0f : 1e6f);
}

__global__ void count_up(int *count) { atomicAdd(count, 1); }

static void test_good_kernels(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, fill, dim3(2), dim3(256), r.data, 512);
    launch(&r, block_sums, dim3(2), dim3(256), (const float *)r.data, r.data + 512);
    float sums[2];
    assert_int_equal(cudaMemcpyAsync(sums, r.data + 512, sizeof sums, cudaMemcpyDeviceToHost, r.stream), cudaSuccess);
    assert_true(sums[0] == 255 * 128 && sums[1] == 255 * 128 + 256 * 256);
    launch(&r, warp_exchanges, dim3(1), dim3(64), r.data);
    float lanes[64];
    assert_int_equal(cudaMemcpyAsync(lanes, r.data, sizeof lanes, cudaMemcpyDeviceToHost, r.stream), cudaSuccess);
    for (int i = 0; i < 64; i++) assert_true(lanes[i] == (float)(i ^ 1) + 100.0f * (float)(i / 32 * 32));
    launch(&r, count_up, dim3(3), dim3(64), (int *)(void *)(r.data + 1000));
    int count = 0;
    assert_int_equal(cudaMemcpyAsync(&count, r.data + 1000, sizeof count, cudaMemcpyDeviceToHost, r.stream), cudaSuccess);
    assert_int_equal(count, 3 * 64);
    assert_int_equal(ftr_double_faults(), 0);
    close_room(&r);
}

/* ------------------------------------------------------------------------------------------------------------- faults -- */

__global__ void divergent_barrier(float *out) {
    if (threadIdx.x < 16) __syncthreads();
    out[threadIdx.x] = 1.0f;
}

__global__ void two_barriers(float *out) {
    if (threadIdx.x < 16)
        __syncthreads();
    else
        __syncthreads();
    out[threadIdx.x] = 1.0f;
}

__global__ void lacking_lane(float *out) {
    if (threadIdx.x == 5) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
}

static void test_barriers(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, divergent_barrier, dim3(1), dim3(32), r.data);
    assert_int_equal(ftr_double_faults(), 0); /* threads that have ended are not waited for */
    launch(&r, two_barriers, dim3(1), dim3(32), r.data);
    expect_report("different barriers");
    launch(&r, lacking_lane, dim3(1), dim3(32), r.data);
    expect_report("lacks lane");
    close_room(&r);
}

__global__ void mixed_waiting(float *out) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        out[threadIdx.x] = __shfl_sync(0x1u << 31, 1.0f, 31);
}

static void test_waiting_for_each_other(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, mixed_waiting, dim3(1), dim3(64), r.data);
    assert_true(ftr_double_faults() > 0);
    ftr_emu::clear_reports();
    close_room(&r);
}

/* What instrumented accesses show. A build under AddressSanitizer sees accesses out of bounds by that, and ends. */
#ifdef FTR_TEST_TRACE
__global__ void shared_race(float *out) {
    FTR_SHARED(float, part, 64);
    part[threadIdx.x] = 1.0f;
    out[threadIdx.x] = part[threadIdx.x & ~1u];
}

__global__ void shared_double_write(float *out) {
    FTR_SHARED(float, part, 1);
    part[0] = (float)threadIdx.x;
    __syncthreads();
    out[threadIdx.x] = part[0];
}

__global__ void shared_not_written(float *out) {
    FTR_SHARED(float, part, 64);
    if (threadIdx.x < 63) part[threadIdx.x] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = part[63 - threadIdx.x];
}

__global__ void shared_out_of_bounds(float *out, int index) {
    FTR_SHARED(float, part, 64);
    part[threadIdx.x + index] = 1.0f;
    __syncthreads();
    out[threadIdx.x] = part[threadIdx.x];
}

static void test_shared_race(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, shared_race, dim3(1), dim3(64), r.data);
    expect_report("in shared memory");
    close_room(&r);
}

static void test_shared_double_write(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, shared_double_write, dim3(1), dim3(64), r.data);
    expect_report("two writes");
    close_room(&r);
}

static void test_shared_not_written(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, shared_not_written, dim3(1), dim3(64), r.data);
    expect_report("shared memory that nothing wrote");
    close_room(&r);
}

static void test_shared_out_of_bounds(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, shared_out_of_bounds, dim3(1), dim3(64), r.data, 1);
    expect_report("outside of the arrays in shared memory");
    close_room(&r);
}

__global__ void global_race(float *out) { out[0] = (float)(blockIdx.x * blockDim.x + threadIdx.x); }

__global__ void global_out_of_bounds(float *out) { out[1024 + threadIdx.x] = 1.0f; }

__global__ void global_not_written(const float *in, float *out) { out[threadIdx.x] = in[threadIdx.x]; }

static void test_global_race(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, global_race, dim3(4), dim3(1), r.data);
    expect_report("a race in global memory");
    close_room(&r);
}

static void test_global_out_of_bounds(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, global_out_of_bounds, dim3(1), dim3(1), r.data + 0);
    expect_report("outside of device memory");
    close_room(&r);
}

static void test_global_not_written(void **state) {
    (void)state;
    room r = open_room();
    void *fresh = nullptr;
    assert_int_equal(cudaMalloc(&fresh, 256), cudaSuccess);
    launch(&r, global_not_written, dim3(1), dim3(32), (const float *)fresh, r.data);
    assert_int_equal(cudaFree(fresh), cudaSuccess);
    expect_report("global memory that nothing wrote");
    close_room(&r);
}

#endif

static void test_launch_limits(void **state) {
    (void)state;
    room r = open_room();
    launch(&r, fill, dim3(1), dim3(288), r.data, 8);
    expect_report("launch bounds of 256");
    launch(&r, fill, dim3(1, 70000), dim3(32), r.data, 8);
    expect_report("a grid of");
    launch(&r, fill, dim3(1), dim3(32, 32, 2), r.data, 8);
    expect_report("threads");
    close_room(&r);
}

/* ------------------------------------------------------------------------------------------------------------ streams -- */

/* Without an event, a stream that reads what another one writes gets the old value in one of the orders. */
static void test_missing_event(void **state) {
    (void)state;
    for (int with_event = 0; with_event < 2; with_event++) {
        int wrong = 0;
        for (uint64_t order = 0; order < 16; order++) {
            room r = open_room();
            const ftr_double_machine machine = {1, 9, 0, (size_t)1 << 30, 13000, order};
            ftr_double_set(&machine);
            cudaStream_t other;
            cudaEvent_t written;
            float *pinned;
            assert_int_equal(cudaStreamSynchronize(r.stream), cudaSuccess);
            assert_int_equal(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), cudaSuccess);
            assert_int_equal(cudaEventCreateWithFlags(&written, cudaEventDisableTiming), cudaSuccess);
            assert_int_equal(cudaMallocHost((void **)&pinned, sizeof(float)), cudaSuccess);
            assert_int_equal(ftr_emu_launch("fill", fill, 256, dim3(1), dim3(32), 0, r.stream, r.data, 32), cudaSuccess);
            assert_int_equal(cudaEventRecord(written, r.stream), cudaSuccess);
            if (with_event) assert_int_equal(cudaStreamWaitEvent(other, written, 0), cudaSuccess);
            assert_int_equal(cudaMemcpyAsync(pinned, r.data + 7, sizeof(float), cudaMemcpyDeviceToHost, other), cudaSuccess);
            assert_int_equal(cudaDeviceSynchronize(), cudaSuccess);
            wrong += *pinned != 7.0f;
            assert_int_equal(cudaFreeHost(pinned), cudaSuccess);
            assert_int_equal(cudaEventDestroy(written), cudaSuccess);
            assert_int_equal(cudaStreamDestroy(other), cudaSuccess);
            close_room(&r);
        }
        assert_true(with_event ? wrong == 0 : wrong > 0);
    }
}

static void test_graph_replays(void **state) {
    (void)state;
    room r = open_room();
    cudaGraph_t graph;
    cudaGraphExec_t made;
    assert_int_equal(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_equal(ftr_emu_launch("count_up", count_up, 256, dim3(2), dim3(32), 0, r.stream, (int *)(void *)r.data), cudaSuccess);
    assert_int_equal(cudaStreamEndCapture(r.stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphInstantiate(&made, graph, 0), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    for (int i = 0; i < 3; i++) assert_int_equal(cudaGraphLaunch(made, r.stream), cudaSuccess);
    int count = 0;
    assert_int_equal(cudaMemcpyAsync(&count, r.data, sizeof count, cudaMemcpyDeviceToHost, r.stream), cudaSuccess);
    assert_int_equal(count, 3 * 64);
    assert_int_equal(cudaGraphExecDestroy(made), cudaSuccess);
    assert_int_equal(ftr_double_faults(), 0);
    close_room(&r);
}

/* Broken rules of the runtime. */
static void test_runtime_rules(void **state) {
    (void)state;
    room r = open_room();
    assert_int_not_equal(cudaMemsetAsync(r.data, 0, 4, nullptr), cudaSuccess);
    expect_report("default stream");
    float host = 0;
    assert_int_equal(cudaMemcpyAsync(r.data + 1023, r.data, 8, cudaMemcpyDeviceToDevice, r.stream), cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(r.stream), cudaSuccess);
    expect_report("no device memory");
    assert_int_equal(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    assert_int_not_equal(cudaStreamSynchronize(r.stream), cudaSuccess);
    expect_report("during a capture");
    cudaGraph_t graph;
    assert_int_equal(cudaMemcpyAsync(&host, r.data, 4, cudaMemcpyDeviceToHost, r.stream), cudaSuccess);
    expect_report("not page-locked");
    assert_int_equal(cudaStreamEndCapture(r.stream, &graph), cudaSuccess);
    assert_int_equal(cudaGraphDestroy(graph), cudaSuccess);
    assert_int_not_equal(cudaFree(&host), cudaSuccess);
    expect_report("no device memory");
    close_room(&r);
}

int main() {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_kernels),
        cmocka_unit_test(test_barriers),
        cmocka_unit_test(test_waiting_for_each_other),
#ifdef FTR_TEST_TRACE
        cmocka_unit_test(test_shared_race),
        cmocka_unit_test(test_shared_double_write),
        cmocka_unit_test(test_shared_not_written),
        cmocka_unit_test(test_shared_out_of_bounds),
        cmocka_unit_test(test_global_race),
        cmocka_unit_test(test_global_out_of_bounds),
        cmocka_unit_test(test_global_not_written),
#endif
        cmocka_unit_test(test_launch_limits),
        cmocka_unit_test(test_missing_event),
        cmocka_unit_test(test_graph_replays),
        cmocka_unit_test(test_runtime_rules),
    };
    return cmocka_run_group_tests_name("emulator", tests, nullptr, nullptr);
}
