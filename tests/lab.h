/*
 * lab.h -- a compressor and a memory at work on made-up gradients: steps without a model.
 */
#ifndef TESTS_LAB_H
#define TESTS_LAB_H

#include "tests/harness.h"

#include "compressors/memory.h"
#include "compressors/rounds.h"
#include "sim/layout.h"
#include "sim/wire.h"

#define LAB_TENSORS 64

/* So many floats stand behind the compressed tensors of every slab, as the dense tensors do; each
 * is LAB_BEHIND, and no method may touch them. */
#define LAB_TAIL   512
#define LAB_BEHIND 7

struct lab_spec {
    const char *device;
    const struct compressor *compressor;
    const struct memory *memory;
    const size_t *n; /* [tensors] */
    uint32_t tensors, workers;
    double ratio;                                /* the largest, and that which holds at first */
    const struct quantiser *quantiser;           /* or NULL */
    const double *settings, *quantiser_settings; /* NULL: as they begin */
    const size_t *rows;                          /* [tensors] of matrices; NULL: vectors */
};

struct lab {
    struct lab_spec spec;
    struct method method;
    struct device dev;
    struct layout layout;
    size_t stride;

    /* On the host; lab_begin() posts them. */
    struct step step;
    uint32_t keep[LAB_TENSORS];
    double setting[SETTINGS_MOST], quantiser_setting[SETTINGS_MOST], memory_setting[SETTINGS_MOST];
    bool scales, decays; /* shares count with memory none; weight decay is local */

    /* On the device. */
    struct step *step_dev;
    uint32_t *keep_dev;
    float *share;         /* [workers], 1 at first */
    float *grad, *scaled; /* [workers][stride] */
    float *slab[MEMORY_SLABS], *own[COMPRESSOR_SLABS];
    float *sum, *params;     /* [stride] */
    struct traffic *traffic; /* [tensors] */
    uint64_t *each;          /* [workers] bytes of the last message */

    struct message message;
    struct rounds rounds;
    float *common; /* the compressor's state for all */
    size_t common_bytes;
    struct memory_call call; /* of the group that is at it */
    const float *wanted;     /* what it encoded */
};

/* A lab stays where it was opened. */
void lab_open(struct lab *lab, const struct lab_spec *spec);
void lab_close(struct lab *lab);

void lab_set_ratio(struct lab *lab, double ratio);
void lab_set_memory(struct lab *lab, const char *setting, double value);

/* A step: the gradients x [workers][elements], a sum of zero; then a group after the other. */
void lab_begin(struct lab *lab, const float *x);
void lab_enter(struct lab *lab, uint32_t first, uint32_t workers);
void lab_compensate(struct lab *lab);
void lab_encode(struct lab *lab);
void lab_decode(struct lab *lab, struct target target);
void lab_receive(struct lab *lab); /* into the sum */
void lab_update(struct lab *lab);

/* All of that with all workers in one group. */
void lab_step(struct lab *lab, const float *x);

/* Adds the bytes of the message to traffic and each, after clearing both. */
void lab_weigh(struct lab *lab, enum encoding encoding, struct traffic *total, uint64_t *each);

/* A new slab of zeros with its tails, and a slab's contents, to be freed. */
float *lab_slab(struct lab *lab, uint32_t rows);
float *lab_download(struct lab *lab, const float *from, uint32_t rows);
void lab_upload(struct lab *lab, float *to, const float *x, uint32_t rows); /* x [rows][elements] */
void lab_drop(struct lab *lab, float *slab, uint32_t rows);

/* The place of an element in a slab. */
size_t lab_place(const struct lab *lab, uint32_t worker, uint32_t tensor, size_t element);

/* Fails unless padding is zero and what is behind the tensors untouched. */
void lab_require_padding(struct lab *lab, const char *what, const float *slab, uint32_t rows);

#endif
