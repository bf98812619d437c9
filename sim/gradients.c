#include "sim/gradients.h"

#include <stdlib.h>
#include <string.h>

/* What is behind "step-N.", or all of it. */
static const char *behind_step(const char *name)
{
    size_t digits;

    if (strncmp(name, "step-", 5) != 0)
        return name;
    digits = strspn(name + 5, "0123456789");
    if (digits == 0 || digits > 18 || name[5 + digits] != '.' || name[5 + digits + 1] == '\0')
        return name;
    return name + 5 + digits + 1;
}

/* What is behind "WHAT.k.", or NULL. */
static const char *behind_worker(const char *name, const char *what)
{
    size_t length = strlen(what);
    size_t digits;

    if (strncmp(name, what, length) != 0 || name[length] != '.')
        return NULL;
    name += length + 1;
    digits = strspn(name, "0123456789");
    return digits > 0 && name[digits] == '.' && name[digits + 1] != '\0' ? name + digits + 1 : NULL;
}

/* The name of a tensor that has a gradient of all workers, or of worker 0; else NULL. */
static const char *gradient_name(const struct gradients_file *f, const char *behind)
{
    if (!f->of_workers)
        return strncmp(behind, "square.", 7) != 0 ? behind : NULL;
    return strncmp(behind, "grad.0.", 7) == 0 ? behind_worker(behind, "grad") : NULL;
}

static bool open_file(struct gradients_file *f, const char *path, struct error *err)
{
    if (!safetensors_open(&f->in, path, err))
        return false;
    for (size_t i = 0; i < f->in.count && !f->of_workers; i++)
        f->of_workers = behind_worker(behind_step(f->in.entry[i].name), "grad") != NULL;
    return true;
}

static bool is_of_step(const struct gradients_step *s, const char *name)
{
    size_t length = strlen(s->prefix);

    return (size_t)(behind_step(name) - name) == length && strncmp(name, s->prefix, length) == 0;
}

/* The step that a tensor belongs to, unless it has been found. */
static void find_step(struct gradients *g, uint32_t file, const char *name)
{
    const char *note = safetensors_metadata(&g->file[file].in, "step");
    size_t length = (size_t)(behind_step(name) - name);
    struct gradients_step *s;

    for (uint32_t i = 0; i < g->steps; i++)
        if (g->step[i].file == file && is_of_step(&g->step[i], name))
            return;
    if (g->steps % 64 == 0) {
        g->step = realloc(g->step, (g->steps + 64) * sizeof(*g->step));
        CHECK(g->step != NULL);
    }
    s = &g->step[g->steps++];
    *s = (struct gradients_step){
        .number = file, .prefix = format_text("%.*s", (int)length, name), .file = file};
    if (length > 0 || note != NULL)
        s->number = strtoull(length > 0 ? name + 5 : note, NULL, 10);
}

static int by_number(const void *a, const void *b)
{
    const struct gradients_step *x = a, *y = b;

    return x->number < y->number ? -1 : x->number > y->number;
}

static bool find_steps(struct gradients *g, struct error *err)
{
    for (uint32_t f = 0; f < g->files; f++) {
        const struct gradients_file *file = &g->file[f];
        uint32_t before = g->steps;

        for (size_t i = 0; i < file->in.count; i++)
            if (gradient_name(file, behind_step(file->in.entry[i].name)) != NULL)
                find_step(g, f, file->in.entry[i].name);
        if (g->steps == before)
            return fail(err, "%s: has no gradients", file->in.path);
    }
    qsort(g->step, g->steps, sizeof(*g->step), by_number);
    for (uint32_t i = 1; i < g->steps; i++)
        if (g->step[i].number == g->step[i - 1].number)
            return fail(err, "%s: has gradients of step %llu, and so has %s",
                        g->file[g->step[i].file].in.path, (unsigned long long)g->step[i].number,
                        g->file[g->step[i - 1].file].in.path);
    return true;
}

