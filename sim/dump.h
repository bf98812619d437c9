/*
 * dump.h -- the first steps of a run, written down for somebody who computes them again.
 *
 * A step's file has, of worker k (from 0) and the tensor NAME:
 *
 *     params.NAME       before the step
 *     common.NAME       the method's state that is the same everywhere (powersgd's Q), before the step
 *     grad.k.NAME       its gradient: of the mean loss over its own samples
 *     square.k.NAME     where a method tells micro-batches apart (variance), the sum of the squares of
 *                       what each adds to that
 *     samples.k         its samples over the mean: 1 but in a short last step
 *     scale.k           the same times the factor of clipping
 *     wanted.k.NAME     what it wanted to send: scale * grad (+ weight decay), and what it had kept
 *     first.k.NAME      what its message said in a round before the last one, where that has values
 *     sent.k.NAME       what its own message said
 *     delivered.NAME    what everybody got, over K: as a rule the sum of what was sent
 *     STATE.k.NAME      its memory after the step: residual, velocity, momentum, mean; and what the
 *                       compressor keeps for it: accumulated, variance
 *     optimizer.STATE.NAME   what the optimizer keeps, after the step: momentum, ...
 *
 * What was sent has the tensor's shape, zeros and all, and is what the codes of a quantiser say.
 * powersgd has P of its worker as `first` and Q as `sent`, vectors: P [rows][rank], Q [rank][columns],
 * as common has it; tensors that it sends whole are `sent` as they are.  A tree or a vote makes of
 * what was sent something else than the sum; what a tree lost on the way is in `sent`, and stays in
 * the memory.  clt-k's leader is worker (step modulo K).
 *
 * Tensors stand in the order in which random draws number them, compressed ones first.  Metadata are
 * the regime and what holds in the step.  Beside the file stands, of every worker, its message: the
 * very bytes of the last round, in the encoding in use (sim/WIRE.md), of the tensors that are
 * compressed.  tests/golden/check_dump.py reads all of it.
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
struct optimizer;
struct step;
struct workers;

/* NULL unless the run wants it. */
struct dump *dump_create(const struct config *c);
void dump_destroy(struct dump *d);

/* One that keeps all steps until they are written as one file: for `gradpress compress`.  `several`:
 * names begin with "step-N.".  There are no parameters in it; messages go to c->dump, unless that
 * is "". */
struct dump *dump_gather(const struct config *c, bool several);
bool dump_write(struct dump *d, const struct workers *w, const char *path, struct error *err);

/* Makes the folder of messages, if they are wanted. */
bool dump_message_folder(const struct config *c, struct error *err);

/* Makes the folder, if need be, and tries whether a step of a model of so many bytes has room. */
bool dump_folder(const struct config *c, size_t weights_bytes, struct error *err);

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
void dump_end(struct dump *d, const struct workers *w, const struct optimizer *o);

/* False, with the reason, if a file could not be written. */
bool dump_holds(const struct dump *d, struct error *err);

#endif
