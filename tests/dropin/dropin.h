/* What the files of the drop-in project share. */
#ifndef DROPIN_H
#define DROPIN_H

#ifdef __cplusplus
extern "C" {
#endif

/* Each trains something small and returns 0 when it learned. */
int train_line(void);
int train_xor(void);

#ifdef __cplusplus
}
#endif

#endif
