/* Folders: made, removed, and the names of checkpoints in them. */
#ifndef FTR_IO_FOLDER_H
#define FTR_IO_FOLDER_H

#include "core/core.h"

/* Makes a folder and those above it, where they are missing. */
FTR_LIB ftr_status ftr__folder_make(ftr_context *context, const char *path);

/* Removes a folder of files; one that holds folders stays, without its files. Takes no memory of the hook; any thread.
 * NULL, or the name of the call that failed, with errno set. */
FTR_LIB const char *ftr__folder_remove(const char *path);

/* Makes the names in a folder durable. Not every file system can: that is no failure. False with errno set. */
FTR_LIB bool ftr__folder_sync(const char *path);

/* What a checkpoint's folder is called: "step-000000000123", or "step-000000000123.1" if that was taken. */
typedef struct ftr__folder_name {
    int64_t step;
    int32_t copy; /* 0: no suffix */
} ftr__folder_name;

#define FTR__FOLDER_TEXT 48
#define FTR__FOLDER_TEMPORARY ".tmp-" /* what names of unfinished folders begin with */

/* Writes the name. Returns `text`. */
FTR_LIB const char *ftr__folder_text(ftr__folder_name name, char text[FTR__FOLDER_TEXT]);

/* False if a text is no such name. */
FTR_LIB bool ftr__folder_parse(const char *text, ftr__folder_name *name);

/* Negative if `a` is older than `b`. */
FTR_LIB int ftr__folder_compare(ftr__folder_name a, ftr__folder_name b);

/* The checkpoints' names in a directory, the newest first, in memory of the arena. A directory that is not there has
 * none. */
FTR_LIB ftr_status ftr__folder_list(ftr_context *context, ftr__arena *arena, const char *directory,
                                    ftr__folder_name **names, int32_t *count);

/* Removes what interrupted saves left in a directory; what cannot be removed is named in a warning. */
FTR_LIB ftr_status ftr__folder_clean(ftr_context *context, ftr__arena *arena, const char *directory);

/* "directory/name" in memory of the arena; NULL when memory is short. */
FTR_LIB char *ftr__folder_join(ftr__arena *arena, const char *directory, const char *name);

#endif
