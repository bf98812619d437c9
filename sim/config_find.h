/*
 * config_find.h -- where regimes lie.
 *
 * A name is sought in $GRADPRESS_REGIMES, ./regimes, and beside the program: ../regimes (a build)
 * and ../share/gradpress/regimes (installed).  A path is taken as it is.
 */
#ifndef SIM_CONFIG_FIND_H
#define SIM_CONFIG_FIND_H

#include "sim/base.h"

/* *path: a new string. */
bool config_find(char **path, const char *regime, struct error *err);

/* The names of all regimes in order, and the paths that config_find() gives for them. */
struct config_names {
    char **name, **path;
    size_t count;
};

void config_names_list(struct config_names *names);
void config_names_free(struct config_names *names);

#endif
