#include "data/source.h"
#include "sim/device.h"

#include <stdlib.h>

static bool images_load(struct source *s, const char *folder, struct error *err)
{
    struct images images = {0};
    bool ok;

    s->set->expect(&images, s->how.settings);
    ok = s->set->read(&images, folder, s->how.settings, err);
    if (ok) {
        images_measure(&images);
        ok = images_hold_out(&images, s->how.holdout, s->set->name, err);
    }
    if (ok)
        s->images = images;
    else
        images_free(&images);
    return ok;
}

static void images_unload(struct source *s)
{
    images_free(&s->images);
}

static void images_imitate(struct source *s, uint32_t words, uint64_t steps, bool filled)
{
    size_t count[TEXT_PARTS] = {
        [TEXT_TRAIN] = steps * s->how.workers * s->how.batch, [TEXT_TEST] = s->how.evaluate_batch};

    s->set->expect(&s->images, s->how.settings);
    for (int part = 0; part < TEXT_PARTS; part++)
        s->images.part[part].count = count[part];
    if (filled)
        images_random(&s->images, count);
}

static struct contents images_contents(const struct source *s)
{
    struct contents c = {.classes = s->images.classes,
                         .validates = s->images.part[TEXT_VALID].count > 0,
                         .sha256 = s->images.sha256};

    for (int part = 0; part < TEXT_PARTS; part++)
        c.count[part] = s->images.part[part].count;
    return c;
}

/* Training images of an epoch: micro-batches are whole. */
static uint64_t images_of(const struct source *s)
{
    uint64_t count = s->images.part[TEXT_TRAIN].count;

    return count - count % s->how.micro;
}

static bool images_plan(struct source *s, struct error *err)
{
    uint64_t step = (uint64_t)s->how.workers * s->how.batch;

    s->steps = (images_of(s) + step - 1) / step;
    return s->steps > 0 ||
           fail(err,
                "data set '%s' has %zu images to train on, fewer than the method's %u "
                "micro-batches",
                s->set->name, s->images.part[TEXT_TRAIN].count, s->how.micro);
}

/* Without a validation part the test part is looked at. */
static enum text_part looked_at(const struct source *s, enum text_part part)
{
    bool absent = part == TEXT_VALID && s->images.part[TEXT_VALID].count == 0;

    return absent ? TEXT_TEST : part;
}

static bool images_plan_part(const struct source *s, enum text_part part, struct error *err)
{
    return s->images.part[looked_at(s, part)].count > 0 ||
           fail(err, "data set '%s' has no %s images", s->set->name, text_part_names[part]);
}

static size_t images_part_bytes(const struct source *s, enum text_part part)
{
    size_t order = part == TEXT_TRAIN ? sizeof(uint32_t) : 0;

    return s->images.part[part].count * (images_bytes(&s->images) + sizeof(uint32_t) + order);
}

static void images_open_training(struct source *s, struct device *dev)
{
    image_store_open(&s->stored, dev, &s->images, TEXT_TRAIN);
}

static void images_open_part(struct source *s, struct device *dev, enum text_part part)
{
    image_store_open(&s->stored, dev, &s->images, looked_at(s, part));
}

static void images_close(struct source *s, struct device *dev)
{
    image_store_close(&s->stored, dev, &s->images);
}

static void images_begin_epoch(struct source *s, struct device *dev, uint32_t epoch)
{
    image_store_shuffle(&s->stored, dev, s->how.seed, epoch);
}

static uint64_t images_position(const struct source *s, uint64_t step)
{
    return step * s->how.workers * s->how.batch;
}

/* Worker k has the k-th of them: in the last step there may be fewer for one, and none for
 * others. */
static struct share images_share(const struct source *s, uint64_t step, uint32_t worker)
{
    uint64_t first = images_position(s, step) + (uint64_t)worker * s->how.batch;
    uint64_t left = first < images_of(s) ? images_of(s) - first : 0;
    uint32_t samples = left < s->how.batch ? (uint32_t)left : s->how.batch;

    return (struct share){samples, samples > 0};
}

static void images_batch(const struct source *s, struct device *dev, const struct step *step,
                         uint32_t first, uint32_t workers, struct share share, struct feed feed)
{
    struct range range = {TEXT_TRAIN, step, (uint64_t)first * s->how.batch,
                          workers * share.samples};

    image_store_batch(&s->stored, dev, &s->images, range, &s->how.augment, feed.pixels,
                      feed.target);
}

static uint64_t images_scored(const struct source *s, enum text_part part)
{
    return s->images.part[looked_at(s, part)].count;
}

static uint64_t images_batches(const struct source *s, enum text_part part)
{
    return (images_scored(s, part) + s->how.evaluate_batch - 1) / s->how.evaluate_batch;
}

static struct share images_evaluate(const struct source *s, struct device *dev, enum text_part part,
                                    uint64_t i, struct feed feed)
{
    uint64_t first = i * s->how.evaluate_batch, left = images_scored(s, part) - first;
    uint32_t samples = left < s->how.evaluate_batch ? (uint32_t)left : s->how.evaluate_batch;
    struct range range = {looked_at(s, part), NULL, first, samples};

    image_store_batch(&s->stored, dev, &s->images, range, &(struct augment){0}, feed.pixels,
                      feed.target);
    return (struct share){samples, 1};
}

const struct source_kind images_kind = {
    .images = true,
    .classes = "classes",
    .samples = "images",
    .load = images_load,
    .unload = images_unload,
    .imitate = images_imitate,
    .contents = images_contents,
    .plan = images_plan,
    .plan_part = images_plan_part,
    .bytes = images_part_bytes,
    .open_training = images_open_training,
    .open_part = images_open_part,
    .close = images_close,
    .begin_epoch = images_begin_epoch,
    .position = images_position,
    .share = images_share,
    .batch = images_batch,
    .batches = images_batches,
    .evaluate = images_evaluate,
    .scored = images_scored,
};
