/*
 * compressor.h -- what a worker sends in place of its gradient.
 *
 * A method is one round so far: an exchange, the parts of its message, encode and decode.  Every
 * function is called once for all workers of the call and all their tensors; it
 * only launches kernels, and never learns a value that lies on the device.  A method knows no
 * encoding: wire.c counts, packs and serialises the parts in the encoding asked for.
 *
 * decode() sees the messages and the common state, never what was wanted or a worker's own state.
 * The update is the mean over workers of what decode() adds: nothing here divides by K.
 *
 * To add a method: a file with a struct compressor at its end, its line in the table of
 * compressor.c and in meson.build (kernel_sources if it has kernels of its own); it is then listed, documented by its settings, and tested by the laws (tests/test_compressors.c).
 */
#ifndef COMPRESSORS_COMPRESSOR_H
#define COMPRESSORS_COMPRESSOR_H

#include "sim/base.h"
#include "sim/kernel.h"

struct device;
struct layout;
struct message;
struct step;

/* Messages of a GATHER go to everybody as they are; those of a SUM could be added up on the way, so
 * what comes back is as large as one.  exchange.h counts accordingly. */
enum exchange { GATHER, SUM };

enum part_kind { NO_PART, INDICES, VALUES };

/* One call for a group of workers.  A slab is [workers][stride] floats, of which the layout's
 * length is the compressed tensors'. */
struct call {
    struct device *dev;
    const struct layout *layout;  /* the compressed tensors */
    uint32_t first, workers, all; /* workers first ... first + workers - 1 of all */
    const double *settings;       /* in the order of compressor.settings */
    double ratio_most;            /* the largest share of entries that any step keeps */
    const struct step *step;      /* on the device */
    const uint32_t *keep;         /* [tensors] on the device: entries to keep in this step */
    const float *wanted;          /* [workers][stride] in encode(); NULL elsewhere */
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

struct part_spec {
    enum part_kind kind;
    size_t (*room)(const struct call *call, uint32_t tensor); /* the most entries of a tensor */
    bool whole; /* every entry of the tensor: the part is the wanted slab itself, not a copy */
};

struct compressor {
    const char *name; /* in regimes */
    const char *about;
    const char *paper; /* whom to cite */
    const struct setting *settings;
    const char *memory; /* what "auto" means */
    bool unbiased;      /* E[decode(encode(g))] = g: tested, not believed */
    bool no_warmup;     /* a regime's warm-up of the ratio is not applied */
    bool contraction;   /* |g - decode(encode(g))| <= |g|, less where g is not 0: tested too */
    enum exchange exchange;
    struct part_spec part[2];

    void (*encode)(const struct call *call, struct message *out);
    void (*decode)(const struct call *call, const struct message *in, struct target target);

    /* Bytes as the method's paper counts one tensor's message of k entries of n at a ratio below
     * 1; the worked examples are in tests/test_wire.c. */
    double (*paper_bytes)(size_t n, double ratio);
};

/* NULL-terminated, in alphabetical order. */
extern const struct compressor *const compressors[];

const struct compressor *compressor_find(const char *name);

#endif
