/* What a load found, filled by io/weights.c. */
#ifndef FTR_IO_LOAD_REPORT_H
#define FTR_IO_LOAD_REPORT_H

#include "core/core.h"

typedef struct ftr__load_list {
    ftr_load_entry *entries;
    int32_t count, capacity;
} ftr__load_list;

struct ftr_load_report {
    ftr_context *context;
    ftr__arena arena;
    const char *path;
    ftr__load_list lists[FTR_LOAD_OUTCOME_COUNT];
    ftr_status fault; /* of the first entry that has one */
    int32_t fault_count;
    bool refused;
    char sentence[FTR__MESSAGE_SIZE]; /* about the first fault, path included */
};

/* An empty report on a file; NULL with the error recorded when memory is short. */
FTR_LIB ftr_load_report *ftr__load_report_create(ftr_context *context, const char *path);

/* Adds a copy of an entry. `why` is the sentence of its fault, without the path. False when memory is short. */
FTR_LIB bool ftr__load_report_add(ftr_load_report *report, ftr_load_outcome outcome, const ftr_load_entry *entry,
                                  const char *why);

/* Records the first fault as the context's error and returns it; FTR_OK if there is none. */
FTR_LIB ftr_status ftr__load_report_verdict(ftr_load_report *report);

/* "F32 [2, 3]" of what the file has, "f32 [2, 3]" of what the graph has. Return `text`. */
#define FTR__LOAD_TEXT 160
FTR_LIB const char *ftr__load_found_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]);
FTR_LIB const char *ftr__load_expected_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]);

#endif
