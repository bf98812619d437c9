/*
 * progress.h -- what a person sees while a run goes on, on stderr: a bar on a terminal, else one
 * plain line an epoch.
 */
#ifndef SIM_PROGRESS_H
#define SIM_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool quiet, terminal;
    uint64_t steps; /* of the whole run */
    double began, shown;
    uint64_t done;
};

void progress_begin(struct progress *p, bool quiet, uint64_t steps);

/* A line of its own that stays. */
void progress_say(struct progress *p, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Whether the bar is due to be drawn again: at most a few times a second. */
bool progress_due(const struct progress *p);

/* Draws the bar: step of all, the loss so far in the epoch. */
void progress_show(struct progress *p, uint64_t step, double loss);

/* Takes the bar away. */
void progress_end(struct progress *p);

#endif
