/*
 * rows.h -- what an epoch was, as rows of the database.
 *
 * Losses, norms, entries and bytes were added up on the device, the rest on the host.
 */
#ifndef SIM_ROWS_H
#define SIM_ROWS_H

#include "results/store.h"
#include "sim/account.h"
#include "sim/worker.h"

struct train;

/* What an epoch's steps add up on the host. */
struct tally {
    uint64_t steps, samples; /* tokens or images */
    double lr;
    struct sent before_last; /* all messages before the epoch's last step */
    double began;
};

struct rows {
    struct epoch_row epoch; /* with the others */
    struct step_row *step;
    struct tensor_row *tensor;
};

/* Of the epoch that has just ended, all but its validation; what was added up begins anew. */
void rows_collect(struct rows *rows, struct train *t, struct account *account,
                  const struct tally *tally);
void rows_free(struct rows *rows);

/* The mean over so many tokens or images of the losses that t->loss holds. */
double rows_loss(const struct train *t, uint64_t samples);

#endif
