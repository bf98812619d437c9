/*
 * config_layers.h -- what is said later counts: files and flags laid over one another, and the
 * tuned table.
 *
 * A layer is an object with some keys of a regime.
 */
#ifndef SIM_CONFIG_LAYERS_H
#define SIM_CONFIG_LAYERS_H

#include "sim/base.h"

struct config;
struct tree;

/* Spells "NAME:key=value" out as an object wherever a name picks from a table; refuses two keys
 * that exclude each other. */
bool config_layer_prepare(struct tree *layer, struct error *err);

/* Puts a value, which it takes over, at a dotted path, as --set and the tuned table have it; refuses
 * one that is deeper than any key. */
bool config_layer_put(struct tree *layer, const char *path, struct tree *value, struct error *err);

/* The lowest layer: no compression, and the memory that goes with it. */
struct tree *config_layers_begin(const char *place);

/* What excludes a key of the layer, or belongs to another choice, goes from below it. */
void config_layer_apply(struct tree *into, const struct tree *layer);

/* Whether every entry of the table is right, whichever counts.  regime: without its table. */
bool config_tuned_check(const struct tree *tuned, const struct tree *regime, struct error *err);

/* The entry with the most settings of those that fit compressor and ratio of c; *entry is NULL if
 * none does.  *layer: what it says, prepared; to be freed. */
bool config_tuned_find(const struct tree *tuned, const struct config *c, const struct tree **entry,
                       struct tree **layer, struct error *err);

#endif
