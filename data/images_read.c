/*
 * images_read.c -- sets of images in their public formats, and one that nobody took.
 *
 * A file may be compressed by gzip, whatever its name says; its SHA-256 is that of what is in it.
 */
#include "data/images.h"

#include "sim/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <sha2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

struct content {
    char *path;
    unsigned char *byte;
    size_t count;
};

static void content_free(struct content *c)
{
    free(c->path);
    free(c->byte);
    *c = (struct content){0};
}

static bool read_stream(struct content *c, gzFile stream, struct error *err)
{
    enum { PIECE = 1 << 22 };
    int got = 1, code;

    while (got > 0) {
        unsigned char *more = realloc(c->byte, c->count + PIECE);

        if (more == NULL)
            return fail(err, "%s: does not fit in memory", c->path);
        c->byte = more;
        got = gzread(stream, c->byte + c->count, PIECE);
        c->count += got > 0 ? (size_t)got : 0;
    }
    gzerror(stream, &code);
    return (got == 0 && code == Z_OK) ||
           fail(err, "%s: %s", c->path,
                code == Z_BUF_ERROR ? "ends within its compressed data"
                                    : "its gzip data are damaged");
}

/* path: taken. */
static bool read_content(struct content *c, char *path, struct error *err)
{
    struct stat about;
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is not waited for */
    gzFile stream;
    bool ok;

    *c = (struct content){.path = path};
    if (file < 0)
        return fail(err, "%s: %s", path, strerror(errno));
    if (fstat(file, &about) != 0 || !S_ISREG(about.st_mode)) {
        close(file);
        return fail(err, "%s: not a regular file", path);
    }
    stream = gzdopen(file, "rb");
    CHECK(stream != NULL);
    ok = read_stream(c, stream, err);
    gzclose(stream);
    return ok;
}

static void hash_content(SHA2_CTX *sha256, const struct content *c)
{
    uint64_t size = c->count;

    SHA256Update(sha256, (const uint8_t *)&size, sizeof(size));
    SHA256Update(sha256, c->byte, c->count);
}

static const char *const idx_part[TEXT_PARTS] = {[TEXT_TRAIN] = "train", [TEXT_TEST] = "t10k"};

/* PART-WHAT-idxN-ubyte, with a dot for a dash or .gz behind it: a new string, or NULL. */
static char *find_idx(const char *folder, const char *part, const char *what, int dims)
{
    for (size_t i = 0; i < 4; i++) {
        const char *mark = i % 2 == 0 ? "-" : ".", *end = i < 2 ? "" : ".gz";
        char *path = format_text("%s/%s-%s%sidx%d-ubyte%s", folder, part, what, mark, dims, end);

        if (access(path, F_OK) == 0)
            return path;
        free(path);
    }
    return NULL;
}

bool images_fit_idx(const char *path)
{
    char *train = find_idx(path, idx_part[TEXT_TRAIN], "images", 3);

    free(train);
    return train != NULL;
}

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* A file of unsigned bytes with so many dimensions; its length is what they say. */
static bool read_idx(struct content *c, const char *folder, const char *part, const char *what,
                     int dims, struct error *err)
{
    char *path = find_idx(folder, part, what, dims);
    size_t header = 4 + 4 * (size_t)dims, n = 1;

    if (path == NULL)
        return fail(err, "%s: holds no %s-%s-idx%d-ubyte", folder, part, what, dims);
    if (!read_content(c, path, err))
        return false;
    CHECK(c->byte != NULL);
    if (c->count < header || big_endian(c->byte) != 0x0800u + (uint32_t)dims)
        return fail(err, "%s: not an idx file of bytes with %d dimension%s", path, dims,
                    dims > 1 ? "s" : "");
    for (int d = 0; d < dims; d++) {
        uint32_t size = big_endian(c->byte + 4 + 4 * (size_t)d);

        if (size > 0 && n > ((size_t)1 << 40) / size)
            return fail(err, "%s: says that it holds more than a terabyte", path);
        n *= size;
    }
    return c->count == header + n || fail(err, "%s: holds %zu bytes, and its header tells of %zu",
                                          path, c->count, header + n);
}

