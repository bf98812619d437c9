/*
 * test_sources -- sets of images: their files and what is wrong with them, batches and
 * augmentation, and that training on them keeps the identities of test_train.
 */
#include "tests/harness.h"

#include "models/model.h"
#include "sim/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#define SIDE   28
#define PIXELS ((size_t)SIDE * SIDE)

static const char *device = "cpu";
static char folder[64];

static int make_folder(void **state)
{
    strcpy(folder, "/tmp/test_sources.XXXXXX");
    return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state)
{
    char *command = format_text("rm -r %s", folder);
    int code = system(command); /* NOLINT(cert-env33-c) */

    free(command);
    return code;
}

/* Files. */

static void write_file(const char *name, const void *bytes, size_t count, bool compressed)
{
    char *path = format_text("%s/%s", folder, name);

    if (compressed) {
        gzFile file = gzopen(path, "wb");

        assert_non_null(file);
        assert_int_equal(gzwrite(file, bytes, (unsigned)count), count);
        assert_int_equal(gzclose(file), Z_OK);
    } else {
        FILE *file = fopen(path, "wb");

        assert_non_null(file);
        assert_int_equal(fwrite(bytes, 1, count, file), count);
        fclose(file);
    }
    free(path);
}

/* Images whose byte i is i + 3 times their number, labels that are their number modulo 10. */
static void write_idx(const char *images, const char *labels, uint32_t count, bool compressed)
{
    size_t bytes = count * PIXELS;
    unsigned char *all = allocate(16 + bytes, 1), named[8 + 256];

    memcpy(
        all,
        (unsigned char[]){0, 0, 8, 3, 0, 0, 0, (unsigned char)count, 0, 0, 0, SIDE, 0, 0, 0, SIDE},
        16);
    memcpy(named, (unsigned char[]){0, 0, 8, 1, 0, 0, 0, (unsigned char)count}, 8);
    for (uint32_t n = 0; n < count; n++) {
        named[8 + n] = (unsigned char)(n % 10);
        for (size_t i = 0; i < PIXELS; i++)
            all[16 + n * PIXELS + i] = (unsigned char)(i + 3 * (size_t)n);
    }
    write_file(images, all, 16 + bytes, compressed);
    write_file(labels, named, 8 + count, compressed);
    free(all);
}

static bool read_idx(struct images *images, struct error *err)
{
    *images = (struct images){0};
    images_expect_idx(images, NULL);
    return images_read_idx(images, folder, NULL, err);
}

static void refuse_idx(const char *sentence)
{
    struct images images;
    struct error err;

    if (read_idx(&images, &err))
        fail_msg("read, but expected: %s", sentence);
    if (strstr(err.text, sentence) == NULL)
        fail_msg("'%s' does not say: %s", err.text, sentence);
    images_free(&images);
}

static void idx_files_are_read_plain_and_compressed_whatever_their_names(void **state)
{
    static const char *const names[][4] = {
        {"train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
         "t10k-labels-idx1-ubyte"},
        {"train-images.idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte",
         "t10k-labels.idx1-ubyte"},
        {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz",
         "t10k-labels-idx1-ubyte.gz"},
    };
    char sha256[65] = "";

    for (int i = 0; i < 6; i++) {
        struct images images;
        struct error err;

        assert_int_equal(make_folder(NULL), 0);
        write_idx(names[i % 3][0], names[i % 3][1], 20, i >= 3);
        write_idx(names[i % 3][2], names[i % 3][3], 7, i >= 3);
        assert_true(images_fit_idx(folder));
        if (!read_idx(&images, &err))
            fail_msg("%s", err.text);
        assert_int_equal(images.part[TEXT_TRAIN].count, 20);
        assert_int_equal(images.part[TEXT_VALID].count, 0);
        assert_int_equal(images.part[TEXT_TEST].count, 7);
        assert_int_equal(images.part[TEXT_TRAIN].label[13], 3);
        assert_int_equal(images.part[TEXT_TRAIN].pixel[2 * PIXELS + 5], 11);
        assert_true(i == 0 || strcmp(sha256, images.sha256) == 0); /* of what is in them */
        memcpy(sha256, images.sha256, sizeof(sha256));
        images_free(&images);
        assert_int_equal(remove_folder(NULL), 0);
    }
}

