#include "io/load_report.h"

#include <stdio.h>
#include <string.h>

ftr_load_report *ftr__load_report_create(ftr_context *context, const char *path) {
    ftr_load_report *report = ftr__allocate(context, sizeof *report);
    if (!report) {
        ftr__out_of_memory(context, path, sizeof *report);
        return NULL;
    }
    memset(report, 0, sizeof *report);
    report->context = context;
    ftr__arena_init(&report->arena, context);
    report->path = ftr__arena_string(&report->arena, path);
    if (report->path) return report;
    ftr__out_of_memory(context, path, strlen(path) + 1);
    ftr_load_report_destroy(report);
    return NULL;
}

void ftr_load_report_destroy(ftr_load_report *report) {
    if (!report) return;
    ftr__arena_free(&report->arena);
    ftr__release(report->context, report, sizeof *report);
}

bool ftr__load_report_add(ftr_load_report *report, ftr_load_outcome outcome, const ftr_load_entry *entry,
                          const char *why) {
    ftr__load_list *list = &report->lists[outcome];
    const size_t size = (size_t)entry->found_rank * sizeof *entry->found_dim;
    char *name = ftr__arena_string(&report->arena, entry->name);
    int64_t *dim = ftr__arena_alloc(&report->arena, size);
    if (!name || !dim ||
        !ftr__arena_grow(&report->arena, (void **)&list->entries, list->count, &list->capacity, sizeof *list->entries))
        return false;
    ftr_load_entry *added = &list->entries[list->count++];
    *added = *entry;
    added->name = name;
    if (size > 0) memcpy(dim, entry->found_dim, size);
    added->found_dim = dim; /* the type's word is a constant of safetensors.c */
    if (entry->fault == FTR_OK) return true;
    if (report->fault_count++ > 0) return true;
    report->fault = entry->fault;
    snprintf(report->sentence, sizeof report->sentence, "%s: %s", report->path, why);
    return true;
}

ftr_status ftr__load_report_verdict(ftr_load_report *report) {
    if (report->fault_count == 0) return FTR_OK;
    report->refused = true;
    if (report->fault_count == 1) return ftr__error(report->context, report->fault, "%s", report->sentence);
    const int32_t more = report->fault_count - 1;
    return ftr__error(report->context, report->fault, "%s, and %d more %s not fit", report->sentence, more,
                      more == 1 ? "does" : "do");
}

int32_t ftr_load_report_count(const ftr_load_report *report, ftr_load_outcome outcome) {
    const bool known = (int)outcome >= 0 && outcome < FTR_LOAD_OUTCOME_COUNT;
    return report && known ? report->lists[outcome].count : 0;
}

bool ftr_load_report_at(const ftr_load_report *report, ftr_load_outcome outcome, int32_t index, ftr_load_entry *entry) {
    if (!entry || index < 0 || index >= ftr_load_report_count(report, outcome)) return false;
    *entry = report->lists[outcome].entries[index];
    return true;
}

const char *ftr__load_found_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]) {
    char dims[FTR__SHAPE_TEXT];
    ftr__dims_text(entry->found_rank, entry->found_dim, dims, sizeof dims);
    snprintf(text, FTR__LOAD_TEXT, "%s %s", entry->found_dtype, dims);
    return text;
}

const char *ftr__load_expected_text(const ftr_load_entry *entry, char text[FTR__LOAD_TEXT]) {
    char dims[FTR__SHAPE_TEXT];
    ftr__shape_text(&entry->expected_shape, dims);
    snprintf(text, FTR__LOAD_TEXT, "%s %s", ftr_dtype_name(entry->expected_dtype), dims);
    return text;
}

static void ftr__load_print_entry(const char *outcome, const ftr_load_entry *entry, ftr_write_fn write, void *user) {
    char text[FTR__LOAD_TEXT];
    ftr__print(write, user, "%-10s  ", outcome);
    write(user, entry->name, strlen(entry->name));
    ftr__print(write, user, ": ");
    if (entry->found_dtype) ftr__print(write, user, "found %s", ftr__load_found_text(entry, text));
    if (entry->found_dtype && entry->expected_dtype) ftr__print(write, user, ", ");
    if (entry->expected_dtype) ftr__print(write, user, "expected %s", ftr__load_expected_text(entry, text));
    ftr__print(write, user, "\n");
}

void ftr_load_report_print(const ftr_load_report *report, ftr_write_fn write, void *user) {
    static const char *const words[FTR_LOAD_OUTCOME_COUNT] = {"loaded", "missing", "unexpected", "mismatched",
                                                              "skipped"};
    if (!report || !write) return;
    write(user, report->path, strlen(report->path));
    ftr__print(write, user, ": %s", report->refused ? "refused, nothing is changed: " : "");
    for (int32_t i = 0; i < FTR_LOAD_OUTCOME_COUNT; i++)
        ftr__print(write, user, "%s%d %s", i ? ", " : "", report->lists[i].count,
                   i == FTR_LOAD_LOADED && report->refused ? "fit" : words[i]);
    ftr__print(write, user, "\n");
    for (int32_t i = FTR_LOAD_MISSING; i < FTR_LOAD_OUTCOME_COUNT; i++)
        for (int32_t k = 0; k < report->lists[i].count; k++)
            ftr__load_print_entry(words[i], &report->lists[i].entries[k], write, user);
}
