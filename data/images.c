#include "sim/kernel.h"
#include "sim/rng.h"
#include "sim/step.h"

/* Where an image of a batch comes from. */
struct taken {
    uint32_t image;
    int32_t down, right; /* moved */
    uint32_t mirrored;
};

struct images_take {
    const uint32_t *order; /* NULL: as they lie */
    const uint32_t *label;
    const struct step *step; /* NULL: nothing is augmented */
    uint64_t first;
    uint32_t crop, flip;
    struct taken *taken;
    uint32_t *target;
};

/* A draw's key is the image's place in the global batch, so that it is the same however the batch
 * is split among workers. */
KERNEL(images_take)
{
    struct taken t = {(uint32_t)(a->first + i), 0, 0, 0};

    if (a->step) {
        uint32_t sides = 2 * a->crop + 1;
        struct rng_block draw =
            rng_block(a->step->seed, RNG_AUGMENT, 0, 0, t.image, (uint32_t)a->step->number);

        t.image = a->order[a->step->position + a->first + i];
        t.down = (int32_t)((uint64_t)draw.word[0] * sides >> 32) - (int32_t)a->crop;
        t.right = (int32_t)((uint64_t)draw.word[1] * sides >> 32) - (int32_t)a->crop;
        t.mirrored = a->flip && draw.word[2] >> 31;
    }
    a->taken[i] = t;
    a->target[i] = a->label[t.image];
}

struct images_read {
    const uint8_t *pixel;
    const struct taken *taken;
    uint32_t height, width, channels, fill;
    const float *scale, *shift; /* [channels] */
    float *out;
};

/* row: a line of an image. */
ROW_KERNEL(images_read)
{
    struct taken t = a->taken[row / a->height];
    uint32_t channel = (uint32_t)column % a->channels;
    uint32_t across = (uint32_t)column / a->channels;
    uint32_t y = (uint32_t)(row % a->height) + (uint32_t)t.down;
    uint32_t x = (t.mirrored ? a->width - 1 - across : across) + (uint32_t)t.right;
    uint32_t byte = a->fill;

    if (y < a->height && x < a->width)
        byte = a->pixel[(((size_t)t.image * a->height + y) * a->width + x) * a->channels + channel];
    a->out[row * a->width * a->channels + column] =
        (float)byte * a->scale[channel] + a->shift[channel];
}

#ifndef __CUDACC__

#include "data/images.h"
#include "sim/device.h"

#include <math.h>
#include <stdlib.h>

size_t images_bytes(const struct images *images)
{
    return (size_t)images->size.height * images->size.width * images->size.channels;
}

void images_free(struct images *images)
{
    for (int part = 0; part < TEXT_PARTS; part++) {
        free(images->part[part].pixel);
        free(images->part[part].label);
    }
    *images = (struct images){0};
}

void images_grow(struct images *images, enum text_part part, size_t more)
{
    struct image_part *p = &images->part[part];
    size_t count = p->count + more;

    p->pixel = realloc(p->pixel, count * images_bytes(images) + 1);
    p->label = realloc(p->label, count * sizeof(*p->label) + 1);
    CHECK(p->pixel != NULL && p->label != NULL);
    p->count = count;
}

/* A new order of n things: Fisher and Yates'. */
static uint32_t *shuffled(size_t n, uint64_t seed, uint32_t number)
{
    uint32_t *order = allocate(n, sizeof(*order));

    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i-- > 1;) {
        struct rng_block draw = rng_block(seed, RNG_SHUFFLE, (uint32_t)i, number, 0, 0);
        size_t j = (size_t)((uint64_t)draw.word[0] * (i + 1) >> 32);
        uint32_t other = order[j];

        order[j] = order[i];
        order[i] = other;
    }
    return order;
}

static void copy_image(const struct images *images, struct image_part *to, size_t at,
                       const struct image_part *from, size_t i)
{
    size_t bytes = images_bytes(images);

    memmove(to->pixel + at * bytes, from->pixel + i * bytes, bytes);
    to->label[at] = from->label[i];
}

bool images_hold_out(struct images *images, uint32_t count, const char *folder, struct error *err)
{
    struct image_part *train = &images->part[TEXT_TRAIN], *valid = &images->part[TEXT_VALID];
    size_t left = 0;
    uint32_t *order;
    bool *held;

    if (count == 0)
        return true;
    if (count >= train->count)
        return fail(err, "%s: data.holdout is %u, and there are %zu images to train on", folder,
                    count, train->count);
    order = shuffled(train->count, 0, 0);
    held = allocate(train->count, sizeof(*held));
    images_grow(images, TEXT_VALID, count);
    for (uint32_t i = 0; i < count; i++) {
        held[order[i]] = true;
        copy_image(images, valid, i, train, order[i]);
    }
    for (size_t i = 0; i < train->count; i++)
        if (!held[i])
            copy_image(images, train, left++, train, i);
    train->count = left;
    free(order);
    free(held);
    return true;
}

