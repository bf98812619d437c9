/*
 * run.h -- a run from its regime to its rows: claim, load, train, write, report.
 */
#ifndef SIM_RUN_H
#define SIM_RUN_H

#include "sim/config.h"

struct train;

/* What --save notes in a file of weights, besides CONFIG_NOTE. */
#define RUN_NOTE_NAME  "name"
#define RUN_NOTE_EPOCH "epoch"
#define RUN_NOTE_DATA  "data_sha256"

enum run_status {
    RUN_DONE,
    RUN_ALREADY_DONE,
    RUN_DIVERGED,
    RUN_STOPPED,  /* by a signal: *stopped_by says which */
    RUN_ELSEWHERE /* another process is at it */
};

/* Finds the data that t->config names, and fills t->data. */
bool run_load_data(struct train *t, struct error *err);

/* Trains what c says and writes every epoch to the database.  *summary: the one line of results,
 * a new string (NULL if there are none).  Progress goes to stderr.  After SIGINT or SIGTERM the
 * step is ended, the run noted as stopped, and *stopped_by set. */
bool run(const struct config *c, enum run_status *status, char **summary, int *stopped_by,
         struct error *err);

#endif
