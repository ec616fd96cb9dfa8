/* The sides of parity.py that have no model: what optimizers, schedules and loss scaling do, step by step. Each writes a
 * safetensors file. */
#ifndef FTR_TESTS_PARITY_STEPS_H
#define FTR_TESTS_PARITY_STEPS_H

#include "fasttrain.h"

/* "<case>/<parameter>": parameters after 100 steps of each optimizer of tests/support/optimizer_cases.c that leaves no
 * steps out. */
ftr_status parity_optimizers(ftr_context *context, const char *path);

/* "<case>": the learning rate of each step; "plateau <case>": that after each epoch, from "metric" of the file `input`. */
ftr_status parity_schedules(ftr_context *context, const char *input, const char *path);

/* "<k>/scales", "<k>/skipped", "<k>/parameters" of 24 steps with an infinite gradient in step k, for k = 0 to 19. */
ftr_status parity_scaler(ftr_context *context, const char *path);

#endif
