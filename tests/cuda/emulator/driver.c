/* A double of libcuda.so.1, for `make cuda-plans`: cuDNN loads the driver in order to load the kernels that it compiles for a
 * plan. Here loading succeeds, and nothing can run. The functions that are only looked up are refused when they are called. The
 * declarations are those of cuda.h, which is not included: its macros rename half of them. */
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

enum { SUCCESS = 0, STUB_LIBRARY = 34 };

typedef int result;

static int object; /* what all handles point at */

EXPORT result cuGetErrorString(result error, const char **text) {
    *text = error == SUCCESS ? "no error" : "not in the double of the driver";
    return SUCCESS;
}

EXPORT result cuGetErrorName(result error, const char **text) { return cuGetErrorString(error, text); }

/* Each gives a handle, of what does not matter. */
#define GIVES(name) \
    EXPORT result name(void **handle) { \
        *handle = &object; \
        return SUCCESS; \
    }
GIVES(cuLibraryLoadData)
GIVES(cuLibraryGetKernel)
GIVES(cuLibraryGetModule)
GIVES(cuKernelGetFunction)
GIVES(cuModuleLoadData)
GIVES(cuModuleLoadDataEx)
GIVES(cuModuleLoadFatBinary)
GIVES(cuModuleGetFunction)

#define DOES_NOTHING(name) \
    EXPORT result name(void) { return SUCCESS; }
DOES_NOTHING(cuLibraryUnload)
DOES_NOTHING(cuModuleUnload)
DOES_NOTHING(cuKernelSetAttribute)
DOES_NOTHING(cuFuncSetAttribute)

#define REFUSES(name) \
    EXPORT result name(void) { return STUB_LIBRARY; }
REFUSES(cuInit)
REFUSES(cuDriverGetVersion)
REFUSES(cuCtxGetCurrent)
REFUSES(cuCtxGetDevice)
REFUSES(cuCtxPushCurrent)
REFUSES(cuCtxPopCurrent)
REFUSES(cuDeviceGet)
REFUSES(cuDeviceGetCount)
REFUSES(cuLaunchKernel)
REFUSES(cuLaunchKernelEx)
REFUSES(cuLaunchCooperativeKernel)
REFUSES(cuLinkCreate)
REFUSES(cuLinkCreate_v2)
REFUSES(cuLinkAddData)
REFUSES(cuLinkAddData_v2)
REFUSES(cuLinkAddFile_v2)
REFUSES(cuLinkComplete)
REFUSES(cuLinkDestroy)
REFUSES(cuCtxGetLimit)
REFUSES(cuStreamGetCtx)
REFUSES(cuStreamSynchronize)
REFUSES(cuLibraryLoadFromFile)
REFUSES(cuKernelGetAttribute)
REFUSES(cuFuncGetAttribute)
REFUSES(cuOccupancyMaxPotentialClusterSize)
REFUSES(cuOccupancyMaxActiveBlocksPerMultiprocessor)
REFUSES(cuTensorMapEncodeTiled)
REFUSES(cuModuleGetGlobal_v2)
REFUSES(cuMemcpyDtoH_v2)
REFUSES(cuDeviceGetAttribute)
REFUSES(cuDevicePrimaryCtxRetain)
REFUSES(cuDevicePrimaryCtxRelease)
REFUSES(cuDevicePrimaryCtxReset)
