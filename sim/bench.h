/*
 * bench.h -- where the time of a step goes, beside what the machine can do; and what methods take.
 */
#ifndef SIM_BENCH_H
#define SIM_BENCH_H

#include "sim/config.h"

struct bench_options {
    uint32_t steps;      /* that are timed; the stages are measured in as many more */
    uint32_t vocabulary; /* words of the random text; it needs no data */
    const char *method;  /* of bench_methods(): alone; NULL: all */
};

/* Times steps of c's last epoch and prints a table, with c->json an object, to out.  Nothing goes
 * to the database. */
bool bench(const struct config *c, struct bench_options options, FILE *out, struct error *err);

/* Times what every compressor, every quantiser and some of both do with made-up gradients, at the flags
 * of train in argv: of one 700-unit LSTM and 16 workers unless those say otherwise. */
bool bench_methods(int argc, char **argv, struct bench_options options, FILE *out, bool *misuse,
                   struct error *err);

#endif
