/* Linkage of private functions that several files share: the single file makes them static, a split build links them. */
#ifndef FTR_CORE_LINKAGE_H
#define FTR_CORE_LINKAGE_H

#ifndef FTR_LIB
#define FTR_LIB extern
#endif

#endif
