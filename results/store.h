/*
 * store.h -- results in SQLite: the only door to it for whoever writes.  query.h reads them back.
 *
 * schema.sql tells the tables.  An epoch is one transaction; after it the write-ahead log is
 * folded into the one file, so that a copy of that file holds every finished epoch.  Any number of
 * processes may write to one file: a locked database is waited for and tried again.
 *
 * A metric that is not finite is stored as +Infinity where less is better and -Infinity where more
 * is, so that it never ranks best; "not measured" is NULL, and NOT_MEASURED here.
 */
#ifndef RESULTS_STORE_H
#define RESULTS_STORE_H

#include "sim/base.h"

#include <stdint.h>

struct store;

#define NOT_MEASURED (-1e308)

/* SQLite's application_id of a database of ours: "grad". */
#define STORE_APPLICATION_ID 0x67726164

/* Of the schema: SQLite's user_version. */
#define STORE_VERSION 2

struct run_row {
    const char *key, *name, *experiment, *experiment_key;
    const char *model, *dataset, *compressor, *memory, *method, *tuned, *device, *config, *version,
        *data_sha256;
    double ratio;
    uint32_t workers, batch, batch_total;
    uint32_t threads, group, streams; /* with device and version: what results repeat for */
    uint64_t seed;
    const struct store_pair {
        const char *key, *value;
    } * settings;
    size_t settings_count;
};

/* Bytes are per worker and of the whole epoch. */
struct epoch_row {
    uint32_t epoch;
    double train_loss, valid_loss, lr;
    bool ranked; /* of images: these are told, and perplexity is not */
    double train_top1, train_top5, top1, top5;
    uint64_t steps, samples, scored;
    double density, density_union;
    double bytes_dense, bytes_up, bytes_down;
    double bytes_paper, bytes_framework, bytes_bound;
    double bytes_up_step; /* of the epoch's last step: what it is once a warm-up is over */
    double grad_norm, residual_norm, compression_error;
    double seconds, samples_per_second;
    double seconds_forward, seconds_backward, seconds_compensate, seconds_encode, seconds_exchange,
        seconds_apply;

    const struct step_row *step; /* [steps_kept] those of --log-every */
    size_t steps_kept;
    const struct tensor_row *tensor; /* [tensors_kept] those of --tensors */
    size_t tensors_kept;
};

/* A step that is kept; bytes and norm as in the epoch's row, of this step alone. */
struct step_row {
    uint64_t step, samples; /* step: in the run */
    double loss, lr, density;
    double bytes_up, bytes_down, grad_norm;
};

/* A tensor's part of its epoch's row. */
struct tensor_row {
    const char *tensor;
    uint64_t elements;
    double entries, density, density_union;
    double bytes_up, bytes_down, bytes_paper, bytes_framework, bytes_bound;
    double residual_norm, compression_error;
};

struct test_row {
    const char *which; /* best or last */
    const char *selected_on;
    uint32_t epoch;
    double loss;
    bool ranked; /* as in struct epoch_row */
    double top1, top5;
    uint64_t scored;
};

/* What there was under a key. */
enum store_claim {
    STORE_NEW,       /* nothing, or a run that did not end: its rows are gone, begin */
    STORE_DONE,      /* a finished run; without an experiment it joins the row's */
    STORE_ELSEWHERE, /* a process that lives is at it */
};

/* Makes the file if it is absent.  Faults: not a database, another program's, a newer version's,
 * no permission, a full disk; each one sentence.  A store must not go through fork(). */
bool store_open(struct store **store, const char *path, struct error *err);
void store_close(struct store *store);

/* How SQLite is to be told a path: ":memory:" and "file:x" are names like others.  A new string. */
char *store_address(const char *path);

/* One sentence that the user should see once, or NULL: the file system is a network's, and a
 * rollback journal is used.  Lives as long as the store. */
const char *store_notice(const struct store *store);

/* Takes the key for this process, in one transaction, and gives the run's id: a new one, or if the
 * run is done or elsewhere, that one's.  again: a finished run is begun anew too.  A run of the same
 * name and another key is a fault that names the settings that differ. */
bool store_claim(struct store *store, const struct run_row *row, bool again,
                 enum store_claim *claim, int64_t *run, struct error *err);

/* With its steps and tensors, all or nothing. */
bool store_epoch(struct store *store, int64_t run, const struct epoch_row *row, struct error *err);

/* Whether all is there that --log-every keeps of the run's epochs. */
bool store_has_steps(struct store *store, int64_t run, uint32_t every, bool *has,
                     struct error *err);

/* Whether --tensors kept those of all of the run's epochs. */
bool store_has_tensors(struct store *store, int64_t run, bool *has, struct error *err);

/* Tests and the status at the end: done, diverged, stopped or failed. */
bool store_finish(struct store *store, int64_t run, const char *status,
                  const struct test_row *tests, size_t count, struct error *err);

/* "I am alive", at most every few seconds however often it is called; a locked database is passed
 * over.  A fault if the run was begun anew by another process, as store_epoch's and store_finish's
 * is. */
bool store_heartbeat(struct store *store, int64_t run, struct error *err);

/* The last line of `train`: key, status and final metrics, as text or JSON; a new string. */
bool store_summary(struct store *store, int64_t run, bool json, char **text, struct error *err);

#endif
