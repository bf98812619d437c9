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

/* Slabs of state that it keeps for each worker. */
uint32_t method_slabs(const struct method *m);

/* Both parts of it together. */
enum exchange method_exchange(const struct method *m);
struct code_form method_form(const struct method *m);
const char *method_memory(const struct method *m); /* what "auto" means */
bool method_unbiased(const struct method *m);
bool method_contraction(const struct method *m);

/* Bits of an entry as the papers count, without its index where all are sent. */
double method_paper_entry_bits(const struct method *m, bool indexed);

/* Bytes as the papers count one tensor's message. */
double method_paper_bytes(const struct method *m, size_t n, double ratio);

void method_encode(const struct method *m, const struct call *call, struct message *out);
void method_decode(const struct method *m, const struct call *call, const struct message *in,
                   struct target target);

#endif
