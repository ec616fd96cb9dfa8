/* Schedules that tests/goldens/make_optimizers.py has in Python too. */
#ifndef FTR_TESTS_SUPPORT_SCHEDULE_CASES_H
#define FTR_TESTS_SUPPORT_SCHEDULE_CASES_H

#include "fasttrain.h"

enum { SCHEDULE_CASES = 26, PLATEAU_CASES = 5, SCHEDULE_LENGTH = 240 };

typedef struct schedule_case {
    const char *name;
    ftr_schedule (*make)(void);
} schedule_case;

extern const schedule_case schedule_cases[SCHEDULE_CASES];

typedef struct plateau_case {
    const char *name;
    ftr_plateau (*make)(void);
} plateau_case;

extern const plateau_case plateau_cases[PLATEAU_CASES];

#endif
