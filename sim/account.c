#include "sim/account.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker.h"

static struct call call_of(const struct layout *l, double ratio)
{
    return (struct call){.layout = l, .ratio_most = ratio};
}

size_t account_entries(const struct method *m, const struct layout *l, uint32_t tensor,
                       double ratio)
{
    struct call call = call_of(l, ratio);

    return method_entries(m, &call, tensor);
}

static bool has_places(const struct method *m, size_t n, double entries)
{
    return entries < (double)n && !m->compressor->agreed && !m->compressor->no_indices;
}

static double log2_choose(double n, double k)
{
    return (lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)) / log(2);
}

/* Of a value, whatever it is. */
static double least_bits(const struct code_form *form)
{
    return form->levels > 0 ? log2(2.0 * form->levels + 1) : form->bits;
}

/* Some of them have no place of their own. */
static double scalars_of(const struct code_form *form, double entries)
{
    return code_scalars(form, (uint32_t)ceil(entries));
}

static double framework_bytes(const struct method *m, size_t n, double entries)
{
    struct code_form form = method_form(m);
    bool indexed = has_places(m, n, entries);
    uint32_t value_bytes = (form.bits + 7) / 8;

    return entries * (value_bytes + (indexed ? 4 : 0)) + 4 * scalars_of(&form, entries);
}

static double bound_bytes(const struct method *m, size_t n, double entries)
{
    struct code_form form = method_form(m);
    double bits = entries * least_bits(&form) + 32 * scalars_of(&form, entries);

    if (has_places(m, n, entries))
        bits += log2_choose((double)n, entries);
    return bits / 8;
}

struct by_rule account_tensor(const struct method *m, const struct layout *l, uint32_t tensor,
                              double ratio)
{
    size_t n = l->n[tensor];
    double entries = (double)account_entries(m, l, tensor, ratio);
    struct call call = call_of(l, ratio);
    struct by_rule bytes = account_counted(m, n, entries);

    if (!method_paper_sent(m))
        bytes.paper = method_paper_bytes(m, &call, tensor, ratio);
    return bytes;
}

struct by_rule account_counted(const struct method *m, size_t n, double entries)
{
    return (struct by_rule){.paper =
                                method_paper_sent(m) ? method_paper_bytes_sent(m, entries, 1) : 0,
                            .framework = framework_bytes(m, n, entries),
                            .bound = bound_bytes(m, n, entries)};
}

struct by_rule account_sum(struct by_rule a, struct by_rule b)
{
    return (struct by_rule){a.paper + b.paper, a.framework + b.framework, a.bound + b.bound};
}

void account_create(struct account *a, const struct workers *w)
{
    *a = (struct account){0};
    a->step = allocate(w->all.count, sizeof(*a->step));
    a->sum = allocate(w->all.count, sizeof(*a->sum));
}

void account_destroy(struct account *a)
{
    free(a->step);
    free(a->sum);
    *a = (struct account){0};
}

static void weigh_step(struct account *a, const struct workers *w, double ratio)
{
    for (uint32_t i = 0; i < w->all.count; i++) {
        double whole = 4 * (double)w->all.n[i];

        a->step[i] = i < w->compressed.count ? account_tensor(&w->method, &w->compressed, i, ratio)
                                             : (struct by_rule){whole, whole, whole};
    }
    a->ratio = ratio;
}

void account_step(struct account *a, const struct workers *w, double ratio)
{
    if (a->steps == 0)
        memset(a->sum, 0, w->all.count * sizeof(*a->sum));
    if (ratio != a->ratio)
        weigh_step(a, w, ratio);
    for (uint32_t i = 0; i < w->all.count; i++)
        a->sum[i] = account_sum(a->sum[i], a->step[i]);
    a->steps++;
}

const struct by_rule *account_take(struct account *a, const struct workers *w,
                                   const struct traffic *traffic)
{
    double steps = (double)a->steps;

    for (uint32_t i = 0; method_counted(&w->method) && i < w->compressed.count; i++) {
        double entries = (double)traffic[i].entries / (w->count * steps);
        struct by_rule mean = account_counted(&w->method, w->all.n[i], entries);

        if (method_paper_sent(&w->method))
            a->sum[i].paper = steps * mean.paper;
        a->sum[i].framework = steps * mean.framework;
        a->sum[i].bound = steps * mean.bound;
    }
    a->steps = 0;
    return a->sum;
}