/* Images and labels that belong together. */
static bool add_idx(struct images *images, enum text_part part, const struct content *pictures,
                    const struct content *labels, struct error *err)
{
    const unsigned char *size = pictures->byte + 8;
    struct image_part *to = &images->part[part];
    uint32_t count = big_endian(pictures->byte + 4), named = big_endian(labels->byte + 4);
    struct image_size found = {.height = big_endian(size), .width = big_endian(size + 4)};

    if (count != named)
        return fail(err, "%s: has %u images, and %s labels for %u", pictures->path, count,
                    labels->path, named);
    if (count == 0 || found.height != images->size.height || found.width != images->size.width)
        return fail(err, "%s: has %u images of %u x %u, not some of %u x %u", pictures->path, count,
                    found.height, found.width, images->size.height, images->size.width);
    images_grow(images, part, count);
    memcpy(to->pixel, pictures->byte + 16, count * images_bytes(images));
    for (uint32_t i = 0; i < count; i++) {
        to->label[i] = labels->byte[8 + i];
        if (to->label[i] >= images->classes)
            return fail(err, "%s: label %u is %u, and there are %u classes", labels->path, i,
                        to->label[i], images->classes);
    }
    return true;
}

static bool load_idx(struct images *images, enum text_part part, const char *folder,
                     SHA2_CTX *sha256, struct error *err)
{
    struct content pictures = {0}, labels = {0};
    bool ok = read_idx(&pictures, folder, idx_part[part], "images", 3, err) &&
              read_idx(&labels, folder, idx_part[part], "labels", 1, err) &&
              add_idx(images, part, &pictures, &labels, err);

    if (ok) {
        hash_content(sha256, &pictures);
        hash_content(sha256, &labels);
    }
    content_free(&pictures);
    content_free(&labels);
    return ok;
}

void images_expect_idx(struct images *images, const double *settings)
{
    images->classes = 10;
    images->size = (struct image_size){28, 28, 1};
}

bool images_read_idx(struct images *images, const char *folder, const double *settings,
                     struct error *err)
{
    SHA2_CTX sha256;

    SHA256Init(&sha256);
    if (!load_idx(images, TEXT_TRAIN, folder, &sha256, err) ||
        !load_idx(images, TEXT_TEST, folder, &sha256, err))
        return false;
    SHA256End(&sha256, images->sha256);
    return true;
}

/* CIFAR's binary forms: labels, of CIFAR-100 the coarse one before the fine one, which is meant;
 * then a plane for each colour. */

#define CIFAR_SIDE  32
#define CIFAR_PLANE ((size_t)CIFAR_SIDE * CIFAR_SIDE)

static bool holds(const char *folder, const char *name)
{
    char *path = format_text("%s/%s", folder, name);
    bool there = access(path, F_OK) == 0;

    free(path);
    return there;
}

bool images_fit_cifar10(const char *path)
{
    return holds(path, "data_batch_1.bin");
}

bool images_fit_cifar100(const char *path)
{
    return holds(path, "train.bin") && holds(path, "test.bin");
}

void images_expect_cifar10(struct images *images, const double *settings)
{
    images->classes = 10;
    images->size = (struct image_size){CIFAR_SIDE, CIFAR_SIDE, 3};
}

void images_expect_cifar100(struct images *images, const double *settings)
{
    images_expect_cifar10(images, settings);
    images->classes = 100;
}

static bool add_records(struct images *images, enum text_part part, const struct content *c,
                        struct error *err)
{
    struct image_part *to = &images->part[part];
    size_t labels = images->classes > 10 ? 2 : 1, bytes = labels + 3 * CIFAR_PLANE;
    size_t had = to->count, more = c->count / bytes;

    if (more == 0 || c->count % bytes != 0)
        return fail(err, "%s: holds %zu bytes, which are not records of %zu", c->path, c->count,
                    bytes);
    images_grow(images, part, more);
    for (size_t i = 0; i < more; i++) {
        const unsigned char *plane = c->byte + i * bytes + labels;
        uint8_t *pixel = to->pixel + (had + i) * 3 * CIFAR_PLANE;
        uint32_t label = plane[-1];

        to->label[had + i] = label;
        if (label >= images->classes)
            return fail(err, "%s: label %zu is %u, and there are %u classes", c->path, i, label,
                        images->classes);
        for (size_t p = 0; p < CIFAR_PLANE; p++)
            for (size_t colour = 0; colour < 3; colour++)
                pixel[3 * p + colour] = plane[colour * CIFAR_PLANE + p];
    }
    return true;
}

