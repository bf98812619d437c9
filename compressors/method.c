#include "compressors/method.h"

#include "sim/wire.h"

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

enum exchange method_exchange(const struct method *m)
{
    return m->quantiser != NULL && !m->quantiser->summable ? GATHER : m->compressor->exchange;
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

double method_paper_entry_bits(const struct method *m, bool indexed)
{
    double bits = m->quantiser != NULL ? m->quantiser->paper_bits(m->quantiser_settings) : 32;

    return indexed ? m->compressor->paper_index_bits + bits : bits;
}

double method_paper_bytes(const struct method *m, size_t n, double ratio)
{
    double entries = ratio < 1 ? m->compressor->paper_entries(n, ratio) : (double)n;

    return entries * method_paper_entry_bits(m, ratio < 1) / 8;
}

void method_encode(const struct method *m, const struct call *call, struct message *out)
{
    struct call own = *call;

    own.settings = m->settings;
    out->values.form = (struct code_form){.kind = CODE_FLOAT, .bits = 32};
    m->compressor->encode(&own, out);
    if (m->quantiser == NULL)
        return;
    own.settings = m->quantiser_settings;
    own.wanted = NULL;
    m->quantiser->encode(&own, out);
    out->values.form = m->quantiser->form(m->quantiser_settings);
}

void method_decode(const struct method *m, const struct call *call, const struct message *in,
                   struct target target)
{
    struct call own = *call;

    own.settings = m->settings;
    own.wanted = own.grad = own.scale = own.params = NULL;
    memset(own.own, 0, sizeof(own.own));
    m->compressor->decode(&own, in, target);
}
