/* Folders for tests that write: in memory where the system has such a file system, because what these tests do most is
 * to wait for the disk. */
#ifndef FTR_TESTS_SUPPORT_FTR_FOLDER_H
#define FTR_TESTS_SUPPORT_FTR_FOLDER_H

#include "ftr_test.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

#define FTR_TEST_PATH 512

/* "folder/name". */
static inline const char *ftr_test_path(char path[FTR_TEST_PATH], const char *folder, const char *name) {
    const int used = snprintf(path, FTR_TEST_PATH, "%s/%s", folder, name);
    if (used < 0 || used >= FTR_TEST_PATH) fail_msg("%s/%s: the path is too long", folder, name);
    return path;
}

/* Removes a folder with all that is in it. */
static inline void ftr_test_remove(const char *path) {
    DIR *directory = opendir(path);
    if (!directory) return;
    for (const struct dirent *entry; (entry = readdir(directory));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char inner[FTR_TEST_PATH];
        struct stat info;
        ftr_test_path(inner, path, entry->d_name);
        if (lstat(inner, &info) == 0 && S_ISDIR(info.st_mode))
            ftr_test_remove(inner);
        else
            unlink(inner);
    }
    closedir(directory);
    rmdir(path);
}

/* Makes a new folder; fails the test if it cannot. */
static inline void ftr_test_folder(char path[FTR_TEST_PATH]) {
    const char *set = getenv("TMPDIR");
    const char *base = set && *set ? set : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(path, FTR_TEST_PATH, "%s/fasttrain_XXXXXX", base);
    if (!mkdtemp(path)) fail_msg("%s: no folder can be made", path);
}

/* How many entries of a folder begin with a prefix; 0 without the folder. */
static inline int ftr_test_entries(const char *path, const char *prefix) {
    int count = 0;
    DIR *directory = opendir(path);
    if (!directory) return 0;
    for (const struct dirent *entry; (entry = readdir(directory));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
                 strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
    closedir(directory);
    return count;
}

/* The whole of a file in memory of malloc(). */
static inline unsigned char *ftr_test_read_file(const char *path, size_t *size) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s: cannot be opened", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = malloc(*size + 1);
    if (fread(bytes, 1, *size, file) != *size) fail_msg("%s: cannot be read", path);
    fclose(file);
    return bytes;
}

static inline void ftr_test_write_file(const char *path, const void *bytes, size_t size) {
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0) fail_msg("%s: cannot be written", path);
}

#endif
