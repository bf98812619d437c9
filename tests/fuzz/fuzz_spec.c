/*
 * fuzz_spec.c -- flags of train, a word a line, over one regime: --compressor, --set and all others.
 */
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>

#define WORDS_MOST 32

static const char regime[] =
    "{\"model\": {\"name\": \"lstm\", \"hidden\": 8, \"tied\": true}, \"data\": \"ptb\","
    "\"schedule\": {\"0\": {\"lr\": 20}, \"3\": {\"lr\": 5, \"momentum\": 0.5}}, \"epochs\": 4,"
    "\"workers\": 2, \"total_batch\": 16, \"compressor\": \"dgc\","
    "\"warmup\": {\"ratios\": [0.25, 0.0625], \"steps\": 10},"
    "\"tuned\": {\"topk\": {\"lr\": 2}, \"topk:ratio=0.01\": {\"model.dropout\": 0.5}}}";

/* The file is there once and for all. */
static char *regime_path(void)
{
    static char path[512];

    if (path[0] == '\0') {
        struct part text = {(const uint8_t *)regime, strlen(regime)};
        char *made = fuzz_file("regime.json", text);

        CHECK(strlen(made) < sizeof(path));
        memcpy(path, made, strlen(made) + 1);
        free(made);
    }
    return path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *argv[WORDS_MOST] = {regime_path()};
    char *copy, *rest;
    int argc = 1;

    /* --with and --init open a file: none but those of the folder where this runs. */
    if (memchr(data, '/', size) != NULL)
        return 0;
    copy = rest = allocate(size + 1, 1);
    memcpy(copy, data, size);
    while (rest != NULL && argc < WORDS_MOST) {
        char *end = strchr(rest, '\n');

        argv[argc++] = rest;
        if (end != NULL)
            *end++ = '\0';
        rest = end;
    }
    fuzz_config(argc, argv);
    free(copy);
    return 0;
}
