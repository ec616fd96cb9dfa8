#include "core/sort.h"

/* Heap sort (Williams, 1964): restores the heap below `root`. */
static void ftr__sort_sift(const void **items, int64_t root, int64_t count, ftr__compare_fn compare) {
    const void *moved = items[root];
    for (;;) {
        int64_t child = 2 * root + 1;
        if (child >= count) break;
        if (child + 1 < count && compare(items[child], items[child + 1]) < 0) child++;
        if (compare(moved, items[child]) >= 0) break;
        items[root] = items[child];
        root = child;
    }
    items[root] = moved;
}

void ftr__sort(const void **items, int64_t count, ftr__compare_fn compare) {
    for (int64_t root = count / 2 - 1; root >= 0; root--) ftr__sort_sift(items, root, count, compare);
    for (int64_t last = count - 1; last > 0; last--) {
        const void *largest = items[0];
        items[0] = items[last];
        items[last] = largest;
        ftr__sort_sift(items, 0, last, compare);
    }
}
