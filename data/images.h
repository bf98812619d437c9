/*
 * images.h -- images and their classes, as bytes: on the host as they were read, and on the device.
 *
 * A pixel's channels lie together, lines one after another.  A batch is gathered, augmented and
 * normalised by kernels: channel c of the result is (byte / 255 - mean[c]) / deviation[c], mean and
 * deviation those of all pixels of the training files.
 */
#ifndef DATA_IMAGES_H
#define DATA_IMAGES_H

#include "data/text.h"
#include "sim/base.h"

struct device;
struct step;

/* Of an image; all 0 of a text. */
struct image_size {
    uint32_t height, width, channels;
};

#define CHANNELS_MOST 4

struct images {
    uint32_t classes;
    struct image_size size;
    struct image_part {
        size_t count;
        uint8_t *pixel;  /* [count][height][width][channels] */
        uint32_t *label; /* [count] below classes */
    } part[TEXT_PARTS];
    double mean[CHANNELS_MOST], deviation[CHANNELS_MOST];
    char sha256[65]; /* of the files, each behind its size in 64 bits */
};

/* Bytes of an image. */
size_t images_bytes(const struct images *images);
void images_free(struct images *images);

/* Room for more images at the end of a part. */
void images_grow(struct images *images, enum text_part part, size_t more);

/* So many training images, drawn at random but always the same, become the validation part. */
bool images_hold_out(struct images *images, uint32_t count, const char *folder, struct error *err);

/* Random ones, as many as are counted, to measure with: classes and size are known. */
void images_random(struct images *images, const size_t count[TEXT_PARTS]);

/* From the training part as it is. */
void images_measure(struct images *images);

/* What is done to a training image: it is cut out of one that is `crop` wider on every side, filled
 * there with the byte `fill`, and mirrored every other time. */
struct augment {
    uint32_t crop, fill;
    bool flip;
};

/* On the device. */
struct image_store {
    struct {
        size_t count;
        uint8_t *pixel;
        uint32_t *label;
    } part[TEXT_PARTS];
    uint32_t *order;      /* of training images, in an epoch */
    float *scale, *shift; /* [channels]: a byte becomes scale byte + shift */
};

/* Uploads a part once. */
void image_store_open(struct image_store *s, struct device *dev, const struct images *images,
                      enum text_part part);
void image_store_close(struct image_store *s, struct device *dev, const struct images *images);

/* A new order of the training images, by seed and epoch. */
void image_store_shuffle(struct image_store *s, struct device *dev, uint64_t seed, uint32_t epoch);

/* Which images: `count` from `first` on, which with a step is behind the step's position in the
 * epoch's order; their place in the global batch is then first too. */
struct range {
    enum text_part part;
    const struct step *step;
    uint64_t first;
    uint32_t count;
};

/* pixels [count][height][width][channels], target [count].  Without a step nothing is augmented. */
void image_store_batch(const struct image_store *s, struct device *dev, const struct images *images,
                       struct range range, const struct augment *augment, float *pixels,
                       uint32_t *target);

/* Whether a folder is one of such a set. */
bool images_fit_idx(const char *path);
bool images_fit_cifar10(const char *path);
bool images_fit_cifar100(const char *path);

extern const struct setting images_synthetic_settings[];

/* Classes and size of a set, which are known before it is read. */
void images_expect_idx(struct images *images, const double *settings);
void images_expect_cifar10(struct images *images, const double *settings);
void images_expect_cifar100(struct images *images, const double *settings);
void images_expect_synthetic(struct images *images, const double *settings);

/* Readers: a fault names the file.  Settings: those of the set's table entry. */
bool images_read_idx(struct images *images, const char *folder, const double *settings,
                     struct error *err);
bool images_read_cifar10(struct images *images, const char *folder, const double *settings,
                         struct error *err);
bool images_read_cifar100(struct images *images, const char *folder, const double *settings,
                          struct error *err);
bool images_make_synthetic(struct images *images, const char *folder, const double *settings,
                           struct error *err);

#endif
