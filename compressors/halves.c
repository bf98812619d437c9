/*
 * halves -- fp16 and bf16: every value rounded to 16 bits.
 *
 * Micikevicius et al.: Mixed precision training, ICLR 2018; Kalamkar et al.: A study of BFLOAT16
 * for deep learning training, 2019.  To nearest, ties to even.  Values are decoded before they are
 * added up, so that a sum does not overflow; a value past 65504 is infinity in fp16.
 *
 *     message:  16 bits a value
 */
#include "compressors/quantise.h"

struct halves_code {
    struct entries e;
};

TILE_KERNEL(halves_code)
{
    uint32_t code[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        code[s] = a->e.form.kind == CODE_HALF ? float_half(x[s]) : float_bfloat(x[s]);
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

static struct code_form fp16_form(const double *settings)
{
    return (struct code_form){.kind = CODE_HALF, .bits = 16};
}

static struct code_form bf16_form(const double *settings)
{
    return (struct code_form){.kind = CODE_BFLOAT, .bits = 16};
}

static void encode(const struct call *call, struct message *m, struct code_form form)
{
    LAUNCH_TILES(call->dev, halves_code, &m->rooms.tiles, m->senders, .e = entries_of(m, form));
}

static void fp16_encode(const struct call *call, struct message *m)
{
    encode(call, m, fp16_form(call->settings));
}

static void bf16_encode(const struct call *call, struct message *m)
{
    encode(call, m, bf16_form(call->settings));
}

static double halves_paper_bits(const double *settings)
{
    return 16;
}

static const struct setting no_settings[] = {{0}};

const struct quantiser fp16_quantiser = {
    .name = "fp16",
    .about = "values in IEEE half precision",
    .paper = "Micikevicius et al.: Mixed precision training, ICLR 2018",
    .settings = no_settings,
    .memory = "none",
    .summable = true,
    .form = fp16_form,
    .encode = fp16_encode,
    .paper_bits = halves_paper_bits,
};

const struct quantiser bf16_quantiser = {
    .name = "bf16",
    .about = "values as the upper half of a float",
    .paper = "Kalamkar et al.: A study of BFLOAT16 for deep learning training, 2019",
    .settings = no_settings,
    .memory = "none",
    .summable = true,
    .form = bf16_form,
    .encode = bf16_encode,
    .paper_bits = halves_paper_bits,
};

#endif
