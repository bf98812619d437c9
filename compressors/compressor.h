/*
 * compressor.h -- what a worker sends in place of its gradient.
 *
 * A method is a compressor, which chooses entries (all of them, the largest, ...), and a quantiser,
 * which makes codes of their values; either may stand alone.  "topk:ratio=0.01+terngrad" is both.
 * Every function is called once for all workers of the call and all their tensors; it only
 * launches kernels, and never learns a value that lies on the device.  A method knows no
 * encoding: wire.c counts, packs and serialises its messages in the encoding asked for.
 *
 * decode() sees the messages and the common state, never what was wanted or a worker's own state.
 * The update is the mean over workers of what decode() adds: nothing here divides by K.
 *
 * To add a method: a file with a struct compressor or quantiser at its end, its line in the table of
 * compressor.c and in meson.build (kernel_sources if it has kernels of its own); it is then listed,
 * documented by its settings, and tested by the laws (tests/test_compressors.c).  quantise.h has the
 * parts of a quantiser, codes.h the kinds of codes.
 */
#ifndef COMPRESSORS_COMPRESSOR_H
#define COMPRESSORS_COMPRESSOR_H

#include "compressors/codes.h"
#include "sim/base.h"
#include "sim/kernel.h"

struct device;
struct layout;
struct message;
struct step;

/* How messages get to everybody:
 *
 *     GATHER     as they are
 *     SUM        added up on the way, so that what comes back is as large as one
 *     VOTE       signs; what comes back is the sign that most have sent, and is the update itself
 *     TREE       two and two are merged to one as large, till one is left, which everybody gets
 *     BROADCAST  one worker's alone
 *
 * exchange.h counts accordingly. */
enum exchange { GATHER, SUM, VOTE, TREE, BROADCAST };

#define COMPRESSOR_SLABS 2

/* One call for a group of workers.  A slab is [workers][stride] floats, of which the layout's
 * length is the compressed tensors'. */
struct call {
    struct device *dev;
    const struct layout *layout;  /* the compressed tensors */
    uint32_t first, workers, all; /* workers first ... first + workers - 1 of all */
    const double *settings;       /* in the order of compressor.settings */
    double ratio_most;            /* the largest share of entries that any step keeps */
    bool kept;                    /* a memory keeps what is not sent */
    const struct step *step;      /* on the device */
    const uint32_t *keep;         /* [tensors] on the device: entries to keep in this step */

    /* In encode(); NULL in decode(). */
    const float *wanted;          /* [workers][stride] what they would like to send */
    const float *grad;            /* [workers][stride] the gradients, which count as ... */
    const float *scale;           /* [workers] ... so many times themselves, ... */
    const float *params;          /* [stride] ... with weight decay of these; NULL: without */
    const float *square;          /* [workers][stride] with compressor.micro(): see there */
    float *own[COMPRESSOR_SLABS]; /* [workers][stride] the method's state of each worker */

    float *common;               /* [compressor.common()] state that is the same everywhere */
    const struct rounds *rounds; /* what came of earlier rounds, and of the last; NULL: one round */
};

enum target_how { ADD, SUBTRACT, CLEAR };

/* Where decode() puts what a message says: the one sum (one_sum), or a slab of each sender's own.
 * Tensors sent whole can be left out: spare_whole. */
struct target {
    enum target_how how;
    float *to;
    size_t stride;
    bool one_sum;
    bool spare_whole;
};

KERNEL_FN float target_apply(enum target_how how, float old, float value)
{
    return how == ADD ? old + value : how == SUBTRACT ? old - value : 0;
}

/* Bits as a paper counts them: of an entry besides its value, of that, and of a tensor besides. */
struct paper_bits {
    double index, value, tensor;
};