static void overwrite(const char *name, long at, int byte)
{
    char *path = format_text("%s/%s", folder, name);
    FILE *file = fopen(path, "r+b");

    assert_non_null(file);
    fseek(file, at, SEEK_SET);
    fputc(byte, file);
    fclose(file);
    free(path);
}

static void cut(const char *name, long bytes)
{
    char *path = format_text("%s/%s", folder, name);

    assert_int_equal(truncate(path, bytes), 0);
    free(path);
}

static void faults_of_idx_files_are_one_sentence(void **state)
{
    static const char images[] = "train-images-idx3-ubyte", labels[] = "train-labels-idx1-ubyte";
    static const char test_images[] = "t10k-images-idx3-ubyte";

    assert_false(images_fit_idx(folder));
    refuse_idx("holds no train-images-idx3-ubyte");
    write_idx(images, labels, 20, false);
    refuse_idx("holds no t10k-images-idx3-ubyte");
    write_idx(test_images, "t10k-labels-idx1-ubyte", 7, false);
    overwrite(labels, 8 + 4, 10);
    refuse_idx("train-labels-idx1-ubyte: label 4 is 10, and there are 10 classes");
    overwrite(labels, 7, 19);
    refuse_idx("holds 28 bytes, and its header tells of 27");
    cut(labels, 27);
    refuse_idx("has 20 images, and");
    overwrite(images, 2, 13);
    refuse_idx("not an idx file of bytes with 3 dimensions");
    write_idx(images, labels, 20, false);
    overwrite(images, 11, 14);
    overwrite(images, 7, 40);
    refuse_idx("has 40 images, and");
    write_idx(images, labels, 20, true);
    cut(images, 200);
    refuse_idx("train-images-idx3-ubyte: ends within its compressed data");
    write_idx(images, labels, 20, true);
    overwrite(images, 60, 255);
    overwrite(images, 61, 255);
    refuse_idx("train-images-idx3-ubyte: ");
    write_idx(images, labels, 20, false);
    cut(images, 10);
    refuse_idx("not an idx file");
}

#define RECORD 3073

static void write_cifar(int first, int last, uint32_t records)
{
    unsigned char *all = allocate(records, RECORD);

    for (int file = first; file <= last; file++) {
        char *name =
            file <= 5 ? format_text("data_batch_%d.bin", file) : format_text("test_batch.bin");

        for (uint32_t r = 0; r < records; r++) {
            all[(size_t)r * RECORD] = (unsigned char)((r + (uint32_t)file) % 10);
            for (size_t i = 1; i < RECORD; i++) /* a plane of ones, of twos, of threes */
                all[(size_t)r * RECORD + i] = (unsigned char)((i + 1023) / 1024 + 10 * (size_t)r);
        }
        write_file(name, all, (size_t)records * RECORD, false);
        free(name);
    }
    free(all);
}

static bool read_cifar(struct images *images, struct error *err)
{
    *images = (struct images){0};
    images_expect_cifar10(images, NULL);
    return images_read_cifar10(images, folder, NULL, err);
}

static void refuse_cifar(const char *sentence)
{
    struct images images;
    struct error err;

    if (read_cifar(&images, &err))
        fail_msg("read, but expected: %s", sentence);
    if (strstr(err.text, sentence) == NULL)
        fail_msg("'%s' does not say: %s", err.text, sentence);
    images_free(&images);
}

