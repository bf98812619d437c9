/*
 * config_flags.h -- the command line of train, and of eval and compress: one table that parses, and
 * prints the help.
 */
#ifndef SIM_CONFIG_FLAGS_H
#define SIM_CONFIG_FLAGS_H

#include "sim/base.h"

struct tree;

/* Bytes takes what train does. */
enum config_command { CONFIG_TRAIN, CONFIG_EVAL, CONFIG_BYTES, CONFIG_COMPRESS };

struct config_flags {
    enum config_command command;
    const char
        *regime;      /* as it was typed; of eval that of --regime, or NULL; of compress the SPEC */
    const char *file; /* of eval: the weights */
    char **input;     /* of compress: the files, as they were typed */
    size_t inputs;
    struct tree *files; /* a list of layers: of --with, in order */
    struct tree *said;  /* a list of layers: of flags and --set, in order */
    struct tree *run;   /* the keys of the run itself */
    bool no_tuned;
};

/* *misuse: it is the command line itself that is wrong. */
bool config_flags_parse(struct config_flags *flags, enum config_command command, int argc,
                        char **argv, bool *misuse, struct error *err);
void config_flags_free(struct config_flags *flags);

#endif
