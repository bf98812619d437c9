/*
 * compress.h -- a memory and a compressor at work on gradients from a file: the steps of train.c
 * without a model.
 */
#ifndef SIM_COMPRESS_H
#define SIM_COMPRESS_H

#include "sim/config.h"

#include <stdio.h>

/* Writes to c->save what --dump writes of a step, and its messages to the folder c->dump, unless
 * they are ""; prints what a worker sends in a step, with c->json as an object. */
bool compress(const struct config *c, FILE *out, struct error *err);

#endif
