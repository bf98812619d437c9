/*
 * bench.h -- where the time of a step goes, beside what the machine can do.
 */
#ifndef SIM_BENCH_H
#define SIM_BENCH_H

#include "sim/config.h"

struct bench_options {
    uint32_t steps;      /* that are timed; the stages are measured in as many more */
    uint32_t vocabulary; /* words of the random text; it needs no data */
};

/* Times steps of c's last epoch and prints a table, with c->json an object, to out.  Nothing goes
 * to the database. */
bool bench(const struct config *c, struct bench_options options, FILE *out, struct error *err);

#endif
