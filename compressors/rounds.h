/*
 * rounds.h -- messages on their way: what the exchange makes of them, where that is not for the
 * receivers to do.
 *
 * Where messages are added up on the way the order is that of the workers; a tree merges neighbours,
 * then neighbours of those.  All workers are in one group (compressor.together).
 */
#ifndef COMPRESSORS_ROUNDS_H
#define COMPRESSORS_ROUNDS_H

#include "compressors/method.h"
#include "sim/wire.h"

/* Besides the message of the last round. */
struct rounds {
    struct message first;    /* [senders] of the first round; a broadcast has one */
    struct message received; /* of a SUM: what everybody has of it, one sender's */

    /* Of a TREE in the last round. */
    struct message merged[2];  /* [pairs] lists of a level, in turns */
    const struct message *end; /* the one that is left */
    float *delivered;          /* [senders] values of their own entries that got there, else 0 */
    float *field;              /* [pairs][layout.length] zero but while lists are merged */
};

/* All zero where the method has one round and no tree. */
void rounds_create(struct rounds *r, const struct method *method, const struct call *call,
                   uint32_t workers);
void rounds_destroy(struct rounds *r, const struct method *method, const struct call *call,
                    uint32_t workers);
size_t rounds_bytes_needed(const struct method *method, const struct call *call, uint32_t workers);

/* to [rooms.length] := the senders' floats added up, in their order. */
void rounds_add_up(const struct call *call, const struct message *m, float *to);

/* The first round: encodes and exchanges. */
void rounds_first(struct rounds *r, const struct method *method, const struct call *call);

/* The last round's exchange, of the message as sent. */
void rounds_last(struct rounds *r, const struct method *method, const struct call *call,
                 const struct message *sent);

#endif
