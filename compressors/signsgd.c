/*
 * signsgd, signum -- every worker sends signs, and what most have sent is the update.
 *
 *     update := sign(sum over workers of sign(g)); sign(0) and an even vote are +
 *
 * Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD: compressed optimisation for non-convex
 * problems, ICML 2018; with majority vote: Bernstein, Zhao, Azizzadenesheli, Anandkumar, ICLR 2019.
 * Signum takes the sign of a mean that fades: memory momentum.  The step is lr, whatever the
 * gradient's size; weight decay is added behind the vote.
 *
 *     message:  1 bit a value, up and down
 *
 * Bytes on paper: 1 bit a value.
 */
#include "compressors/quantise.h"

struct signsgd_code {
    struct entries e;
};

TILE_KERNEL(signsgd_code)
{
    uint32_t code[TILE_SLOTS];
    float x[TILE_SLOTS];

    entries_read(&a->e, t, x);
    EACH_SLOT (s)
        code[s] = x[s] >= 0;
    entries_write(&a->e, t, code);
}

#ifndef __CUDACC__

static struct code_form signsgd_form(const double *settings)
{
    return (struct code_form){.kind = CODE_SIGN, .bits = 1};
}

static void signsgd_encode(const struct call *call, struct message *m)
{
    LAUNCH_TILES(call->dev, signsgd_code, &m->rooms.tiles, m->senders,
                 .e = entries_of(m, signsgd_form(call->settings)));
}

static double signsgd_paper_bits(const double *settings)
{
    return 1;
}

static const struct setting no_settings[] = {{0}};

const struct quantiser signsgd_quantiser = {
    .name = "signsgd",
    .about = "signs; the majority's is the update",
    .paper = "Bernstein, Wang, Azizzadenesheli, Anandkumar: signSGD, ICML 2018",
    .settings = no_settings,
    .memory = "none",
    .votes = true,
    .form = signsgd_form,
    .encode = signsgd_encode,
    .paper_bits = signsgd_paper_bits,
};

const struct quantiser signum_quantiser = {
    .name = "signum",
    .about = "signs of a fading mean; the majority's is the update",
    .paper = "Bernstein, Zhao, Azizzadenesheli, Anandkumar: signSGD with majority vote, ICLR 2019",
    .settings = no_settings,
    .memory = "momentum",
    .votes = true,
    .form = signsgd_form,
    .encode = signsgd_encode,
    .paper_bits = signsgd_paper_bits,
};

#endif