/* A tensor of the first step.  The first one of all tells how many workers there are. */
static bool add_tensor(struct gradients *g, const struct gradients_file *f,
                       const struct safetensors_entry *entry, const char *name, struct error *err)
{
    uint32_t before = f->of_workers ? 0 : 1;
    struct gradients_tensor t = {.n = 1};
    char shape[SAFETENSORS_SHAPE];

    safetensors_shape(shape, entry->dims, entry->dim);
    if (*name == '\0')
        return fail(err, "%s: has a tensor without a name, of shape %s", f->in.path, shape);
    if (entry->n == 0 || entry->dims < before)
        return fail(err, "%s: tensor '%s' of shape %s has no gradient of a worker", f->in.path,
                    entry->name, shape);
    if (entry->dims > before + GRADIENT_DIMS)
        return fail(err, "%s: tensor '%s' of shape %s has more than %d dimensions of its own",
                    f->in.path, entry->name, shape, GRADIENT_DIMS);
    if (!f->of_workers && g->tensors > 0 && entry->dim[0] != g->workers)
        return fail(err, "%s: tensor '%s' of shape %s is of %zu workers, '%s' of %u", f->in.path,
                    entry->name, shape, entry->dim[0], g->tensor[0].name, g->workers);
    if (!f->of_workers)
        g->workers = entry->dim[0] < UINT32_MAX ? (uint32_t)entry->dim[0] : UINT32_MAX;
    t.name = format_text("%s", name);
    t.dims = entry->dims - before;
    memcpy(t.dim, entry->dim + before, t.dims * sizeof(*t.dim));
    for (uint32_t i = 0; i < t.dims; i++)
        t.n *= t.dim[i];
    if (g->tensors % 64 == 0) {
        g->tensor = realloc(g->tensor, (g->tensors + 64) * sizeof(*g->tensor));
        CHECK(g->tensor != NULL);
    }
    g->tensor[g->tensors++] = t;
    return true;
}

/* As it stands in a step's file; what: "grad", "square", or of a file with a tensor for all workers
 * "" in place of the former.  NULL if it is not there. */
static const struct safetensors_entry *find(const struct gradients *g, uint32_t step,
                                            const char *what, uint32_t worker, const char *name)
{
    const struct gradients_step *s = &g->step[step];
    const struct gradients_file *f = &g->file[s->file];
    const char *dot = *what != '\0' ? "." : "";
    const struct safetensors_entry *entry;
    char *full;

    if (f->of_workers)
        full = format_text("%s%s.%u.%s", s->prefix, what, worker, name);
    else
        full = format_text("%s%s%s%s", s->prefix, what, dot, name);
    entry = safetensors_find(&f->in, full);
    free(full);
    return entry;
}

static const char *gradient_word(const struct gradients *g, uint32_t step)
{
    return g->file[g->step[step].file].of_workers ? "grad" : "";
}

static uint32_t pieces(const struct gradients *g, uint32_t step)
{
    return g->file[g->step[step].file].of_workers ? g->workers : 1;
}

/* In the file of the first step, or of a dump as many as have a gradient. */
static bool find_tensors(struct gradients *g, struct error *err)
{
    const struct gradients_step *s = &g->step[0];
    const struct gradients_file *f = &g->file[s->file];

    for (size_t i = 0; i < f->in.count; i++) {
        const struct safetensors_entry *entry = &f->in.entry[i];
        const char *name = gradient_name(f, behind_step(entry->name));

        if (name != NULL && is_of_step(s, entry->name) && !add_tensor(g, f, entry, name, err))
            return false;
    }
    while (f->of_workers && find(g, 0, "grad", g->workers, g->tensor[0].name) != NULL)
        g->workers++;
    return true;
}

/* What a tensor is in a file, as text. */
static void shape_of(char text[SAFETENSORS_SHAPE], const struct gradients *g,
                     const struct gradients_tensor *t, bool of_workers)
{
    size_t dim[GRADIENT_DIMS + 1] = {g->workers};
    uint32_t before = of_workers ? 0 : 1;

    memcpy(dim + before, t->dim, t->dims * sizeof(*dim));
    safetensors_shape(text, t->dims + before, dim);
}

static bool check_entry(const struct gradients *g, uint32_t step, const struct gradients_tensor *t,
                        const struct safetensors_entry *entry, struct error *err)
{
    const struct gradients_file *f = &g->file[g->step[step].file];
    char wanted[SAFETENSORS_SHAPE], found[SAFETENSORS_SHAPE];

    safetensors_shape(found, entry->dims, entry->dim);
    shape_of(wanted, g, t, f->of_workers);
    return strcmp(found, wanted) == 0 ||
           fail(err, "%s: tensor '%s' is of shape %s, not of shape %s as the gradient in step %llu",
                f->in.path, entry->name, found, wanted, (unsigned long long)g->step[0].number);
}

