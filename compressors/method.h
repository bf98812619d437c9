/*
 * method.h -- a compressor and a quantiser with their settings: the whole of what is sent.
 */
#ifndef COMPRESSORS_METHOD_H
#define COMPRESSORS_METHOD_H

#include "compressors/compressor.h"

struct method {
    const struct compressor *compressor;
    const struct quantiser *quantiser; /* NULL: values go as floats */
    const double *settings, *quantiser_settings;
};

/* Micro-batches of a worker that it tells apart; 1: none. */
uint32_t method_micro(const struct method *m);

/* Slabs of state that it keeps for each worker. */
uint32_t method_slabs(const struct method *m);

/* Whether it wants all workers in one group. */
bool method_together(const struct method *m);

/* Whether the data say how many entries there are. */
bool method_counted(const struct method *m);

/* Values that it sends of a tensor at call->ratio_most, in all rounds; where the data say how many,
 * the most.  Of call the layout is enough besides. */
size_t method_entries(const struct method *m, const struct call *call, uint32_t tensor);

/* Both parts of it together. */
enum exchange method_exchange(const struct method *m);
struct code_form method_form(const struct method *m);
const char *method_memory(const struct method *m); /* what "auto" means */
bool method_unbiased(const struct method *m);
bool method_contraction(const struct method *m);

/* Bytes as the papers count one tensor's messages; of call the layout is enough.  Where only what
 * was sent tells that, it is the last function's: so many entries in so many tensors' messages. */
double method_paper_bytes(const struct method *m, const struct call *call, uint32_t tensor,
                          double ratio);
bool method_paper_sent(const struct method *m);
double method_paper_bytes_sent(const struct method *m, double entries, double tensors);

/* Every round, with the exchanges of all but a last GATHER or SUM, which the receivers do. */
void method_encode(const struct method *m, const struct call *call, struct message *out,
                   struct rounds *rounds);

void method_decode(const struct method *m, const struct call *call, const struct message *in,
                   struct target target);

#endif