void images_measure(struct images *images)
{
    const struct image_part *train = &images->part[TEXT_TRAIN];
    size_t channels = images->size.channels, bytes = train->count * images_bytes(images);
    double n = (double)bytes / (double)channels;

    for (size_t c = 0; c < channels; c++) {
        uint64_t sum = 0, square = 0;

        for (size_t i = c; i < bytes; i += channels) {
            sum += train->pixel[i];
            square += (uint64_t)train->pixel[i] * train->pixel[i];
        }
        images->mean[c] = (double)sum / n / 255;
        images->deviation[c] =
            sqrt((double)square / n / (255.0 * 255.0) - images->mean[c] * images->mean[c]);
        if (!(images->deviation[c] > 0)) /* all pixels are alike */
            images->deviation[c] = 1;
    }
}

void images_random(struct images *images, const size_t count[TEXT_PARTS])
{
    size_t bytes = images_bytes(images);

    for (int part = 0; part < TEXT_PARTS; part++) {
        struct image_part *p = &images->part[part];

        p->count = 0;
        images_grow(images, (enum text_part)part, count[part]);
        for (size_t i = 0; i < count[part]; i++)
            p->label[i] = (uint32_t)(i % images->classes);
        for (size_t i = 0; i < count[part] * bytes; i += 4) {
            struct rng_block draw = rng_block(0, RNG_IMAGES, (uint32_t)(i / 4), 0, 0, 0);

            for (size_t j = i; j < i + 4 && j < count[part] * bytes; j++)
                p->pixel[j] = (uint8_t)draw.word[j % 4];
        }
    }
    images_measure(images);
}

static float *upload_factors(struct device *dev, const struct images *images, bool shift)
{
    float factor[CHANNELS_MOST];
    size_t bytes = images->size.channels * sizeof(*factor);
    float *on_device = device_alloc(dev, bytes);

    for (uint32_t c = 0; c < images->size.channels; c++)
        factor[c] = (float)(shift ? -images->mean[c] / images->deviation[c]
                                  : 1 / (255 * images->deviation[c]));
    device_upload(dev, on_device, factor, bytes);
    return on_device;
}

void image_store_open(struct image_store *s, struct device *dev, const struct images *images,
                      enum text_part part)
{
    const struct image_part *from = &images->part[part];
    size_t pixels = from->count * images_bytes(images), labels = from->count * sizeof(uint32_t);

    if (s->scale == NULL) {
        s->scale = upload_factors(dev, images, false);
        s->shift = upload_factors(dev, images, true);
    }
    if (s->part[part].pixel != NULL)
        return;
    s->part[part].count = from->count;
    s->part[part].pixel = device_alloc(dev, pixels);
    s->part[part].label = device_alloc(dev, labels);
    device_upload(dev, s->part[part].pixel, from->pixel, pixels);
    device_upload(dev, s->part[part].label, from->label, labels);
    if (part == TEXT_TRAIN)
        s->order = device_alloc(dev, labels);
}

void image_store_close(struct image_store *s, struct device *dev, const struct images *images)
{
    size_t factors = images->size.channels * sizeof(float);

    for (int part = 0; part < TEXT_PARTS; part++) {
        device_free(dev, s->part[part].pixel, s->part[part].count * images_bytes(images));
        device_free(dev, s->part[part].label, s->part[part].count * sizeof(uint32_t));
    }
    device_free(dev, s->order, s->part[TEXT_TRAIN].count * sizeof(*s->order));
    device_free(dev, s->scale, factors);
    device_free(dev, s->shift, factors);
    *s = (struct image_store){0};
}

void image_store_shuffle(struct image_store *s, struct device *dev, uint64_t seed, uint32_t epoch)
{
    size_t n = s->part[TEXT_TRAIN].count;
    uint32_t *order = shuffled(n, seed, epoch + 1); /* 0 is of what is held out */

    device_upload(dev, s->order, order, n * sizeof(*order));
    free(order);
}

void image_store_batch(const struct image_store *s, struct device *dev, const struct images *images,
                       struct range range, const struct augment *augment, float *pixels,
                       uint32_t *target)
{
    struct taken *taken = device_scratch(dev, range.count * sizeof(*taken));
    struct image_size size = images->size;

    LAUNCH(dev, images_take, range.count, .order = s->order, .label = s->part[range.part].label,
           .step = range.step, .first = range.first, .crop = augment->crop, .flip = augment->flip,
           .taken = taken, .target = target);
    LAUNCH_ROWS(dev, images_read, (size_t)range.count * size.height,
                (size_t)size.width * size.channels, .pixel = s->part[range.part].pixel,
                .taken = taken, .height = size.height, .width = size.width,
                .channels = size.channels, .fill = augment->fill, .scale = s->scale,
                .shift = s->shift, .out = pixels);
}

#endif
