/*
 * config_keys.h -- the keys of a regime: what each may be, its default, and its way back to JSON.
 *
 * To add a key: a line in a table of config_keys.c, its default, and a line in regimes/README.md.
 */
#ifndef SIM_CONFIG_KEYS_H
#define SIM_CONFIG_KEYS_H

#include "sim/base.h"

struct config;
struct tree;

/* Fills c with the defaults, but for compressor and memory: config_layers_begin(). */
void config_keys_defaults(struct config *c);

/* Types, names and ranges. */
bool config_keys_read(struct config *c, const struct tree *regime, struct error *err);

/* Compressor and ratio alone. */
bool config_keys_read_method(struct config *c, const struct tree *regime, struct error *err);

/* What can be told only of the whole; fills in what follows. */
bool config_keys_check(struct config *c, const struct tree *regime, struct error *err);

/* The effective regime, in order. */
struct tree *config_keys_write(const struct config *c);

/* The same in the order of regimes/README.md, with about; to be freed. */
struct tree *config_keys_write_in_order(const struct config *c);

/* The settings of the run itself, which only flags give. */
bool config_keys_read_run(struct config *c, const struct tree *run, struct error *err);

#endif
