/*
 * config_choice.h -- what a name picks from a table, with that entry's settings.
 */
#ifndef SIM_CONFIG_CHOICE_H
#define SIM_CONFIG_CHOICE_H

#include "sim/config_read.h"

struct choice;

struct entry {
    const char *name;
    const struct setting *settings; /* NULL: none */
};

struct table {
    const char *what;
    struct entry (*at)(size_t i); /* a NULL name ends it */
};

extern const struct table model_table, dataset_table, compressor_table, quantiser_table,
    memory_table, optimizer_table;

/* NAME[:key=value,...] as {name, key: value}; NULL if it is not of that form.  And the spec of a
 * choice, with all its settings. */
struct tree *config_parse_spec(const struct tree *text);
char *config_write_spec(const struct choice *choice, const struct table *table);

const struct setting *config_settings(const struct table *table, const char *name);

/* The entry that the object's "name" picks. */
bool config_read_entry(struct entry *found, const struct table *table, const struct tree *node,
                       const char *path, struct error *err);

/* values: SETTINGS_MOST of them. */
void config_initial_values(double *values, const struct setting *settings);

/* An object {name, settings}; a setting that it leaves out has its initial value. */
bool config_read_choice(struct choice *to, const struct table *table, const struct tree *node,
                        const char *path, struct error *err);
struct tree *config_write_choice(const struct choice *choice, const struct table *table);

/* The same for a compressor with its "quantiser"; the name of that is "" if there is none. */
bool config_read_method(struct choice *compressor, struct choice *quantiser,
                        const struct tree *node, const char *path, struct error *err);
struct tree *config_write_method(const struct choice *compressor, const struct choice *quantiser);

#endif
