/* A libFuzzer target: any bytes are a valid safetensors file or are refused. */
#include "fasttrain.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static ftr_context *context;
    if (!context) {
        const ftr_context_desc desc = {.threads = 1, .log_level = FTR_LOG_SILENT};
        if (ftr_context_create(&desc, &context) != FTR_OK) abort();
    }
    ftr_safetensors *file = NULL;
    const ftr_status status = ftr_safetensors_parse(context, "input", data, size, &file);
    if ((status == FTR_OK) != (file != NULL) || (status != FTR_OK && status != FTR_ERROR_FORMAT)) abort();
    volatile unsigned sum = 0;
    ftr_safetensors_entry entry, found;
    for (int64_t i = 0; i < ftr_safetensors_count(file); i++) {
        if (!ftr_safetensors_at(file, i, &entry) || !ftr_safetensors_find(file, entry.name, &found)) abort();
        if (found.data != entry.data || found.dim != entry.dim) abort();
        for (int32_t d = 0; d < entry.rank; d++) sum += (unsigned)entry.dim[d];
        for (size_t b = 0; b < entry.bytes; b++) sum += ((const unsigned char *)entry.data)[b];
    }
    (void)sum;
    (void)ftr_safetensors_metadata(file, "format");
    ftr_safetensors_close(file);
    return 0;
}
