/*
 * server.h -- a parameter server: what it sends back to every worker.
 *
 * Where messages are gathered, workers would each get those of all others.  A parameter server adds
 * them up, and everybody gets the sum: its elements that are not 0, as floats, in the encoding in
 * use; a tensor goes whole, with a count that says so, where that is less.  What workers do with it
 * is the same, so a server changes nothing but the bytes down.
 */
#ifndef SIM_SERVER_H
#define SIM_SERVER_H

#include "compressors/method.h"
#include "sim/wire.h"

/* Whether there is one: of what is no GATHER, a sum or as much comes back anyway. */
bool server_replies(const struct method *method, enum exchange_over over);

/* The reply's rooms, of a call's layout; and what they take, with the scratch of server_reply(). */
void server_create(struct message *reply, const struct call *call);
void server_destroy(struct message *reply, struct device *dev);
size_t server_bytes_needed(const struct call *call);
size_t server_scratch(const struct call *call);

/* Adds to total [tensors] what the reply of sum, in the call's layout, weighs; the reply is left for
 * message_verify(). */
void server_reply(struct message *reply, const struct call *call, const float *sum,
                  enum encoding encoding, struct traffic *total);

/* Bytes of the reply's tensor of n elements of which so many are not 0, at random places. */
size_t server_tensor_bytes(enum encoding encoding, size_t n, size_t entries);

#endif
