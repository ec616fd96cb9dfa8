/* The file that holds the implementation. It includes the header twice, as large programs do by way of others. */
#define FASTTRAIN_IMPLEMENTATION
#include HEADER
#include HEADER

#include "dropin.h"
#include <stdio.h>

int main(void) {
    int line = train_line(), xor_network = train_xor();
    printf("line: %s\nxor: %s\n", line == 0 ? "learned" : "failed", xor_network == 0 ? "learned" : "failed");
    return line != 0 || xor_network != 0;
}
