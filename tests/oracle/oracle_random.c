/* Random numbers and the ops on them. */
#include "oracle_tools.h"

/* Number `index` of the stream of (seed, purpose, key, step): one Philox block of (purpose, seed) and one of (key, step)
 * give the key and the upper half of the counter that numbers are then drawn with. */
static uint32_t stream_number(uint64_t seed, uint32_t purpose, uint64_t key, uint64_t step, uint64_t index) {
    uint32_t seed_words[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t purpose_words[4] = {purpose, 0, 0, UINT32_C(0x66747221)}, purpose_key[4];
    ftr_test_philox(purpose_words, seed_words, purpose_key);
    uint32_t stream[4] = {(uint32_t)key, (uint32_t)(key >> 32), (uint32_t)step, (uint32_t)(step >> 32)}, stream_key[4];
    ftr_test_philox(stream, purpose_key, stream_key);
    uint64_t block = index / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), stream_key[2], stream_key[3]}, numbers[4];
    ftr_test_philox(counter, stream_key, numbers);
    return numbers[index % 4];
}

enum { PURPOSE_DROPOUT = 2 };

uint32_t dropout_number(const ftr_kernel_call *call, uint64_t index) {
    return stream_number(call->seed, PURPOSE_DROPOUT, call->attr->dropout.key, call->step, index);
}

/* As dropout, but an element's number is that of its row. */
ftr_status oracle_stochastic_depth(const ftr_kernel_call *call) {
    double p = call->attr->dropout.p;
    int64_t rows = call->in[0].shape.dim[0];
    for (int64_t i = 0; i < call->out[0].count; i++) {
        int64_t row = i / (call->out[0].count / rows);
        bool dropped = dropout_number(call, (uint64_t)row) < floor(p * 0x1p32);
        set(&call->out[0], i, dropped ? 0.0 : get(&call->in[0], i) / (1 - p));
    }
    return FTR_OK;
}
