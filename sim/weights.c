#include "sim/weights.h"

#include "sim/graph.h"
#include "sim/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* PyTorch counts the batches of a norm; nothing here goes by it. */
static bool is_batch_count(const struct parameters *parameters, const char *name)
{
    static const char counted[] = ".num_batches_tracked", kept[] = ".running_mean";
    size_t length = strlen(name), end = strlen(counted);

    for (uint32_t i = 0; i < parameters->keeps && length > end; i++) {
        const char *known = parameters->kept[i].name;

        if (strcmp(name + length - end, counted) == 0 && strncmp(known, name, length - end) == 0 &&
            strcmp(known + length - end, kept) == 0)
            return true;
    }
    return false;
}

static bool is_of_model(const struct parameters *parameters, const char *name)
{
    for (uint32_t i = 0; i < parameters->count; i++)
        if (strcmp(parameters->item[i].name, name) == 0)
            return true;
    for (uint32_t i = 0; i < parameters->keeps; i++)
        if (strcmp(parameters->kept[i].name, name) == 0)
            return true;
    return is_batch_count(parameters, name);
}

/* shape: how the model has it. */
static bool read_tensor(const struct safetensors *s, const char *name, const char *shape, float *to,
                        struct error *err)
{
    const struct safetensors_entry *entry = safetensors_find(s, name);
    char found[SAFETENSORS_SHAPE];

    if (entry == NULL)
        return fail(err, "%s: has no tensor '%s', of shape %s in the model", s->path, name, shape);
    safetensors_shape(found, entry->dims, entry->dim);
    if (strcmp(found, shape) != 0)
        return fail(err, "%s: tensor '%s' is of shape %s, in the model of shape %s", s->path, name,
                    found, shape);
    return safetensors_read_finite(s, entry, to, err);
}

/* Filters in a file: out, in, height, width, or flat, as a matrix. */
static struct safetensors_tensor in_file(const struct parameter *p)
{
    struct safetensors_tensor t = {.name = p->name, .dims = p->dims};

    memcpy(t.dim, p->dim, sizeof(p->dim));
    if (p->dims == 4 && p->flat) {
        t.dims = 2;
        t.dim[1] = p->dim[1] * p->dim[2] * p->dim[3];
    } else if (p->dims == 4) {
        t.dim[1] = p->dim[3];
        t.dim[2] = p->dim[1];
        t.dim[3] = p->dim[2];
    }
    return t;
}

/* Values in the order of a file from those in memory, or the other way round. */
static void reorder(const struct parameter *p, const float *from, float *to, bool from_file)
{
    size_t pixels = p->dim[1] * p->dim[2], channels = p->dim[3];

    for (size_t f = 0; f < p->dim[0]; f++) {
        for (size_t i = 0; i < pixels; i++) {
            for (size_t c = 0; c < channels; c++) {
                size_t memory = (f * pixels + i) * channels + c;
                size_t file = (f * channels + c) * pixels + i;

                to[from_file ? memory : file] = from[from_file ? file : memory];
            }
        }
    }
}

static bool load_tensor(const struct safetensors *s, const struct parameter *p, float *to,
                        struct error *err)
{
    struct safetensors_tensor t = in_file(p);
    char shape[SAFETENSORS_SHAPE];
    float *read;
    bool ok;

    safetensors_shape(shape, t.dims, t.dim);
    if (p->dims != 4)
        return read_tensor(s, p->name, shape, to, err);
    read = allocate(p->n, sizeof(*read));
    ok = read_tensor(s, p->name, shape, read, err);
    if (ok)
        reorder(p, read, to, true);
    free(read);
    return ok;
}

static bool load_kept(const struct safetensors *s, const struct kept *kept, float *to,
                      struct error *err)
{
    char shape[SAFETENSORS_SHAPE];

    safetensors_shape(shape, 1, &kept->n);
    return read_tensor(s, kept->name, shape, to, err);
}

static bool no_others(const struct safetensors *s, const struct parameters *parameters,
                      struct error *err)
{
    for (size_t i = 0; i < s->count; i++) {
        const struct safetensors_entry *entry = &s->entry[i];
        char found[SAFETENSORS_SHAPE];

        safetensors_shape(found, entry->dims, entry->dim);
        if (!is_of_model(parameters, entry->name))
            return fail(err, "%s: tensor '%.100s' of shape %s is not in the model", s->path,
                        entry->name, found);
    }
    return true;
}

static bool same_content(const struct safetensors *s, const char *sha256, struct error *err)
{
    char found[65];

    if (!safetensors_hash(s, found, err))
        return false;
    return strcmp(found, sha256) == 0 ||
           fail(err, "%s: was changed since the run's key was made of it", s->path);
}

bool weights_load(const struct parameters *parameters, const char *path, const char *sha256,
                  float *params, struct error *err)
{
    struct safetensors s;
    bool ok;

    if (!safetensors_open(&s, path, err))
        return false;
    memset(params, 0, graph_floats(parameters) * sizeof(*params));
    ok = same_content(&s, sha256, err);
    for (uint32_t i = 0; ok && i < parameters->count; i++)
        ok = load_tensor(&s, &parameters->item[i], params + parameters->item[i].at, err);
    for (uint32_t i = 0; ok && i < parameters->keeps; i++)
        ok = load_kept(&s, &parameters->kept[i],
                       params + parameters->length + parameters->kept[i].at, err);
    ok = ok && no_others(&s, parameters, err);
    safetensors_close(&s);
    return ok;
}

size_t weights_bytes(const struct parameters *parameters)
{
    size_t n = 0;

    for (uint32_t i = 0; i < parameters->count; i++)
        n += parameters->item[i].n;
    return (n + parameters->kept_length) * sizeof(float);
}

struct safetensors_tensor weights_tensor(const struct parameters *parameters, uint32_t i,
                                         const float *arena)
{
    const struct parameter *p = &parameters->item[i];
    struct safetensors_tensor t = {.name = p->name, .dims = p->dims, .value = arena + p->at};

    CHECK(p->dims <= ARRAY_LENGTH(p->dim));
    memcpy(t.dim, p->dim, sizeof(p->dim));
    return t;
}

bool weights_save(const struct parameters *parameters, const char *path, const float *params,
                  const struct safetensors_note *metadata, size_t notes, struct error *err)
{
    uint32_t count = parameters->count, all = count + parameters->keeps;
    struct safetensors_tensor *tensors = allocate(all, sizeof(*tensors));
    float *values = allocate(parameters->length, sizeof(*values));
    bool ok;

    for (uint32_t i = 0; i < count; i++) {
        const struct parameter *p = &parameters->item[i];

        tensors[i] = in_file(p);
        tensors[i].value = p->dims == 4 ? values + p->at : params + p->at;
        if (p->dims == 4)
            reorder(p, params + p->at, values + p->at, false);
    }
    for (uint32_t i = 0; i < parameters->keeps; i++) {
        const struct kept *kept = &parameters->kept[i];

        tensors[count + i] =
            (struct safetensors_tensor){.name = kept->name,
                                        .dims = 1,
                                        .dim = {kept->n},
                                        .value = params + parameters->length + kept->at};
    }
    ok = safetensors_write(path, tensors, all, metadata, notes, err);
    free(values);
    free(tensors);
    return ok;
}
