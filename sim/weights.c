#include "sim/weights.h"

#include "sim/graph.h"
#include "sim/safetensors.h"

#include <stdlib.h>
#include <string.h>

static bool is_of_model(const struct parameters *parameters, const char *name)
{
    for (uint32_t i = 0; i < parameters->count; i++)
        if (strcmp(parameters->item[i].name, name) == 0)
            return true;
    return false;
}

static bool load_tensor(const struct safetensors *s, const struct parameter *p, float *to,
                        struct error *err)
{
    const struct safetensors_entry *entry = safetensors_find(s, p->name);
    char wanted[SAFETENSORS_SHAPE], found[SAFETENSORS_SHAPE];

    safetensors_shape(wanted, p->dims, p->dim);
    if (entry == NULL)
        return fail(err, "%s: has no tensor '%s', of shape %s in the model", s->path, p->name,
                    wanted);
    safetensors_shape(found, entry->dims, entry->dim);
    if (strcmp(found, wanted) != 0)
        return fail(err, "%s: tensor '%s' is of shape %s, in the model of shape %s", s->path,
                    p->name, found, wanted);
    /* With any other every loss is none, and what began it would be forgotten. */
    return safetensors_read_finite(s, entry, to, err);
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
    memset(params, 0, parameters->length * sizeof(*params));
    ok = same_content(&s, sha256, err);
    for (uint32_t i = 0; ok && i < parameters->count; i++)
        ok = load_tensor(&s, &parameters->item[i], params + parameters->item[i].at, err);
    ok = ok && no_others(&s, parameters, err);
    safetensors_close(&s);
    return ok;
}

size_t weights_bytes(const struct parameters *parameters)
{
    size_t n = 0;

    for (uint32_t i = 0; i < parameters->count; i++)
        n += parameters->item[i].n;
    return n * sizeof(float);
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
    struct safetensors_tensor *tensors = allocate(parameters->count, sizeof(*tensors));
    bool ok;

    for (uint32_t i = 0; i < parameters->count; i++)
        tensors[i] = weights_tensor(parameters, i, params);
    ok = safetensors_write(path, tensors, parameters->count, metadata, notes, err);
    free(tensors);
    return ok;
}
