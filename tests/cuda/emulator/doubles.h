/* What tests ask of the doubles of CUDA's libraries: the machine that they pretend to be, calls that fail, and what was
 * left behind. The doubles are compiled against the real headers and linked in place of the libraries. */
#ifndef FTR_TESTS_CUDA_DOUBLES_H
#define FTR_TESTS_CUDA_DOUBLES_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The machine; 0 devices: none. Set before a context is made. */
typedef struct ftr_double_machine {
    int devices;
    int compute_major, compute_minor;
    size_t memory;   /* bytes, of each device */
    int driver;      /* version, as cudaDriverGetVersion() gives it; 0: there is no driver */
    uint64_t order;  /* seed of the order in which streams get on */
} ftr_double_machine;

/* One H100 with 1 GiB. Also forgets failures that were asked for, and counts. */
void ftr_double_reset(void);
void ftr_double_set(const ftr_double_machine *machine);

/* Call number `call`, from 1, of those that return a status and do not give something back fails. 0: none. Counted from here on. */
void ftr_double_fail(int64_t call);
int64_t ftr_double_calls(void);
/* Name of the call that was made to fail; "" if none was. */
const char *ftr_double_failed(void);

/* Objects that were made and not destroyed: memory, streams, events, graphs, descriptors, handles. */
int64_t ftr_double_live(void);

/* Broken rules and faults of kernels, as the emulator counts them, and the first of them. */
int ftr_double_faults(void);
const char *ftr_double_first_fault(void);

#ifdef __cplusplus
}

/* For the doubles themselves. */
#include <cuda_runtime_api.h>
#include <functional>

namespace ftr_double {
/* Whether this call is to fail. */
bool fails(const char *name);
void made();
void gone();
/* Puts work into a stream: it runs when its turn has come, later than what the stream has before. */
cudaError_t put(cudaStream_t stream, const char *what, std::function<void()> work);
/* Runs all that is left to do. */
void finish_all();
bool capturing(cudaStream_t stream);
/* Reports memory that is no device memory, or not aligned. */
void check_memory(const char *call, const char *what, const void *begin, size_t bytes, size_t alignment);
} // namespace ftr_double
#endif

#endif
