/*
 * config_read.h -- an object of JSON into a struct by a table of keys, and the sentences of faults.
 *
 * A fault reads FILE: path: FOUND is not EXPECTED, or --flag VALUE: not EXPECTED.
 */
#ifndef SIM_CONFIG_READ_H
#define SIM_CONFIG_READ_H

#include "sim/base.h"

struct config;
struct tree;

#define ABOVE_0 4.9406564584124654e-324 /* the least number that is not 0 */
#define BELOW_1 0.99999999999999989

enum key_kind {
    KEY_WHOLE,  /* uint32_t */
    KEY_SEED,   /* uint64_t */
    KEY_NUMBER, /* double */
    KEY_YES_NO, /* bool */
    KEY_TEXT,   /* char[high]; low 1: not empty */
    KEY_LINE,   /* the same; what is_line() holds to be one */
    KEY_WORD,   /* an enum: the place in words */
    KEY_OWN,    /* what read and write do */
};

struct key {
    const char *name;
    enum key_kind kind;
    size_t offset; /* in the struct that the section fills */
    double low, high;
    const char *const *words; /* NULL-terminated; "" is no word */
    bool (*read)(struct config *c, const struct tree *node, const char *path, struct error *err);
    struct tree *(*write)(const struct config *c);
};

/* What an object may hold: keys of a struct, settings of an entry of a table, or both. */
struct section {
    const struct key *keys;
    size_t count;
    const struct setting *settings; /* or NULL */
};

#define COUNT_OF(keys) (keys), ARRAY_LENGTH(keys)

/* base: the struct; values: room for the settings (those absent stay as they are). */
bool config_read_section(const struct section *section, void *base, double *values,
                         const struct tree *node, const char *path, struct error *err);
void config_write_section(struct tree *object, const struct section *section, const void *base,
                          const double *values);

bool config_read_number(double *to, double low, double high, bool whole, const struct tree *node,
                        const char *path, struct error *err);

/* Faults.  path may be "". */
bool config_wrong(const struct tree *node, const char *path, struct error *err,
                  const char *expected, ...) __attribute__((format(printf, 4, 5)));
bool config_missing(const struct tree *node, const char *path, const char *name, struct error *err);

/* what: "compressor", "key"; ends with the nearest of the names, or all of them. */
bool config_unknown(const struct tree *node, const char *path, const char *what, const char *name,
                    const char *const *names, size_t count, struct error *err);

#endif
