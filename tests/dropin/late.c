/* The implementation in a file that had the interface, and other headers, before. */
#include <stdio.h>
#include HEADER
#define FASTTRAIN_IMPLEMENTATION
#include HEADER

int main(void) {
    printf("%s\n", ftr_status_name(FTR_OK));
    return 0;
}
