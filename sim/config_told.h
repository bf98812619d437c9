/*
 * config_told.h -- for every key of the effective regime, who said it.
 *
 * A tree knows the place of each of its values, so what was laid over one another still tells which
 * layer counted in the end.  What a compressor decides (its own memory, no ratio, no warm-up) was
 * said by whoever chose the compressor.
 */
#ifndef SIM_CONFIG_TOLD_H
#define SIM_CONFIG_TOLD_H

#include "sim/base.h"

struct config;
struct tree;

/* The place of what nobody said: config_layers_begin(). */
#define CONFIG_DEFAULT_PLACE "the defaults"

/* Fills c->told.  whole: all layers, laid; regime: the path of the lowest. */
void config_told_fill(struct config *c, const struct tree *whole, const char *regime);
void config_told_free(struct config *c);

#endif
