/*
 * source.h -- what a run reads: a text or images, whole on the device, a step at a time.
 *
 * What a data set is like is told by its kind, a table of functions; nobody else asks whether it is
 * a text.  Fill set, how, and by load() the rest; then plan(), then open() what is to be read.
 */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H

#include "data/dataset.h"
#include "data/images.h"
#include "data/stream.h"
#include "data/text.h"

/* Of a text, along its columns side by side or by segments one after another; of images, global. */
enum sharding { SHARD_COLUMNS, SHARD_SEGMENTS };

/* What a regime says of reading. */
struct reading {
    uint32_t workers, batch, bptt; /* batch: of each worker; bptt: 1 of images */
    uint32_t micro;                /* a worker's samples are a multiple of it */
    enum sharding sharding;
    uint32_t evaluate_batch, evaluate_bptt;
    uint64_t seed;
    uint32_t min_count;     /* of a word */
    uint32_t holdout;       /* training images that become the validation part */
    struct augment augment; /* of training images */
    const double *settings; /* the set's own */
};

struct source {
    const struct dataset *set;
    struct reading how;
    uint64_t steps; /* of an epoch, by plan() */

    struct text text;
    struct stream columns;          /* of training */
    struct stream part[TEXT_PARTS]; /* those that are evaluated */

    struct images images;
    struct image_store stored;
};

/* What a worker does in a step, or an evaluation at a time. */
struct share {
    uint32_t samples, steps; /* steps 0: nothing, and samples too */
};

/* Where a batch goes: what there is of a graph's input. */
struct feed {
    uint32_t *token, *target;
    float *pixels;
};

/* What is known of the data once they are loaded. */
struct contents {
    uint32_t classes; /* or words */
    size_t count[TEXT_PARTS];
    bool
        validates; /* there is a validation part; else the test part is looked at, never chosen by */
    const char *sha256;
};

struct source_kind {
    bool images;
    const char *classes, *samples; /* what they are called: words, tokens */

    bool (*load)(struct source *s, const char *folder, struct error *err);
    void (*unload)(struct source *s);
    /* Instead of load(): random data for so many steps, to measure with; of a text so many words.
     * Not filled: their sizes alone. */
    void (*imitate)(struct source *s, uint32_t words, uint64_t steps, bool filled);
    struct contents (*contents)(const struct source *s);

    /* Fills s->steps; too few samples are a fault.  And the same of one part that is evaluated. */
    bool (*plan)(struct source *s, struct error *err);
    bool (*plan_part)(const struct source *s, enum text_part part, struct error *err);
    size_t (*bytes)(const struct source *s, enum text_part part); /* on the device */

    void (*open_training)(struct source *s, struct device *dev);
    void (*open_part)(struct source *s, struct device *dev, enum text_part part);
    void (*close)(struct source *s, struct device *dev);

    /* Training: before an epoch; of a step what it begins at (for struct step), and what a worker
     * does; and a group's batch, for workers whose shares are the same. */
    void (*begin_epoch)(struct source *s, struct device *dev, uint32_t epoch);
    uint64_t (*position)(const struct source *s, uint64_t step);
    struct share (*share)(const struct source *s, uint64_t step, uint32_t worker);
    void (*batch)(const struct source *s, struct device *dev, const struct step *step,
                  uint32_t first, uint32_t workers, struct share share, struct feed feed);

    /* Evaluation: batches of a part, what each has, and how many losses all of them have. */
    uint64_t (*batches)(const struct source *s, enum text_part part);
    struct share (*evaluate)(const struct source *s, struct device *dev, enum text_part part,
                             uint64_t i, struct feed feed);
    uint64_t (*scored)(const struct source *s, enum text_part part);
};

#endif
