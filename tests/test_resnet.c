/*
 * test_resnet -- a residual network against the numbers of PyTorch in tests/golden, from a file of
 * weights in PyTorch's order and back.
 */
#include "tests/harness.h"

#include "sim/safetensors.h"
#include "sim/weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SIDE  8
#define TRAIN 12
#define TEST  6
#define STEPS 3

static const char *device = "cpu";

/* tests/golden/make_resnet.py has the same hash. */
static uint32_t hash(uint32_t stream, size_t i)
{
    uint32_t h = (uint32_t)i * 2654435761u + stream * 2246822519u + 12345u;

    h = (h ^ h >> 15) * 2246822519u;
    return h ^ h >> 13;
}

static float initial(const struct parameter *p, uint32_t number, size_t i)
{
    float u = (float)(hash(number, i) >> 8) * 5.9604644775390625e-8f;
    size_t length = strlen(p->name);

    if (p->dims > 1)
        return (2 * u - 1) / 8;
    return strcmp(p->name + length - 7, ".weight") == 0 ? u + 0.5f : (2 * u - 1) / 4;
}

/* PyTorch's numbers of tensors are in the order of its modules: a downsample is behind bn2. */
static uint32_t number_of(const struct parameters *all, const char *name)
{
    uint32_t before = 0;
    const char *part = strstr(name, "downsample"), *norm = strstr(name, ".bn2.");

    for (uint32_t i = 0; strcmp(all->item[i].name, name) != 0; i++)
        before++;
    if (part != NULL) /* ours stands between conv2 and bn2 */
        return before + 2;
    if (norm != NULL && (strncmp(name, "layer2", 6) == 0 || strncmp(name, "layer3", 6) == 0))
        return before - 3;
    return before;
}

/* In PyTorch's order, as a file of its has it. */
static void write_weights(const struct parameters *all, const char *path)
{
    struct safetensors_tensor tensors[PARAMETERS_MOST];
    float *values[PARAMETERS_MOST] = {NULL};
    struct error err;

    for (uint32_t i = 0; i < all->count + all->keeps; i++) {
        const struct parameter *p = i < all->count ? &all->item[i] : NULL;
        const struct kept *kept = p == NULL ? &all->kept[i - all->count] : NULL;
        size_t n = p != NULL ? p->n : kept->n;

        values[i] = allocate(n, sizeof(float));
        for (size_t e = 0; e < n; e++)
            values[i][e] = p != NULL ? initial(p, number_of(all, p->name), e) : kept->initial;
        tensors[i] = (struct safetensors_tensor){
            .name = p != NULL ? p->name : kept->name, .dims = 1, .dim = {n}, .value = values[i]};
        if (p != NULL && p->dims == 4)
            memcpy(tensors[i].dim, (size_t[]){p->dim[0], p->dim[3], p->dim[1], p->dim[2]},
                   sizeof(p->dim));
        else if (p != NULL)
            memcpy(tensors[i].dim, p->dim, sizeof(p->dim));
        tensors[i].dims = p != NULL ? p->dims : 1;
    }
    if (!safetensors_write(path, tensors, all->count + all->keeps, NULL, 0, &err))
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < all->count + all->keeps; i++)
        free(values[i]);
}

static void put_images(struct images *images)
{
    size_t bytes = images_bytes(images);

    for (size_t i = 0; i < (TRAIN + TEST) * bytes; i++) {
        struct image_part *p = &images->part[i < TRAIN * bytes ? TEXT_TRAIN : TEXT_TEST];

        p->pixel[i < TRAIN * bytes ? i : i - TRAIN * bytes] = (uint8_t)(hash(1000, i) >> 24);
    }
    for (uint32_t i = 0; i < TRAIN + TEST; i++)
        images->part[i < TRAIN ? TEXT_TRAIN : TEXT_TEST].label[i < TRAIN ? i : i - TRAIN] =
            hash(1001, i) % 10;
    images_measure(images);
}

static void load(struct train *t, const char *path)
{
    float *params = allocate(graph_floats(&t->parameters), sizeof(*params));
    char sha256[65];
    struct error err;

    if (!safetensors_hash_file(path, sha256, &err) ||
        !weights_load(&t->parameters, path, sha256, params, &err))
        fail_msg("%s", err.text);
    device_upload(&t->dev, t->workers.params, params,
                  graph_floats(&t->parameters) * sizeof(*params));
    free(params);
}

static struct config *begin(struct train *t)
{
    struct config *c = harness_config(
        "{\"model\": {\"name\": \"resnet\", \"depth\": 8}, \"data\": {\"name\": \"synthetic\","
        " \"side\": 8, \"train\": 12, \"test\": 6}, \"evaluate\": {\"batch\": 4}, \"batch\": 12,"
        " \"epochs\": 3, \"schedule\": {\"0\": {\"lr\": 0.05, \"momentum\": 0.9, \"nesterov\": "
        "true,"
        " \"weight_decay\": 0.01}}}",
        NULL);
    char path[] = "/tmp/test_resnet-XXXXXX.safetensors";
    int file = mkstemps(path, 12);
    struct error err;