static void cifar_has_planes_and_we_have_pixels(void **state)
{
    struct images images;
    struct error err;

    write_cifar(1, 6, 3);
    assert_true(images_fit_cifar10(folder));
    if (!read_cifar(&images, &err))
        fail_msg("%s", err.text);
    assert_int_equal(images.part[TEXT_TRAIN].count, 15);
    assert_int_equal(images.part[TEXT_TEST].count, 3);
    assert_int_equal(images.part[TEXT_TRAIN].label[3], 2);
    for (size_t p = 0; p < 1024; p++)
        for (size_t c = 0; c < 3; c++)
            assert_int_equal(images.part[TEXT_TRAIN].pixel[(1024 + p) * 3 + c], 11 + c);
    images_free(&images);
}

/* The second label is the class. */
static void cifar100_has_two_labels(void **state)
{
    unsigned char *all = allocate(2, RECORD + 1);
    struct images images = {0};
    struct error err;

    for (size_t r = 0; r < 2; r++) {
        memcpy(all + r * (RECORD + 1), (unsigned char[]){19, (unsigned char)(98 + r)}, 2);
        memset(all + r * (RECORD + 1) + 2 + 2048, 7, 1024);
    }
    write_file("train.bin", all, (size_t)2 * (RECORD + 1), false);
    assert_false(images_fit_cifar100(folder));
    write_file("test.bin", all, RECORD + 1, true);
    assert_true(images_fit_cifar100(folder));
    images_expect_cifar100(&images, NULL);
    if (!images_read_cifar100(&images, folder, NULL, &err))
        fail_msg("%s", err.text);
    assert_int_equal(images.part[TEXT_TRAIN].count, 2);
    assert_int_equal(images.part[TEXT_TRAIN].label[1], 99);
    assert_int_equal(images.part[TEXT_TEST].label[0], 98);
    assert_int_equal(images.part[TEXT_TRAIN].pixel[3], 0);
    assert_int_equal(images.part[TEXT_TRAIN].pixel[5], 7);
    images_free(&images);
    free(all);
}

static void faults_of_cifar_are_one_sentence(void **state)
{
    refuse_cifar("data_batch_1.bin: No such file");
    write_cifar(1, 6, 2);
    overwrite("data_batch_4.bin", RECORD, 11);
    refuse_cifar("data_batch_4.bin: label 1 is 11, and there are 10 classes");
    cut("data_batch_2.bin", 6000);
    refuse_cifar("data_batch_2.bin: holds 6000 bytes, which are not records of 3073");
    cut("data_batch_2.bin", 0);
    refuse_cifar("data_batch_2.bin: holds 0 bytes");
}

/* cases.md 21: by all pixels, not by the mean of the images' own. */
static void a_normalised_set_has_mean_0_and_deviation_1(void **state)
{
    double settings[] = {10, 8, 3, 40, 10};
    struct images images = {0};
    struct error err;

    images_expect_synthetic(&images, settings);
    assert_true(images_make_synthetic(&images, "", settings, &err));
    images_measure(&images);
    for (size_t c = 0; c < 3; c++) {
        double sum = 0, square = 0;

        for (size_t i = c; i < 40 * images_bytes(&images); i += 3) {
            double x =
                (images.part[TEXT_TRAIN].pixel[i] / 255.0 - images.mean[c]) / images.deviation[c];

            sum += x / (40 * 64);
            square += x * x / (40 * 64);
        }
        assert_true(fabs(sum) < 1e-12 && fabs(square - 1) < 1e-12);
    }
    images_free(&images);
}