/* Every tensor of the first step, and no others. */
static bool check_step(const struct gradients *g, uint32_t step, struct error *err)
{
    const struct gradients_file *f = &g->file[g->step[step].file];
    const unsigned long long number = g->step[step].number;
    uint32_t found = 0;

    for (uint32_t t = 0; t < g->tensors; t++)
        for (uint32_t k = 0; k < pieces(g, step); k++) {
            const struct safetensors_entry *entry =
                find(g, step, gradient_word(g, step), k, g->tensor[t].name);

            if (entry == NULL)
                return fail(err, "%s: has no gradient of '%s' of worker %u in step %llu",
                            f->in.path, g->tensor[t].name, k, number);
            if (!check_entry(g, step, &g->tensor[t], entry, err))
                return false;
        }
    for (size_t i = 0; i < f->in.count; i++)
        found += is_of_step(&g->step[step], f->in.entry[i].name) &&
                 gradient_name(f, behind_step(f->in.entry[i].name)) != NULL;
    return found == g->tensors ||
           fail(err, "%s: step %llu has %u tensors, step %llu has %u", f->in.path, number, found,
                (unsigned long long)g->step[0].number, g->tensors);
}

static bool check(struct gradients *g, struct error *err)
{
    if (!find_steps(g, err) || !find_tensors(g, err))
        return false;
    for (uint32_t i = 0; i < g->steps; i++)
        if (!check_step(g, i, err))
            return false;
    return true;
}

bool gradients_open(struct gradients *g, char *const *path, size_t paths, struct error *err)
{
    bool ok = true;

    *g = (struct gradients){.file = allocate(paths, sizeof(*g->file))};
    while (ok && g->files < paths) {
        ok = open_file(&g->file[g->files], path[g->files], err);
        g->files += ok;
    }
    ok = ok && check(g, err);
    if (!ok)
        gradients_close(g);
    return ok;
}

void gradients_close(struct gradients *g)
{
    for (uint32_t i = 0; i < g->files; i++)
        safetensors_close(&g->file[i].in);
    for (uint32_t i = 0; i < g->steps; i++)
        free(g->step[i].prefix);
    for (uint32_t i = 0; i < g->tensors; i++)
        free(g->tensor[i].name);
    free(g->file);
    free(g->step);
    free(g->tensor);
    *g = (struct gradients){0};
}

bool gradients_read(const struct gradients *g, uint32_t step, uint32_t tensor, float *to,
                    struct error *err)
{
    const struct gradients_tensor *t = &g->tensor[tensor];

    for (uint32_t k = 0; k < pieces(g, step); k++)
        if (!safetensors_read_finite(&g->file[g->step[step].file].in,
                                     find(g, step, gradient_word(g, step), k, t->name),
                                     to + k * t->n, err))
            return false;
    return true;
}

bool gradients_read_squares(const struct gradients *g, uint32_t step, uint32_t tensor, float *to,
                            struct error *err)
{
    const struct gradients_tensor *t = &g->tensor[tensor];
    const struct safetensors *in = &g->file[g->step[step].file].in;

    for (uint32_t k = 0; k < pieces(g, step); k++) {
        const struct safetensors_entry *entry = find(g, step, "square", k, t->name);

        if (entry == NULL)
            return fail(err,
                        "%s: has no squares of '%s' in step %llu, the sum over micro-batches of "
                        "what each adds to the gradient, squared",
                        in->path, t->name, (unsigned long long)g->step[step].number);
        if (!check_entry(g, step, t, entry, err) ||
            !safetensors_read_finite(in, entry, to + k * t->n, err))
            return false;
    }
    return true;
}

bool gradients_read_samples(const struct gradients *g, uint32_t step, uint32_t worker,
                            float *samples, struct error *err)
{
    const struct gradients_step *s = &g->step[step];
    const struct gradients_file *f = &g->file[s->file];
    char *name = format_text("%ssamples.%u", s->prefix, worker);
    const struct safetensors_entry *entry = f->of_workers ? safetensors_find(&f->in, name) : NULL;

    free(name);
    *samples = 1;
    return entry == NULL || entry->n != 1 || safetensors_read_finite(&f->in, entry, samples, err);
}