    CHECK(file >= 0);
    close(file);
    *t = (struct train){.config = c};
    train_source(t);
    assert_true(t->data.set->kind->load(&t->data, "", &err));
    put_images(&t->data.images);
    harness_prepare(t, device);
    write_weights(&t->parameters, path);
    load(t, path);
    unlink(path);
    return c;
}

/* A tensor in PyTorch's order: its norm and the values that the file has. */
static void require_tensor(const struct golden *g, const char *what, const struct safetensors *file,
                           const char *name)
{
    const struct safetensors_entry *entry = safetensors_find(file, name);
    char *samples = format_text("%s%s", what, name), *norm = format_text("%s%s.norm", what, name);
    float *value, *want, *got, length;
    double square = 0;
    size_t count, step;
    struct error err;

    assert_non_null(entry);
    value = allocate(entry->n, sizeof(*value));
    assert_true(safetensors_read(file, entry, value, &err));
    want = golden_floats(g, samples, &count);
    got = allocate(count, sizeof(*got));
    step = (entry->n + 23) / 24;
    for (size_t i = 0; i < entry->n; i++) {
        square += pow((double)value[i], 2);
        if (i % step == 0)
            got[i / step] = value[i];
    }
    require_close(name, got, want, count, 5e-5);
    length = golden_float(g, norm);
    assert_true(fabs(sqrt(square) - (double)length) <= 2e-5 * (double)length);
    free(value);
    free(want);
    free(got);
    free(samples);
    free(norm);
}

/* As --save writes them. */
static void require_all(struct train *t, const struct golden *g, const char *what,
                        const float *on_device, bool kept)
{
    char path[] = "/tmp/test_resnet-XXXXXX.safetensors";
    float *arena = allocate(graph_floats(&t->parameters), sizeof(*arena));
    int made = mkstemps(path, 12);
    struct safetensors file;
    struct error err;

    CHECK(made >= 0);
    close(made);
    device_download(&t->dev, arena, on_device,
                    (kept ? graph_floats(&t->parameters) : t->parameters.length) * sizeof(*arena));
    if (!weights_save(&t->parameters, path, arena, NULL, 0, &err) ||
        !safetensors_open(&file, path, &err))
        fail_msg("%s", err.text);
    for (uint32_t i = 0; i < t->parameters.count; i++)
        require_tensor(g, what, &file, t->parameters.item[i].name);
    for (uint32_t i = 0; i < t->parameters.keeps && kept; i++)
        require_tensor(g, what, &file, t->parameters.kept[i].name);
    safetensors_close(&file);
    unlink(path);
    free(arena);
}

static double taken(struct train *t, const uint32_t *count)
{
    uint32_t each[TRAIN];
    double sum = 0;

    device_download(&t->dev, each, count, sizeof(each));
    for (int i = 0; i < TRAIN; i++)
        sum += each[i];
    return sum;
}

static void three_steps_are_pytorchs(void **state)
{
    struct golden g;
    struct train t;
    struct config *c = begin(&t);
    double before = 0, top1 = 0, test_loss;
    struct score score;
    uint32_t *top;
    float *loss;
    size_t steps;

    golden_open(&g, "resnet");
    loss = golden_floats(&g, "loss", &steps);
    top = golden_integers(&g, "top1", &steps);
    assert_int_equal(steps, STEPS);
    for (uint32_t step = 0; step < STEPS; step++) {
        double sum = 0;

        assert_int_equal(train_step(&t, step, 0), TRAIN);
        device_download(&t.dev, t.loss, t.workers.loss_sum, t.loss_rows * sizeof(*t.loss));
        for (size_t i = 0; i < t.loss_rows; i++)
            sum += t.loss[i];
        assert_true(fabs((sum - before) / TRAIN - (double)loss[step]) < 5e-5 * (double)loss[step]);
        before = sum;
        top1 += top[step];
        assert_true(taken(&t, t.workers.top[0]) == top1);
        if (step == 0)
            require_all(&t, &g, "grad.", t.workers.lane[0].slab, false);
    }
    require_all(&t, &g, "final.", t.workers.params, true);
    score = train_evaluate(&t, TEXT_TEST, t.workers.params);
    test_loss = (double)golden_float(&g, "test_loss");
    assert_true(fabs(score.loss - test_loss) < 5e-5 * test_loss);
    assert_true(fabs(score.top1 * TEST - golden_integer(&g, "test_top1")) < 1e-9);
    assert_true(fabs(score.top5 * TEST - golden_integer(&g, "test_top5")) < 1e-9);
    free(loss);
    free(top);
    golden_close(&g);
    train_destroy(&t);
    harness_config_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(three_steps_are_pytorchs)};
    int failed = 0;

    for (const char *const *d = harness_devices(); *d != NULL; d++) {
        device = *d;
        failed += cmocka_run_group_tests_name(device, tests, NULL, NULL);
    }
    return failed;
}
