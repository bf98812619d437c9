/*
 * fuzz.h -- what the fuzz targets share: an input in parts, and files made of it.
 *
 * A target is a file fuzz_NAME.c with the one function below, in which a CHECK says what holds of any
 * input.  The main() around it is libFuzzer's, or that of replay.c, which goes through a corpus.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include "sim/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct part {
    const uint8_t *data;
    size_t size;
};

/* The parts between lines of ----; what an input does not have is empty. */
void fuzz_split(struct part *parts, size_t count, const uint8_t *data, size_t size);

/* A file in this process's own folder, which goes when the process ends; its path, to be freed. */
char *fuzz_file(const char *name, struct part content);
const char *fuzz_folder(void);

/* What holds of any command line of train: a fault says something, and the effective regime of what
 * is none is a regime again, of the same key. */
void fuzz_config(int argc, char **argv);

#endif
