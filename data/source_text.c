#include "data/source.h"

#include <stdlib.h>

static bool segmented(const struct source *s)
{
    return s->how.sharding == SHARD_SEGMENTS;
}

static uint32_t columns_of(const struct source *s)
{
    return segmented(s) ? s->how.batch : s->how.batch * s->how.workers;
}

static size_t rows_of(const struct source *s)
{
    return s->text.part[TEXT_TRAIN].count / columns_of(s);
}

static bool text_source_load(struct source *s, const char *folder, struct error *err)
{
    return text_load(&s->text, folder, s->how.min_count, err);
}

static void text_source_unload(struct source *s)
{
    text_free(&s->text);
}

static void text_imitate(struct source *s, uint32_t words, uint64_t steps, bool filled)
{
    size_t segments = segmented(s) ? s->how.workers * steps : steps;
    size_t count[TEXT_PARTS] = {
        [TEXT_TRAIN] = (segments * s->how.bptt + 1) * columns_of(s),
        [TEXT_VALID] = 2 * (size_t)s->how.evaluate_batch,
        [TEXT_TEST] = 2 * (size_t)s->how.evaluate_batch,
    };

    s->text.words = words;
    for (int part = 0; part < TEXT_PARTS; part++)
        s->text.part[part].count = count[part];
    if (filled)
        text_random(&s->text, words, count);
}

static struct contents text_contents(const struct source *s)
{
    struct contents c = {.classes = s->text.words, .validates = true, .sha256 = s->text.sha256};

    for (int part = 0; part < TEXT_PARTS; part++)
        c.count[part] = s->text.part[part].count;
    return c;
}

/* A part must have at least two tokens for each of its columns. */
static bool check_columns(const struct source *s, enum text_part part, uint32_t columns,
                          const char *less, struct error *err)
{
    size_t tokens = s->text.part[part].count;

    return tokens / columns >= 2 ||
           fail(err,
                "the %s text has %zu tokens, too few for %u columns of at least 2; %s would do",
                text_part_names[part], tokens, columns, less);
}

static bool text_plan_part(const struct source *s, enum text_part part, struct error *err)
{
    return check_columns(s, part, s->how.evaluate_batch, "a smaller evaluate.batch", err);
}

static bool text_plan(struct source *s, struct error *err)
{
    uint64_t segments;

    if (!check_columns(s, TEXT_TRAIN, columns_of(s), "fewer --workers or a smaller --batch", err))
        return false;
    segments = stream_segments(rows_of(s), s->how.bptt);
    s->steps = segmented(s) ? (segments + s->how.workers - 1) / s->how.workers : segments;
    return true;
}

static size_t text_bytes(const struct source *s, enum text_part part)
{
    return s->text.part[part].count * sizeof(uint32_t);
}

static void open_stream(struct stream *stream, struct device *dev, const struct text_tokens *tokens,
                        uint32_t columns)
{
    stream_create(stream, dev, tokens->token, tokens->count, columns);
}

static void text_open_training(struct source *s, struct device *dev)
{
    open_stream(&s->columns, dev, &s->text.part[TEXT_TRAIN], columns_of(s));
}

static void text_open_part(struct source *s, struct device *dev, enum text_part part)
{
    open_stream(&s->part[part], dev, &s->text.part[part], s->how.evaluate_batch);
}

static void text_close(struct source *s, struct device *dev)
{
    for (int part = 0; part < TEXT_PARTS; part++)
        stream_destroy(&s->part[part], dev);
    stream_destroy(&s->columns, dev);
}

/* Texts are read in order. */
static void text_begin_epoch(struct source *s, struct device *dev, uint32_t epoch)
{
}

static uint64_t text_position(const struct source *s, uint64_t step)
{
    return (segmented(s) ? step * s->how.workers : step) * s->how.bptt;
}

static struct share text_share(const struct source *s, uint64_t step, uint32_t worker)
{
    uint64_t segment = segmented(s) ? step * s->how.workers + worker : step;

    if (segment >= stream_segments(rows_of(s), s->how.bptt))
        return (struct share){0, 0};
    return (struct share){s->how.batch, stream_steps(rows_of(s), s->how.bptt, segment)};
}

static void text_batch(const struct source *s, struct device *dev, const struct step *step,
                       uint32_t first, uint32_t workers, struct share share, struct feed feed)
{
    stream_batch(&s->columns, dev,
                 (struct window){.step = step,
                                 .position = segmented(s) ? (uint64_t)first * s->how.bptt : 0,
                                 .first = segmented(s) ? 0 : first * share.samples,
                                 .columns = workers * share.samples,
                                 .steps = share.steps},
                 feed.token, feed.target);
}

static uint64_t text_batches(const struct source *s, enum text_part part)
{
    return stream_segments(s->part[part].rows, s->how.evaluate_bptt);
}

static struct share text_evaluate(const struct source *s, struct device *dev, enum text_part part,
                                  uint64_t i, struct feed feed)
{
    const struct stream *stream = &s->part[part];
    uint32_t bptt = s->how.evaluate_bptt;
    struct share share = {s->how.evaluate_batch, stream_steps(stream->rows, bptt, i)};

    stream_batch(
        stream, dev,
        (struct window){.position = i * bptt, .columns = share.samples, .steps = share.steps},
        feed.token, feed.target);
    return share;
}

static uint64_t text_scored(const struct source *s, enum text_part part)
{
    return (s->part[part].rows - 1) * s->how.evaluate_batch;
}

const struct source_kind text_kind = {
    .classes = "words",
    .samples = "tokens",
    .load = text_source_load,
    .unload = text_source_unload,
    .imitate = text_imitate,
    .contents = text_contents,
    .plan = text_plan,
    .plan_part = text_plan_part,
    .bytes = text_bytes,
    .open_training = text_open_training,
    .open_part = text_open_part,
    .close = text_close,
    .begin_epoch = text_begin_epoch,
    .position = text_position,
    .share = text_share,
    .batch = text_batch,
    .batches = text_batches,
    .evaluate = text_evaluate,
    .scored = text_scored,
};