struct compressor {
    const char *name; /* in regimes */
    const char *about;
    const char *paper; /* whom to cite */
    const struct setting *settings;
    const char *memory; /* what "auto" means */
    bool unbiased;      /* without memory E[decode(encode(g))] = g: tested, not believed */
    bool no_warmup;     /* a regime's warm-up of the ratio is not applied */
    bool contraction;   /* |g - decode(encode(g))| <= |g|, less where g is not 0, at every draw */
    enum exchange exchange;
    bool no_quantiser; /* its values must stay floats */
    bool together;     /* wants the gradients of all workers at once: one group */
    bool counted;      /* how many entries there are is for the data to say, and is sent, ... */
    bool (*counts)(const double *settings); /* ... or where settings say so; optional */
    bool agreed;                            /* all workers know the indices, which are not sent */
    const char *own[COMPRESSOR_SLABS + 1];  /* names of its state of each worker, zero at first */

    /* The message: indices of entries and their values, room() the most of a tensor; or, without
     * indices, room() values; or, without room(), every entry's value. */
    size_t (*room)(const struct call *call, uint32_t tensor);
    bool no_indices;

    /* Optional: so many micro-batches of each worker's batch are told apart, which it is a multiple
     * of.  They ride as workers of their own; call->square is the sum of their (gradient / M)^2. */
    uint32_t (*micro)(const double *settings);

    /* Optional: a round before the last one, whose message has indices or values, so many of each
     * tensor.  What the exchange makes of it is in call->rounds when the last one is encoded. */
    struct first_round {
        enum exchange exchange;
        bool indices; /* alone; else values */
        size_t (*room)(const struct call *call, uint32_t tensor);
        void (*encode)(const struct call *call, struct message *out);
    } first;

    /* Of a TREE, optional: whether a value is lost that was dropped on the way while its index got to
     * the end by another one. */
    bool (*loses)(const double *settings);

    /* Optional: floats of state for all, which lie as the last message of one sender does; and their
     * first values. */
    size_t (*common)(const struct call *call);
    void (*start)(const struct call *call, uint64_t seed);

    /* Bytes of device_scratch() that encode() takes besides some words a tile; optional. */
    size_t (*scratch)(const struct call *call);

    void (*encode)(const struct call *call, struct message *out);
    void (*receive)(const struct call *call, const struct message *in); /* optional: of common */
    void (*decode)(const struct call *call, const struct message *in, struct target target);

    /* As the method's paper counts one tensor of n entries at a ratio below 1: the entries that are
     * sent (NULL: those that were; of messages without indices the values in their rooms), and bits of
     * an entry besides its value, which has 32; or, where that is not all, what the last function
     * says.  Worked examples are in tests/test_wire.c. */
    double (*paper_entries)(size_t n, double ratio);
    double paper_index_bits;
    struct paper_bits (*paper_bits)(const double *settings);
};

/* What is made of each value that a compressor chose.  encode() gets the message with the values
 * as floats (message_floats) and fills its codes and scalars; settings are the quantiser's. */
struct quantiser {
    const char *name;
    const char *about;
    const char *paper;
    const struct setting *settings;
    const char *memory;
    bool unbiased, contraction; /* as a compressor's, of the values it gets */
    bool summable;              /* codes can be added up on the way, as floats can */
    bool votes;                 /* signs that are counted: see VOTE; stands alone, no residual */
    bool (*shares)(const double *settings); /* one scalar for all workers, the largest: then codes
                                               can be added up; optional */

    struct code_form (*form)(const double *settings); /* codes.h */
    void (*encode)(const struct call *call, struct message *m);
    double (*paper_bits)(const double *settings); /* of a value */
};

/* NULL-terminated, in alphabetical order. */
extern const struct compressor *const compressors[];
extern const struct quantiser *const quantisers[];

const struct compressor *compressor_find(const char *name);
const struct quantiser *quantiser_find(const char *name); /* also NULL for "" */

/* Other names: what "efsigntopk" or "efsigntopk:ratio=0.1" stands for, a new string; NULL if it is
 * none.  Settings are the compressor's. */
char *compressor_alias(const char *spec);

#endif
