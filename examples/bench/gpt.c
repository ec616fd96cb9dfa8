/* Training steps of a GPT on bytes: 6 layers, 384 wide, 6 heads; cross entropy, AdamW, batch 8 of 256 tokens. A sample
 * is a sequence. See bench.h; gpt.py is its twin. */
#include "bench.h"

static ftr_tensor network(ftr_tensor tokens) {
    ftr_gpt_desc desc = ftr_gpt_defaults(FTR_GPT_CHARS); /* no dropout */
    desc.vocabulary = 256, desc.context = 256, desc.layers = 6, desc.width = 384, desc.heads = 6;
    return ftr_gpt(tokens, &desc);
}

int main(int argc, char **argv) {
    return bench_main(argc, argv, &(bench_workload){"gpt", FTR_SHAPE(8, 256), 256, network, ftr_adamw(3e-4), true});
}
