/*
 * eval.h -- the loss and the perplexity of weights that lie in a file.
 *
 * To the bit what the run that wrote them stored, on the same device with as many threads.
 */
#ifndef SIM_EVAL_H
#define SIM_EVAL_H

#include "sim/config.h"

/* Evaluates c->init, weights of c's model, on the part c->split of c's data: one line on out, as
 * text or JSON.  Data that are not those the file says it is of are a fault, unless the regime was
 * named. */
bool eval(const struct config *c, FILE *out, struct error *err);

#endif
