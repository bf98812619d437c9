/*
 * bytes.h -- what a step's messages of a model would weigh, from its shapes alone: by the wire, and by
 * every rule of account.h.
 */
#ifndef SIM_BYTES_H
#define SIM_BYTES_H

#include "sim/account.h"
#include "sim/config.h"

#include <stdio.h>

struct tree;

/* Of one worker and step. */
struct tensor_bytes {
    double elements, entries;
    double up, down;
    struct by_rule by_rule;
};

/* A line for each rule; the same in an object. */
void bytes_print(FILE *out, const struct tensor_bytes *t);
void bytes_put(struct tree *object, const struct tensor_bytes *t);

struct bytes_options {
    uint32_t vocabulary; /* words: a text is not looked at */
    bool per_tensor;
};

/* Prints a table, with c->json an object, of one worker and step at the run's last ratio. */
void bytes(const struct config *c, struct bytes_options options, FILE *out);

#endif
