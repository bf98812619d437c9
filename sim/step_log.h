/*
 * step_log.h -- what every N-th step of an epoch did, without waiting for it.
 *
 * Losses, norms and bytes are added up on the device over the epoch (worker.h).  Before and behind
 * a step that is kept the sums so far go into records there; when the epoch has ended, their
 * differences are the step's.  Outside of the step proper, which is replayed as it was.
 */
#ifndef SIM_STEP_LOG_H
#define SIM_STEP_LOG_H

#include "sim/worker.h"

struct step_record;

/* A step that was kept.  loss: the mean over its tokens; the others per worker. */
struct logged_step {
    uint64_t number, tokens;
    double lr, loss;
    double density, bytes_up, bytes_down, grad_norm;
};

struct step_log {
    uint32_t every;             /* 0: no step is kept */
    size_t room, count;         /* steps of an epoch */
    struct logged_step *step;   /* [room] what the host knows of them */
    struct step_record *record; /* [room][2] on the device */
    double *lane;               /* there, too: partial sums */
};

/* steps: of an epoch. */
void step_log_create(struct step_log *l, const struct workers *w, uint64_t steps);
void step_log_destroy(struct step_log *l, const struct workers *w);
size_t step_log_bytes(const struct config *c, uint64_t steps);

/* Around every step; only launches. */
void step_log_before(struct step_log *l, const struct workers *w, const struct step *step);
void step_log_after(struct step_log *l, const struct workers *w, const struct step *step,
                    uint64_t tokens);

/* The steps kept since the epoch began, in order; they live until the next step.  Waits. */
const struct logged_step *step_log_take(struct step_log *l, const struct workers *w, size_t *count);

#endif
