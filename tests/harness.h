/*
 * harness.h -- what tests build on: devices that are stricter than the CPU, a run without files,
 * golden numbers.
 */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

/* cmocka wants these first, in this order, and takes the name of our fail(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* (ours stand between, so that fail() is declared before the macro) */
#include "sim/train.h"

#include <cmocka.h>

/* The CPU with device memory that is unreadable but inside a kernel, a copy or a library call:
 * host code that follows a device pointer dies here. */
extern const struct device_ops guard_device;

/* Makes a block unreadable inside of them too (NULL: nothing is hidden any more). */
void guard_hide(const void *memory);

/* The CPU, watching what a device that captures steps relies on: the third step of a shape must
 * launch what the second did, with the same arguments to the byte. */
extern const struct device_ops recording_device;

/* Steps that have been compared so far. */
unsigned recording_compared(void);

/* "cpu", "guard", "recording", or what device_open() takes. */
void harness_open(struct device *dev, const char *name);

/* The devices that a law runs on: those above, and that of GRADPRESS_TEST_DEVICE if it is set.
 * Ends with NULL. */
const char *const *harness_devices(void);

/* A regime as JSON text, and flags ("--workers", "3", NULL). */
struct config *harness_config(const char *json, const char *const *flags);
void harness_config_free(struct config *c);

/* A run over tokens, ready to step: train and, as valid and test, the same or others. */
void harness_train(struct train *t, const struct config *c, const char *device, uint32_t words,
                   const uint32_t *token, size_t count);

/* Ready to step, once there is a config and what is to be read; and the end of both. */
void harness_prepare(struct train *t, const char *device);
void harness_stop(struct train *t, struct config *c);

/* So many from the first epoch's first on. */
void harness_steps(struct train *t, uint32_t steps);

void harness_evaluation(struct train *t, const uint32_t *token, size_t count);

/* Random words below `words`, the same for a seed. */
uint32_t *harness_tokens(uint64_t seed, uint32_t words, size_t count);
void harness_floats(uint64_t seed, float *x, size_t n); /* uniform on [-1, 1) */

/* Copies of device memory, to be freed. */
float *harness_download(struct train *t, const float *from, size_t n);

/* A file of tests/golden, see its README.md. */
struct golden {
    uint8_t *bytes;
    size_t size;
};

void golden_open(struct golden *g, const char *name);
void golden_close(struct golden *g);
float *golden_floats(const struct golden *g, const char *name, size_t *count); /* to be freed */
uint32_t golden_integer(const struct golden *g, const char *name);
float golden_float(const struct golden *g, const char *name);
uint32_t *golden_integers(const struct golden *g, const char *name, size_t *count);

/* Fails unless max |a - b| <= tolerance * max |b|. */
void require_close(const char *what, const float *a, const float *b, size_t n, double tolerance);

#endif