static bool load_records(struct images *images, enum text_part part, char *path, SHA2_CTX *sha256,
                         struct error *err)
{
    struct content c = {0};
    bool ok = read_content(&c, path, err) && add_records(images, part, &c, err);

    if (ok)
        hash_content(sha256, &c);
    content_free(&c);
    return ok;
}

bool images_read_cifar10(struct images *images, const char *folder, const double *settings,
                         struct error *err)
{
    SHA2_CTX sha256;
    bool ok = true;

    SHA256Init(&sha256);
    for (int file = 1; ok && file <= 5; file++)
        ok = load_records(images, TEXT_TRAIN, format_text("%s/data_batch_%d.bin", folder, file),
                          &sha256, err);
    ok = ok &&
         load_records(images, TEXT_TEST, format_text("%s/test_batch.bin", folder), &sha256, err);
    SHA256End(&sha256, images->sha256);
    return ok;
}

bool images_read_cifar100(struct images *images, const char *folder, const double *settings,
                          struct error *err)
{
    SHA2_CTX sha256;
    bool ok;

    SHA256Init(&sha256);
    ok = load_records(images, TEXT_TRAIN, format_text("%s/train.bin", folder), &sha256, err) &&
         load_records(images, TEXT_TEST, format_text("%s/test.bin", folder), &sha256, err);
    SHA256End(&sha256, images->sha256);
    return ok;
}

/* A class is a pattern of squares of a byte each; an image of it is half that and half noise. */

#define SQUARE 4

enum { CLASSES, SIDE, CHANNELS, TRAIN, TEST };

const struct setting images_synthetic_settings[] = {
    [CLASSES] = {"classes", 10, 2, 10000, "classes", WHOLE},
    [SIDE] = {"side", 32, 1, 1024, "pixels of a side", WHOLE},
    [CHANNELS] = {"channels", 3, 1, CHANNELS_MOST, "of a pixel", WHOLE},
    [TRAIN] = {"train", 2048, 1, 10000000, "images to train on", WHOLE},
    [TEST] = {"test", 512, 1, 10000000, "images of the test part", WHOLE},
    {0},
};

/* Sixteen bytes of one draw. */
static uint8_t random_byte(uint32_t purpose, uint32_t a, size_t i)
{
    struct rng_block draw = rng_block(0, RNG_IMAGES, (uint32_t)(i / 16), a, purpose, 0);

    return (uint8_t)(draw.word[i % 16 / 4] >> 8 * (i % 4));
}

static void make_part(struct images *images, enum text_part part, size_t count)
{
    struct image_part *to = &images->part[part];
    struct image_size size = images->size;
    size_t bytes = images_bytes(images), across = size.width / SQUARE + 1;

    images_grow(images, part, count);
    for (size_t i = 0; i < count; i++) {
        uint32_t label = (uint32_t)(i % images->classes);

        to->label[i] = label;
        for (size_t p = 0; p < bytes; p++) {
            size_t y = p / ((size_t)size.width * size.channels) / SQUARE;
            size_t x = p / size.channels % size.width / SQUARE;
            size_t square = (y * across + x) * size.channels + p % size.channels;
            unsigned pattern = random_byte(TEXT_PARTS, label, square);
            unsigned noise = random_byte((uint32_t)part, (uint32_t)i, p);

            to->pixel[i * bytes + p] = (uint8_t)((pattern + noise) / 2);
        }
    }
}

void images_expect_synthetic(struct images *images, const double *settings)
{
    uint32_t side = (uint32_t)settings[SIDE];

    images->classes = (uint32_t)settings[CLASSES];
    images->size = (struct image_size){side, side, (uint32_t)settings[CHANNELS]};
}

bool images_make_synthetic(struct images *images, const char *folder, const double *settings,
                           struct error *err)
{
    make_part(images, TEXT_TRAIN, (size_t)settings[TRAIN]);
    make_part(images, TEXT_TEST, (size_t)settings[TEST]);
    return true;
}
