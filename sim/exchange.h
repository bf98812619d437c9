/*
 * exchange.h -- how messages get from the workers to everybody: into one sum, in worker order.
 *
 * Bytes up are what a worker sends, bytes down what it receives, per worker:
 *
 *     gather     up its message; down those of the K - 1 others, or a parameter server's reply
 *     sum        up its message; down the sum, as large, but that levels added up want more bits
 *     vote       up its signs; down the majority's
 *     tree       up its message; down the one that is left (each way through log2 K hands)
 *     broadcast  up one worker's, so a K-th of it on average; down all of it
 *
 * Tensors that are not compressed are a dense sum.
 */
#ifndef SIM_EXCHANGE_H
#define SIM_EXCHANGE_H

#include "sim/worker.h"

/* Adds what the lane's messages say, and its workers' dense tensors, to sum [P]. */
void exchange_receive(struct workers *w, struct lane *lane, float *sum);

/* What is to be done with the sum when all messages are in: of votes, who won; a server's reply. */
void exchange_finish(struct workers *w, float *sum);

/* Bytes of the tensors that are not compressed, of one worker and step; of all, uncompressed. */
double exchange_dense_bytes(const struct workers *w);
double exchange_whole_bytes(const struct workers *w);

/* Per worker, of what all workers have sent in so many steps, and of dense tensors. */
double exchange_bytes_up(const struct workers *w, const struct sent *sent, uint64_t steps);
double exchange_bytes_down(const struct workers *w, const struct sent *sent, uint64_t steps);

/* What all workers would send of a compressed tensor in a step at a ratio, from shapes alone.  If not
 * exact, then what is to be expected of entries at random places; where the data say how many there
 * are, the least: none. */
struct sent exchange_expected(const struct workers *w, uint32_t tensor, double ratio);
bool exchange_expected_exact(const struct workers *w, uint32_t tensor, double ratio);

/* Values sent over values, of entries of compressed tensors added up over all workers. */
double exchange_density(const struct workers *w, double entries, uint64_t steps);

#endif