static void what_is_held_out_is_no_longer_trained_on(void **state)
{
    double settings[] = {10, 8, 3, 40, 10};
    struct images images = {0}, all = {0};
    size_t bytes, train = 0, valid = 0;
    struct error err;

    images_expect_synthetic(&all, settings);
    images_expect_synthetic(&images, settings);
    assert_true(images_make_synthetic(&all, "", settings, &err));
    assert_true(images_make_synthetic(&images, "", settings, &err));
    assert_false(images_hold_out(&images, 40, "set", &err));
    assert_non_null(strstr(err.text, "data.holdout is 40, and there are 40 images to train on"));
    assert_true(images_hold_out(&images, 13, "set", &err));
    assert_int_equal(images.part[TEXT_TRAIN].count, 27);
    assert_int_equal(images.part[TEXT_VALID].count, 13);
    bytes = images_bytes(&all);
    for (size_t i = 0; i < 40; i++) { /* each is in one of them, those to train on in their order */
        const uint8_t *image = all.part[TEXT_TRAIN].pixel + i * bytes;
        size_t before = valid;

        for (size_t v = 0; v < 13; v++)
            valid += memcmp(images.part[TEXT_VALID].pixel + v * bytes, image, bytes) == 0 &&
                     images.part[TEXT_VALID].label[v] == all.part[TEXT_TRAIN].label[i];
        if (valid == before) {
            assert_memory_equal(images.part[TEXT_TRAIN].pixel + train * bytes, image, bytes);
            assert_int_equal(images.part[TEXT_TRAIN].label[train], all.part[TEXT_TRAIN].label[i]);
            train++;
        }
    }
    assert_int_equal(valid, 13);
    images_free(&images);
    images_free(&all);
}

/* Runs. */

struct run {
    const char *model, *data, *more; /* texts of the regime */
    uint32_t workers, batch, steps;
    const char *const *flags; /* or NULL */
};

static void start(struct train *t, struct config **c, const struct run *r)
{
    char *json = format_text(
        "{\"model\": %s, \"data\": {\"name\": \"synthetic\", \"side\": 16, \"channels\": 1, "
        "\"train\":"
        " 45, \"test\": 21 %s}, \"evaluate\": {\"batch\": 8}, \"workers\": %u, \"batch\": %u,"
        " \"epochs\": 9, %s}",
        r->model, r->data, r->workers, r->batch, r->more);
    struct error err;

    *c = harness_config(json, r->flags);
    free(json);
    *t = (struct train){.config = *c};
    train_source(t);
    if (!t->data.set->kind->load(&t->data, "", &err))
        fail_msg("%s", err.text);
    harness_prepare(t, device);
}

/* Parameters and running statistics. */
static float *trained(const struct run *r, size_t *n)
{
    struct train t;
    struct config *c;
    float *params;

    start(&t, &c, r);
    harness_steps(&t, r->steps);
    *n = graph_floats(&t.parameters);
    params = harness_download(&t, t.workers.params, *n);
    harness_stop(&t, c);
    return params;
}

static void require_same(const struct run *a, const struct run *b, double tolerance)
{
    size_t n, m;
    float *x = trained(a, &n), *y = trained(b, &m);

    assert_int_equal(n, m);
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)x[i] - (double)y[i]) <= tolerance))
            fail_msg("float %zu of %zu: %.9g and %.9g", i, n, (double)x[i], (double)y[i]);
    free(x);
    free(y);
}

#define LENET   "\"lenet\""
#define RESNET  "{\"name\": \"resnet\", \"depth\": 8}"
#define AUGMENT ", \"crop\": 2, \"fill\": 90, \"flip\": true"
#define SGD                                                                           \
    "\"schedule\": {\"0\": {\"optimizer\": \"sgd\", \"lr\": 0.05, \"momentum\": 0.9," \
    " \"weight_decay\": 0.01}}"

/* cases.md 12: 45 images, the last step has 21 of 24; with augmentation, over two epochs. */
static void k_workers_without_norms_are_one(void **state)
{
    struct run one = {LENET, AUGMENT, SGD, 1, 24, 4, NULL};
    struct run three = {LENET, AUGMENT, SGD, 3, 8, 4, NULL};
    struct run eight = {LENET, AUGMENT, SGD, 8, 3, 4, NULL};

    require_same(&one, &three, 2e-6);
    require_same(&one, &eight, 2e-6);
}

