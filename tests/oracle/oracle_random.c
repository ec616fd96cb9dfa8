/* Random numbers and the ops on them. */
#include "oracle_tools.h"

/* One Philox block of (purpose, seed) and one of (key, step)
 * give the key and the upper half of the counter that numbers are then drawn with. */
uint32_t stream_number(uint64_t seed, uint32_t purpose, uint64_t key, uint64_t step, uint64_t index) {
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

enum { PURPOSE_DROPOUT = 2, PURPOSE_TENSOR = 4 };

uint32_t dropout_number(const ftr_kernel_call *call, uint64_t key, uint64_t index) {
    return stream_number(call->seed, PURPOSE_DROPOUT, key, call->step, index);
}

/* As dropout, but an element's number is that of its row. */
ftr_status oracle_stochastic_depth(const ftr_kernel_call *call) {
    double p = call->attr->dropout.p;
    int64_t rows = call->in[0].shape.dim[0];
    for (int64_t i = 0; i < call->out[0].count; i++) {
        int64_t row = i / (call->out[0].count / rows);
        bool dropped = dropout_number(call, call->attr->dropout.key, (uint64_t)row) < floor(p * 0x1p32);
        set(&call->out[0], i, dropped ? 0.0 : get(&call->in[0], i) / (1 - p));
    }
    return FTR_OK;
}

/* Number `index` of a random tensor's stream, its upper 24 bits as a number from 0 to 1 (not included). */
static double unit_number(const ftr_kernel_call *call, int64_t index) {
    uint32_t number = stream_number(call->seed, PURPOSE_TENSOR, call->attr->random.key, call->step, (uint64_t)index);
    return floor(number / 256.0) * 0x1p-24;
}

/* Never `high` itself, to which the largest numbers would be rounded. */
ftr_status oracle_random_uniform(const ftr_kernel_call *call) {
    double low = call->attr->random.a, high = call->attr->random.b;
    for (int64_t i = 0; i < call->out[0].count; i++) {
        float x = (float)(low + (high - low) * unit_number(call, i));
        set(&call->out[0], i, low < high && x >= (float)high ? nextafterf((float)high, (float)low) : x);
    }
    return FTR_OK;
}

/* Box and Muller: two numbers make two elements. */
ftr_status oracle_random_normal(const ftr_kernel_call *call) {
    double mean = call->attr->random.a, std = call->attr->random.b;
    for (int64_t i = 0; i < call->out[0].count; i++) {
        int64_t first = i / 2 * 2;
        double radius = sqrt(-2 * log(1 - unit_number(call, first)));
        double angle = 2 * acos(-1.0) * unit_number(call, first + 1);
        set(&call->out[0], i, mean + std * radius * (i % 2 ? sin(angle) : cos(angle)));
    }
    return FTR_OK;
}
