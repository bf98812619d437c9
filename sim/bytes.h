/*
 * bytes.h -- what a step's messages of a model would weigh, from its shapes alone: by the wire, and by
 * every rule of account.h.
 */
#ifndef SIM_BYTES_H
#define SIM_BYTES_H

#include "sim/config.h"

#include <stdio.h>

struct bytes_options {
    uint32_t vocabulary; /* words: a text is not looked at */
    bool per_tensor;
};

/* Prints a table, with c->json an object, of one worker and step at the run's last ratio. */
void bytes(const struct config *c, struct bytes_options options, FILE *out);

#endif
