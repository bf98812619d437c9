/*
 * account.h -- what a worker's messages weigh by rules other than the wire's.
 *
 *     paper      as the method's paper counts (method.h)
 *     framework  what a framework hands to its communication library, as GRACE counts: elements of
 *                whole bytes.  32 bits an index; a value or code in the narrowest type that holds
 *                it, so a sign and one of three levels are a byte each; 32 bits a scalar
 *     bound      the least that could do for every message: log2 of how many there could be, given
 *                how many entries they have.  log2 C(n, k) for the places of k of n entries, unless
 *                all workers know them; 32 bits a float, log2 of the number of codes for a code; 32
 *                bits a scalar
 *
 * All three follow from a method and how many entries it sends, so they are added up on the host.
 * A tensor that is not compressed is 4 bytes an element by every rule.  The wire's own bytes depend on
 * what is sent, and are counted on the device: wire.h.
 */
#ifndef SIM_ACCOUNT_H
#define SIM_ACCOUNT_H

#include "compressors/method.h"

struct layout;
struct traffic;
struct workers;

/* Bytes of one worker. */
struct by_rule {
    double paper, framework, bound;
};

/* Values that a method sends of a tensor of a layout at a ratio, in all rounds; where the data say how
 * many, the most. */
size_t account_entries(const struct method *m, const struct layout *l, uint32_t tensor,
                       double ratio);

/* A step's message of that tensor. */
struct by_rule account_tensor(const struct method *m, const struct layout *l, uint32_t tensor,
                              double ratio);

/* The same where the data said how many entries there are, or are on average; paper is what it is
 * without them where the paper's rule does not go by them (0 then). */
struct by_rule account_counted(const struct method *m, size_t n, double entries);

struct by_rule account_sum(struct by_rule a, struct by_rule b);

/* What a worker sends in the steps of an epoch. */
struct account {
    uint64_t steps;
    double ratio;         /* of the last one */
    struct by_rule *step; /* [tensors] in the order of the arena, at that ratio */
    struct by_rule *sum;  /* [tensors] of the steps so far */
};

void account_create(struct account *a, const struct workers *w);
void account_destroy(struct account *a);
void account_step(struct account *a, const struct workers *w, double ratio);

/* [tensors] sums of the epoch, of all workers' traffic in it; they live until the next step, which
 * begins anew.  Where entries are counted every step weighs what its tensors' mean entries do: exact for
 * paper and framework but for roundings, for the bound a little more than the steps one by one. */
const struct by_rule *account_take(struct account *a, const struct workers *w,
                                   const struct traffic *traffic);

#endif
