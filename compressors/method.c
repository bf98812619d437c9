#include "compressors/method.h"

#include "compressors/rounds.h"
#include "sim/layout.h"

#include <string.h>

/* A quantiser alone: all entries. */
static bool sends_all(const struct method *m)
{
    return m->compressor->room == NULL;
}

uint32_t method_slabs(const struct method *m)
{
    uint32_t count = 0;

    while (m->compressor->own[count] != NULL)
        count++;
    return count;
}

uint32_t method_micro(const struct method *m)
{
    return m->compressor->micro != NULL ? m->compressor->micro(m->settings) : 1;
}

bool method_together(const struct method *m)
{
    const struct quantiser *q = m->quantiser;

    return m->compressor->together ||
           (q != NULL && q->shares != NULL && q->shares(m->quantiser_settings));
}

bool method_counted(const struct method *m)
{
    return m->compressor->counted ||
           (m->compressor->counts != NULL && m->compressor->counts(m->settings));
}

enum exchange method_exchange(const struct method *m)
{
    const struct quantiser *q = m->quantiser;

    if (q == NULL)
        return m->compressor->exchange;
    if (q->votes)
        return VOTE;
    if (q->summable || (q->shares != NULL && q->shares(m->quantiser_settings)))
        return m->compressor->exchange;
    return GATHER;
}

struct code_form method_form(const struct method *m)
{
    return m->quantiser != NULL ? m->quantiser->form(m->quantiser_settings)
                                : (struct code_form){.kind = CODE_FLOAT, .bits = 32};
}

const char *method_memory(const struct method *m)
{
    return m->quantiser != NULL && sends_all(m) ? m->quantiser->memory : m->compressor->memory;
}

bool method_unbiased(const struct method *m)
{
    return m->compressor->unbiased && (m->quantiser == NULL || m->quantiser->unbiased);
}

bool method_contraction(const struct method *m)
{
    return m->compressor->contraction && (m->quantiser == NULL || m->quantiser->contraction);
}

size_t method_entries(const struct method *m, const struct call *call, uint32_t tensor)
{
    const struct compressor *c = m->compressor;
    struct call own = *call;
    size_t entries;

    own.settings = m->settings;
    entries = c->room != NULL ? c->room(&own, tensor) : call->layout->n[tensor];
    if (c->no_indices && c->first.room != NULL)
        entries += c->first.room(&own, tensor);
    return entries;
}

static struct paper_bits paper_bits(const struct method *m)
{
    struct paper_bits bits = {.index = m->compressor->paper_index_bits, .value = 32};

    if (m->compressor->paper_bits != NULL)
        bits = m->compressor->paper_bits(m->settings);
    if (m->quantiser != NULL) {
        bits.value = m->quantiser->paper_bits(m->quantiser_settings);
        bits.tensor = 0;
    }
    return bits;
}

double method_paper_bytes(const struct method *m, const struct call *call, uint32_t tensor,
                          double ratio)
{
    size_t n = call->layout->n[tensor];
    struct paper_bits bits = paper_bits(m);
    double entries = ratio < 1 ? m->compressor->paper_entries(n, ratio) : (double)n;

    if (m->compressor->no_indices)
        entries = (double)method_entries(m, call, tensor);
    return entries * (ratio < 1 ? bits.index + bits.value : bits.value) / 8;
}

bool method_paper_sent(const struct method *m)
{
    return m->compressor->paper_entries == NULL;
}

double method_paper_bytes_sent(const struct method *m, double entries, double tensors)
{
    struct paper_bits bits = paper_bits(m);

    return (entries * (bits.index + bits.value) + tensors * bits.tensor) / 8;
}

void method_encode(const struct method *m, const struct call *call, struct message *out,
                   struct rounds *rounds)
{
    struct call own = *call;

    own.settings = m->settings;
    own.rounds = rounds;
    rounds_first(rounds, m, &own);
    out->values.form = (struct code_form){.kind = CODE_FLOAT, .bits = 32};
    m->compressor->encode(&own, out);
    if (m->quantiser != NULL) {
        own.settings = m->quantiser_settings;
        own.wanted = NULL;
        m->quantiser->encode(&own, out);
        out->values.form = m->quantiser->form(m->quantiser_settings);
    }
    rounds_last(rounds, m, &own, out);
}

/* A tree has merged what goes to the one sum; of their own entries workers see what got there. */
void method_decode(const struct method *m, const struct call *call, const struct message *in,
                   struct target target)
{
    const struct rounds *rounds = call->rounds;
    struct message delivered = *in;
    struct call own = *call;

    own.settings = m->settings;
    own.wanted = own.grad = own.scale = own.params = own.square = NULL;
    memset(own.own, 0, sizeof(own.own));
    if (m->compressor->exchange == TREE) {
        delivered.values.value = rounds->delivered;
        in = target.one_sum ? rounds->end : &delivered;
    }
    m->compressor->decode(&own, in, target);
}
