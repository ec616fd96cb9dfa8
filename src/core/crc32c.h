/* CRC-32C (Castagnoli; RFC 3720, appendix B.4): the digest of checkpoints and of TensorBoard's records. */
#ifndef FTR_CORE_CRC32C_H
#define FTR_CORE_CRC32C_H

#include "core/core.h"

/* Digest of `size` bytes; that of a text in pieces is got by passing the digest of what stands before, 0 at first.
 * Thread safe. */
FTR_LIB uint32_t ftr__crc32c(uint32_t before, const void *data, size_t size);

/* The same without special instructions. */
FTR_LIB uint32_t ftr__crc32c_portable(uint32_t before, const void *data, size_t size);

#endif
