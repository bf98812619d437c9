/*
 * fuzz_safetensors.c -- a file of tensors: read as it stands, as the weights of a small model, and,
 * if all of it can be read, written and read again.
 */
#include "tests/fuzz/fuzz.h"

#include "sim/graph.h"
#include "sim/safetensors.h"
#include "sim/weights.h"

#include <stdlib.h>
#include <string.h>

/* Copies of the values of all tensors; false if one is of a type that cannot be read. */
static bool read_all(const struct safetensors *s, struct safetensors_tensor *tensor, float **value)
{
    bool all = true;

    for (size_t i = 0; i < s->count; i++) {
        const struct safetensors_entry *e = &s->entry[i];
        struct error err = {""};

        CHECK(safetensors_find(s, e->name) == e);
        value[i] = allocate(e->n, sizeof(**value));
        tensor[i] =
            (struct safetensors_tensor){.name = e->name, .dims = e->dims, .value = value[i]};
        memcpy(tensor[i].dim, e->dim, sizeof(e->dim));
        if (!safetensors_read(s, e, value[i], &err)) {
            CHECK(err.text[0] != '\0');
            all = false;
        }
    }
    return all;
}

static void check_written(const char *path, const struct safetensors_tensor *tensor, size_t count)
{
    struct safetensors s;
    struct error err = {""};

    CHECK(safetensors_open(&s, path, &err));
    CHECK(s.count == count);
    for (size_t i = 0; i < count; i++) {
        const struct safetensors_entry *e = safetensors_find(&s, tensor[i].name);
        float *value;

        CHECK(e != NULL && e->dims == tensor[i].dims);
        CHECK(memcmp(e->dim, tensor[i].dim, sizeof(e->dim)) == 0);
        value = allocate(e->n, sizeof(*value));
        CHECK(safetensors_read(&s, e, value, &err));
        CHECK(memcmp(value, tensor[i].value, e->n * sizeof(*value)) == 0);
        free(value);
    }
    safetensors_close(&s);
}

static void check_tensors(const struct safetensors *s)
{
    struct safetensors_tensor *tensor = allocate(s->count, sizeof(*tensor));
    float **value = allocate(s->count, sizeof(*value));
    struct error err = {""};

    if (read_all(s, tensor, value)) {
        const char *text = safetensors_metadata(s, "format");
        struct safetensors_note note = {"format", text};
        char *path = format_text("%s/written", fuzz_folder());

        CHECK(safetensors_write(path, tensor, s->count, &note, text != NULL, &err));
        check_written(path, tensor, s->count);
        free(path);
    }
    for (size_t i = 0; i < s->count; i++)
        free(value[i]);
    free(value);
    free(tensor);
}

/* A matrix a [3, 2] and a vector b [4]. */
static void check_weights(const char *path, const char *sha256)
{
    struct parameters *p = allocate(1, sizeof(*p));
    struct error err = {""};
    float *params;

    p->item[0] = (struct parameter){.name = "a", .dims = 2, .dim = {3, 2}, .n = 6};
    p->item[1] = (struct parameter){.name = "b", .dims = 1, .dim = {4}, .n = 4, .at = 6};
    p->count = 2;
    p->length = 10;
    params = allocate(p->length, sizeof(*params));
    if (!weights_load(p, path, sha256, params, &err))
        CHECK(err.text[0] != '\0');
    free(params);
    free(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *path = fuzz_file("weights", (struct part){data, size});
    struct safetensors s;
    struct error err = {""};
    char sha256[65];

    if (safetensors_open(&s, path, &err)) {
        CHECK(safetensors_hash(&s, sha256, &err));
        check_tensors(&s);
        check_weights(path, sha256);
    } else {
        CHECK(err.text[0] != '\0');
    }
    safetensors_close(&s);
    free(path);
    return 0;
}
