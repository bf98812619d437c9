/*
 * fuzz_regime.c -- a regime; behind a line of ---- a file for --with.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part part[2];
    char with[] = "--with";
    char *argv[3] = {NULL, with, NULL};

    fuzz_split(part, ARRAY_LENGTH(part), data, size);
    argv[0] = fuzz_file("regime.json", part[0]);
    argv[2] = fuzz_file("with.json", part[1]);
    fuzz_config(part[1].size > 0 ? 3 : 1, argv);
    free(argv[0]);
    free(argv[2]);
    return 0;
}
