/*
 * dump.h -- the first steps of a run, written down for somebody who computes them again.
 *
 * A step's file has, of worker k (from 0) and the tensor NAME:
 *
 *     params.NAME       before the step
 *     grad.k.NAME       its gradient: of the mean loss over its own samples
 *     samples.k         its samples over the mean: 1 but in a short last step
 *     scale.k           the same times the factor of clipping
 *     wanted.k.NAME     what it wanted to send: scale * grad (+ weight decay), and what it had kept
 *     sent.k.NAME       what it sent, zeros and all
 *     delivered.NAME    the sum of what was sent over K
 *     STATE.k.NAME      its memory after the step: residual, velocity, momentum
 *     optimizer.NAME    the optimizer's momentum after the step
 *
 * and as metadata the regime and what holds in the step.  Beside it stands, of every worker, its
 * message: the very bytes, in the encoding in use (sim/WIRE.md), of the tensors that are compressed.
 * tests/golden/check_dump.py reads both.
 *
 * Every function does nothing if d is NULL, or in a step that is not to be written; in one that is,
 * it waits for the device.
 */
#ifndef SIM_DUMP_H
#define SIM_DUMP_H

#include "sim/base.h"

struct config;
struct dump;
struct lane;
struct step;
struct workers;

/* NULL unless the run wants it. */
struct dump *dump_create(const struct config *c);
void dump_destroy(struct dump *d);

/* Makes the folder, if need be, and tries to write there. */
bool dump_folder(const struct config *c, struct error *err);

/* The file of a step and of a message, new strings. */
char *dump_path(const struct config *c, uint64_t step);
char *dump_message_path(const struct config *c, uint64_t step, uint32_t worker);

/* Whether the step that began is to be written, so that it must run launch by launch. */
bool dump_active(const struct dump *d);

/* In the order in which it happens; those of a lane for each group of workers. */
void dump_begin(struct dump *d, const struct workers *w, const struct step *step, uint32_t epoch);
void dump_wanted(struct dump *d, const struct workers *w, const struct lane *lane);
void dump_sent(struct dump *d, const struct workers *w, const struct lane *lane);
void dump_kept(struct dump *d, const struct workers *w, const struct lane *lane);
void dump_delivered(struct dump *d, const struct workers *w, const float *sum);
void dump_end(struct dump *d, const struct workers *w, const float *momentum);

/* False, with the reason, if a file could not be written. */
bool dump_holds(const struct dump *d, struct error *err);

#endif
