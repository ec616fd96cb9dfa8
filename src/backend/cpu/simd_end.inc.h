/* Closes what simd_begin.inc.h opened. */
#ifdef FTR__TARGET
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
#undef FTR__TARGET
#undef FTR__S
#undef FTR__W
#undef FTR__UNROLL
#undef FTR__MR
#undef FTR__ROWS
#undef FTR__VF
#undef FTR__VI
#undef FTR__VU
#undef FTR__INLINE
#undef FTR__LOAD
#undef FTR__STORE
#undef FTR__SPLAT
#undef FTR__FMA
#undef FTR__SELECT
#undef FTR__LANES
#undef FTR__LOAD_SOME
#undef FTR__STORE_SOME