static void groups_and_streams_of_images_change_nothing(void **state)
{
    static const char *const groups[][5] = {
        {"--group", "3", NULL}, {"--group", "1", NULL}, {"--group", "2", "--streams", "2", NULL}};
    static const char *const methods[] = {SGD, SGD ", \"compressor\": \"dgc:ratio=0.2\"",
                                          SGD ", \"batch_norm\": \"shared\""};

    for (size_t m = 0; m < ARRAY_LENGTH(methods); m++) {
        for (size_t g = 1; g < ARRAY_LENGTH(groups); g++) {
            struct run all = {RESNET, AUGMENT, methods[m], 3, 8, 2, groups[0]};
            struct run some = {RESNET, AUGMENT, methods[m], 3, 8, 2, groups[g]};

            require_same(&all, &some, 2e-5);
        }
    }
}

static void the_same_run_twice_is_the_same_to_the_bit(void **state)
{
    struct run r = {RESNET, AUGMENT, SGD ", \"compressor\": \"dgc:ratio=0.1\"", 3, 8, 5, NULL};

    require_same(&r, &r, 0);
}

/* Four steps of each shape, so that the recording device has something to compare. */
static void steps_of_images_can_be_replayed(void **state)
{
    struct run r = {RESNET, AUGMENT, SGD, 3, 8, 8, NULL};
    struct config *c;
    struct train t;

    start(&t, &c, &r);
    harness_steps(&t, r.steps);
    if (strcmp(device, "recording") == 0)
        assert_int_equal(recording_compared(), 4);
    harness_stop(&t, c);
}

static void micro_batches_are_whole(void **state)
{
    struct run r = {LENET, "", SGD ", \"compressor\": \"variance\"", 2, 8, 3, NULL};
    struct config *c;
    struct train t;
    uint64_t samples = 0;
    uint32_t micro;

    start(&t, &c, &r);
    micro = t.data.how.micro;
    assert_true(micro > 1);
    for (uint64_t step = 0; step < t.steps; step++)
        samples += train_step(&t, 0, step);
    assert_int_equal(samples, 45 / micro * micro);
    harness_stop(&t, c);
}

/* Every image once an epoch, in another order each time; and the batch is what it should be. */
static void an_epoch_has_every_image_once(void **state)
{
    struct run r = {LENET, "", SGD, 3, 8, 0, NULL};
    uint32_t order[2][45];
    struct config *c;
    struct train t;

    start(&t, &c, &r);
    for (uint32_t epoch = 0; epoch < 2; epoch++) {
        uint32_t seen[45] = {0};

        t.data.set->kind->begin_epoch(&t.data, &t.dev, epoch);
        device_download(&t.dev, order[epoch], t.data.stored.order, sizeof(order[epoch]));
        for (int i = 0; i < 45; i++)
            seen[order[epoch][i]]++;
        for (int i = 0; i < 45; i++)
            assert_int_equal(seen[i], 1);
    }
    assert_memory_not_equal(order[0], order[1], sizeof(order[0]));
    harness_stop(&t, c);
}

/* What a batch's image should be, computed here: crop, mirror, normalise. */
static float wanted(const struct train *t, const struct rng_block *draw, uint32_t image, uint32_t y,
                    uint32_t x)
{
    const struct images *images = &t->data.images;
    uint32_t crop = t->data.how.augment.crop, sides = 2 * crop + 1;
    int64_t down = (int64_t)((uint64_t)draw->word[0] * sides >> 32) - crop;
    int64_t right = (int64_t)((uint64_t)draw->word[1] * sides >> 32) - crop;
    int64_t from_y = y + down, from_x = (draw->word[2] >> 31 ? 15 - x : x) + right;
    double byte = t->data.how.augment.fill;

    if (from_y >= 0 && from_y < 16 && from_x >= 0 && from_x < 16)
        byte = images->part[TEXT_TRAIN].pixel[(size_t)image * 256 + (size_t)(from_y * 16 + from_x)];
    return (float)((byte / 255 - images->mean[0]) / images->deviation[0]);
}

