/*
 * natural -- every value to one of the two powers of two around it, by chance, right on average.
 *
 *     2^a <= |x| <= 2^(a+1)      p = (|x| - 2^a) / 2^a
 *     Q(x) = sign(x) 2^(a+1) with probability p, else sign(x) 2^a;  Q(0) = 0
 *
 * Horvath, Ho, Horvath, Sahu, Canini, Richtarik: Natural compression for distributed deep learning,
 * 2019.  The variance is x^2 / 8 at most.  Of a float p is the mantissa, and a the exponent: nothing is
 * computed.
 *
 *     message:  9 bits a value: the sign and 8 bits of exponent
 *
 * Floats end where the paper's numbers do not: below 2^-126 a value becomes 0 or 2^-126, right on
 * average still; above 2^127 it becomes 2^127, and what is not finite infinity.
 *
 * original=1 is GRACE's for TensorFlow, with 8 bits: the exponent, once rounded, is held to
 * -109 ... 18, and -109 is 0; so what is not finite becomes 2^18.
 *
 * Bytes on paper: 9 bits a value, or 8.
 */
#include "compressors/quantise.h"
#include "sim/rng.h"
#include "sim/step.h"

struct natural_code {
    struct entries e;
    const struct step *step;
    uint32_t first_worker;
    uint32_t finite; /* the largest code of a finite value */
};

/* The code of a value without its sign; of 24 bits of draw the last does not matter. */
KERNEL_FN uint32_t natural_size(const struct code_form *form, uint32_t finite, float x,
                                uint32_t draw)
{
    uint32_t size = float_size(x);
    uint32_t exponent = (size >> 23) + (draw >> 9 < (size & 0x7fffffu));
    uint32_t zero = 127 - form->bias;
    uint32_t most = size < 0x7f800000u ? finite : form->levels;

    return exponent <= zero ? 0 : exponent - zero < most ? exponent - zero : most;
}

TILE_KERNEL(natural_code)
{
    uint32_t code[TILE_SLOTS];
    uint32_t draw[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    tile_random(t, a->step->seed, RNG_COMPRESSOR, a->first_worker + t->worker,
                (uint32_t)a->step->number, draw);
    EACH_SLOT (s) {
        uint32_t size = natural_size(&a->e.form, a->finite, x[s], draw[s]);
        uint32_t negative = size > 0 && (float_bits(x[s]) & 0x80000000u);

        code[s] = size | negative << (a->e.form.bits - 1);
    }
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

enum { ORIGINAL };

static const struct setting settings[] = {
    [ORIGINAL] = {"original", 0, 0, 1, "8 bits, of 2^-108 to 2^18, as GRACE has it", SWITCH},
    {0},
};

static struct code_form natural_form(const double *values)
{
    if (values[ORIGINAL] != 0)
        return (struct code_form){.kind = CODE_POWER, .bits = 8, .levels = 127, .bias = 109};
    return (struct code_form){.kind = CODE_POWER, .bits = 9, .levels = 255, .bias = 127};
}

static void natural_encode(const struct call *call, struct message *m)
{
    struct code_form form = natural_form(call->settings);

    LAUNCH_TILES(call->dev, natural_code, &m->rooms.tiles, m->senders, .e = entries_of(m, form),
                 .step = call->step, .first_worker = call->first,
                 .finite = form.bits == 8 ? 127 : 254);
}

static double natural_paper_bits(const double *values)
{
    return natural_form(values).bits;
}

const struct quantiser natural_quantiser = {
    .name = "natural",
    .about = "a power of two and a sign, by chance",
    .paper = "Horvath et al.: Natural compression for distributed deep learning, 2019",
    .settings = settings,
    .memory = "none",
    .unbiased = true,
    .form = natural_form,
    .encode = natural_encode,
    .paper_bits = natural_paper_bits,
};

#endif
