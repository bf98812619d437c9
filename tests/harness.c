#include "tests/harness.h"

#include "sim/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void harness_open(struct device *dev, const char *name)
{
    struct error err = {"no such device"};

    *dev = (struct device){.threads = 2};
    if (strcmp(name, "guard") == 0 || strcmp(name, "recording") == 0) {
        dev->ops = name[0] == 'g' ? &guard_device : &recording_device;
        CHECK(dev->ops->open(dev, 0, &err));
        return;
    }
    if (!device_open(dev, name, 2, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

const char *const *harness_devices(void)
{
    static const char *devices[5] = {"cpu", "guard", "recording"};

    devices[3] = getenv("GRADPRESS_TEST_DEVICE");
    return devices;
}

struct config *harness_config(const char *json, const char *const *flags)
{
    struct config *c = allocate(1, sizeof(*c));
    char path[] = "/tmp/gradpress-test-XXXXXX.json";
    struct error err;
    bool misuse;
    char *argv[64];
    int argc = 0;
    int file = mkstemps(path, 5);

    CHECK(file >= 0 && write(file, json, strlen(json)) == (ssize_t)strlen(json));
    close(file);
    argv[argc++] = path;
    for (; flags != NULL && *flags != NULL; flags++)
        argv[argc++] = format_text("%s", *flags);
    if (!config_parse(c, argc, argv, &misuse, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    while (argc > 1)
        free(argv[--argc]);
    unlink(path);
    return c;
}

void harness_config_free(struct config *c)
{
    config_free(c);
    free(c);
}

static void give_tokens(struct text_tokens *part, const uint32_t *token, size_t count)
{
    part->count = count;
    part->token = allocate(count, sizeof(*token));
    memcpy(part->token, token, count * sizeof(*token));
}

void harness_train(struct train *t, const struct config *c, const char *device, uint32_t words,
                   const uint32_t *token, size_t count)
{
    *t = (struct train){.config = c};
    t->data.text.words = words;
    t->data.text.word = allocate(words, sizeof(*t->data.text.word));
    for (int part = 0; part < TEXT_PARTS; part++)
        give_tokens(&t->data.text.part[part], token, count);
    harness_prepare(t, device);
}

void harness_prepare(struct train *t, const char *device)
{
    struct error err;

    harness_open(&t->dev, device);
    if (!train_plan(t, &err)) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
    train_prepare(t);
}

void harness_stop(struct train *t, struct config *c)
{
    train_destroy(t);
    harness_config_free(c);
}

void harness_steps(struct train *t, uint32_t steps)
{
    for (uint32_t i = 0; i < steps; i++)
        train_step(t, (uint32_t)(i / t->steps), i % t->steps);
}

void harness_evaluation(struct train *t, const uint32_t *token, size_t count)
{
    stream_destroy(&t->data.part[TEXT_VALID], &t->dev);
    stream_create(&t->data.part[TEXT_VALID], &t->dev, token, count, t->config->evaluate.batch);
}

uint32_t *harness_tokens(uint64_t seed, uint32_t words, size_t count)
{
    uint32_t *token = allocate(count, sizeof(*token));

    for (size_t i = 0; i < count; i++)
        token[i] = rng_block(seed, RNG_TEST, (uint32_t)i, 0, 0, 0).word[0] % words;
    return token;
}

void harness_floats(uint64_t seed, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = 2 * rng_uniform(rng_block(seed, RNG_TEST, (uint32_t)i, 1, 0, 0).word[0]) - 1;
}

float *harness_download(struct train *t, const float *from, size_t n)
{
    float *x = allocate(n, sizeof(*x));

    device_download(&t->dev, x, from, n * sizeof(*x));
    return x;
}

void golden_open(struct golden *g, const char *name)
{
    char path[256];
    FILE *file;
    long size;

    snprintf(path, sizeof(path), "tests/golden/%s.bin", name);
    file = fopen(path, "rb");
    CHECK(file != NULL && "tests run in the source's root");
    CHECK(fseek(file, 0, SEEK_END) == 0);
    size = ftell(file);
    rewind(file);
    g->size = (size_t)size;
    g->bytes = allocate(g->size, 1);
    CHECK(fread(g->bytes, 1, g->size, file) == g->size);
    fclose(file);
}

void golden_close(struct golden *g)
{
    free(g->bytes);
    *g = (struct golden){0};
}

static uint32_t word(const struct golden *g, size_t at)
{
    uint32_t value;

    CHECK(at + 4 <= g->size);
    memcpy(&value, g->bytes + at, 4);
    return value;
}

/* Where the values of a record begin. */
static size_t find(const struct golden *g, char kind, const char *name, size_t *count)
{
    for (size_t at = 0; at < g->size;) {
        size_t length = word(g, at);
        const char *found = (const char *)g->bytes + at + 4;

        at += 4 + length;
        *count = word(g, at);
        at += 4;
        if (length == strlen(name) + 2 && found[0] == kind &&
            memcmp(found + 2, name, length - 2) == 0)
            return at;
        at += *count * 4;
    }
    fprintf(stderr, "no golden record %c:%s\n", kind, name);
    abort();
}

static void *values(const struct golden *g, char kind, const char *name, size_t *count)
{
    size_t n;
    size_t at = find(g, kind, name, &n);
    void *copy = allocate(n, 4);

    CHECK(at + n * 4 <= g->size);
    memcpy(copy, g->bytes + at, n * 4);
    if (count != NULL)
        *count = n;
    return copy;
}

float *golden_floats(const struct golden *g, const char *name, size_t *count)
{
    return values(g, 'f', name, count);
}

uint32_t *golden_integers(const struct golden *g, const char *name, size_t *count)
{
    return values(g, 'u', name, count);
}

uint32_t golden_integer(const struct golden *g, const char *name)
{
    size_t count;

    return word(g, find(g, 'u', name, &count));
}

float golden_float(const struct golden *g, const char *name)
{
    size_t count;

    return bits_float(word(g, find(g, 'f', name, &count)));
}

void require_close(const char *what, const float *a, const float *b, size_t n, double tolerance)
{
    double most = 0;
    double off = 0;
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);

        most = fabs((double)b[i]) > most ? fabs((double)b[i]) : most;
        if (!(d <= off)) {
            off = d;
            at = i;
        }
    }
    if (!(off <= tolerance * most))
        fail_msg("%s: element %zu is %.9g, not %.9g (the largest is %.3g, so off by %.2g of it)",
                 what, at, (double)a[at], (double)b[at], most, off / most);
}