static void a_batch_is_cut_mirrored_and_normalised(void **state)
{
    struct run r = {LENET, AUGMENT, SGD, 3, 8, 0, NULL};
    static const char *const flags[] = {"--group", "2", NULL};
    struct config *c;
    struct train t;
    uint32_t order[45], target[16], mirrored = 0;
    float *pixels;

    r.flags = flags;
    start(&t, &c, &r);
    train_step(&t, 0, 0); /* of two groups; the second has worker 2's images */
    device_download(&t.dev, order, t.data.stored.order, sizeof(order));
    device_download(&t.dev, target, t.workers.lane[0].graph.target, 8 * sizeof(*target));
    pixels = harness_download(&t, t.workers.lane[0].graph.pixels, (size_t)8 * 256);
    for (uint32_t i = 0; i < 8 && t.workers.lanes == 1; i++) {
        struct rng_block draw = rng_block(1, RNG_AUGMENT, 0, 0, 16 + i, 0);

        mirrored += draw.word[2] >> 31;
        assert_int_equal(target[i], t.data.images.part[TEXT_TRAIN].label[order[16 + i]]);
        for (uint32_t y = 0; y < 16; y++)
            for (uint32_t x = 0; x < 16; x++)
                assert_true(fabsf(pixels[(size_t)i * 256 + (size_t)y * 16 + x] -
                                  wanted(&t, &draw, order[16 + i], y, x)) < 1e-5f);
    }
    assert_true(t.workers.lanes > 1 || (mirrored > 0 && mirrored < 8));
    free(pixels);
    harness_stop(&t, c);
}

/* cases.md 13: every image once, whatever the batch; without a holdout the test part is looked
 * at. */
static void evaluation_scores_every_image_once(void **state)
{
    static const char *const batches[][3] = {{"--set", "evaluate.batch=21", NULL},
                                             {"--set", "evaluate.batch=8", NULL},
                                             {"--set", "evaluate.batch=1", NULL}};
    struct score score[3];

    for (int i = 0; i < 3; i++) {
        struct run r = {RESNET, "", SGD, 3, 8, 4, batches[i]};
        struct config *c;
        struct train t;

        start(&t, &c, &r);
        harness_steps(&t, 4);
        score[i] = train_evaluate(&t, TEXT_VALID, t.workers.params);
        assert_int_equal(score[i].scored, 21);
        assert_true(score[i].top1 <= score[i].top5 && score[i].top5 <= 1);
        assert_true(fabs(score[i].loss - score[0].loss) < 1e-5);
        assert_true(score[i].top1 == score[0].top1 && score[i].top5 == score[0].top5);
        harness_stop(&t, c);
    }
}

/* One step from zero and one: the mean over workers, of worker 0, or one after another. */
static void running_statistics_are_by_average_worker0_or_shared(void **state)
{
    static const char *const by[] = {"average", "worker0", "shared"};

    for (int i = 0; i < 3; i++) {
        char *more = format_text(SGD ", \"batch_norm\": \"%s\"", by[i]);
        struct run r = {RESNET, "", more, 3, 8, 1, NULL};
        size_t kept, p;
        struct config *c;
        struct train t;
        float *running, *batch;

        start(&t, &c, &r);
        harness_steps(&t, 1);
        kept = t.parameters.kept_length;
        p = t.parameters.length;
        running = harness_download(&t, t.workers.params + p, kept);
        batch = harness_download(&t, t.workers.statistics, 3 * kept);
        for (size_t e = 0; e < kept; e++) {
            double x = batch[e], y = batch[kept + e], z = batch[2 * kept + e];
            double was = e / 16 % 2 == 1 && e < 32; /* conv1's norm: means, then variances */
            double want = i == 0   ? 0.9 * was + 0.1 * (x + y + z) / 3
                          : i == 1 ? 0.9 * was + 0.1 * x
                                   : 0.9 * (0.9 * (0.9 * was + 0.1 * x) + 0.1 * y) + 0.1 * z;

            if (e < 32)
                assert_true(fabs((double)running[e] - want) < 1e-6 * (1 + fabs(want)));
        }
        free(running);
        free(batch);
        free(more);
        harness_stop(&t, c);
    }
}

