/*
 * data.h -- the command data: data sets are fetched, and checked.
 */
#ifndef SIM_DATA_H
#define SIM_DATA_H

#include "sim/base.h"

#include <stdio.h>

/* The words behind "data".  False with *misuse set if it is they that are wrong, clear if a set cannot
 * be had or is not whole. */
bool data_command(int argc, char **argv, FILE *out, bool *misuse, struct error *err);
void data_help(FILE *out);

#endif
