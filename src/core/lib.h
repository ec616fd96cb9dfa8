/* Private functions that several files share. The single file makes them static; a split build links them. */
#ifndef FTR_CORE_LIB_H
#define FTR_CORE_LIB_H

#ifndef FTR_LIB
#define FTR_LIB extern
#endif

#endif