/* Models. */

static size_t parameters_of(const char *name, const char *settings, struct image_size size)
{
    const struct model *m = model_find(name);
    double values[SETTINGS_MOST] = {0};
    struct parameters *all = allocate(1, sizeof(*all));
    struct device none = {.ops = &cpu_device};
    struct network network = {.model = m, .values = values, .classes = 10, .image = size};
    size_t n = 0;

    for (size_t i = 0; m->settings[i].name != NULL; i++)
        values[i] = m->settings[i].initial;
    if (settings != NULL)
        sscanf(settings, "%lf,%lf", &values[0], &values[1]);
    graph_measure(&none, all, &network, (struct shape){1, 1, 1}, true);
    for (uint32_t i = 0; i < all->count; i++)
        n += all->item[i].n;
    free(all);
    return n;
}

static void models_have_as_many_parameters_as_their_papers(void **state)
{
    struct image_size cifar = {32, 32, 3}, mnist = {28, 28, 1};

    assert_int_equal(parameters_of("resnet", "20,1", cifar), 272474);
    assert_int_equal(parameters_of("resnet", "44,1", cifar), 661338);
    assert_int_equal(parameters_of("resnet", "110,1", cifar), 1730714);
    assert_int_equal(parameters_of("resnet", "20,0", cifar), 269722);
    assert_int_equal(parameters_of("lenet", NULL, mnist), 61706);
}

static void filters_begin_with_the_deviation_of_he(void **state)
{
    struct run r = {RESNET, "", SGD, 1, 8, 0, NULL};
    struct config *c;
    struct train t;
    float *params;

    start(&t, &c, &r);
    params = harness_download(&t, t.workers.params, t.parameters.length);
    for (uint32_t i = 0; i < t.parameters.count; i++) {
        const struct parameter *p = &t.parameters.item[i];
        double square = 0, deviation;

        if (p->dims != 4 || p->flat || p->n < 4000)
            continue;
        for (size_t e = 0; e < p->n; e++)
            square += pow((double)params[p->at + e], 2);
        deviation = sqrt(2.0 / (double)(p->dim[1] * p->dim[2] * p->dim[0]));
        assert_true(fabs(sqrt(square / (double)p->n) / deviation - 1) < 0.05);
    }
    free(params);
    harness_stop(&t, c);
}

int main(void)
{
    const struct CMUnitTest files[] = {
        cmocka_unit_test(idx_files_are_read_plain_and_compressed_whatever_their_names),
        cmocka_unit_test_setup_teardown(faults_of_idx_files_are_one_sentence, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(cifar_has_planes_and_we_have_pixels, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(cifar100_has_two_labels, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(faults_of_cifar_are_one_sentence, make_folder,
                                        remove_folder),
        cmocka_unit_test(a_normalised_set_has_mean_0_and_deviation_1),
        cmocka_unit_test(what_is_held_out_is_no_longer_trained_on),
        cmocka_unit_test(models_have_as_many_parameters_as_their_papers),
    };
    const struct CMUnitTest runs[] = {
        cmocka_unit_test(k_workers_without_norms_are_one),
        cmocka_unit_test(groups_and_streams_of_images_change_nothing),
        cmocka_unit_test(the_same_run_twice_is_the_same_to_the_bit),
        cmocka_unit_test(steps_of_images_can_be_replayed),
        cmocka_unit_test(micro_batches_are_whole),
        cmocka_unit_test(an_epoch_has_every_image_once),
        cmocka_unit_test(a_batch_is_cut_mirrored_and_normalised),
        cmocka_unit_test(evaluation_scores_every_image_once),
        cmocka_unit_test(running_statistics_are_by_average_worker0_or_shared),
        cmocka_unit_test(filters_begin_with_the_deviation_of_he),
    };
    int failed = cmocka_run_group_tests_name("files", files, NULL, NULL);

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, runs, NULL, NULL);
    }
    return failed;
}
