#include "compressors/compressor.h"

#include <string.h>

extern const struct compressor adacomp_compressor;
extern const struct compressor clt_k_compressor;
extern const struct compressor dgc_compressor;
extern const struct compressor gradient_dropping_compressor;
extern const struct compressor gtopk_compressor;
extern const struct compressor none_compressor;
extern const struct compressor powersgd_compressor;
extern const struct compressor randomk_compressor;
extern const struct compressor slice_compressor;
extern const struct compressor threshold_compressor;
extern const struct compressor topk_compressor;
extern const struct compressor variance_compressor;

const struct compressor *const compressors[] = {
    &adacomp_compressor,
    &clt_k_compressor,
    &dgc_compressor,
    &gradient_dropping_compressor,
    &gtopk_compressor,
    &none_compressor,
    &powersgd_compressor,
    &randomk_compressor,
    &slice_compressor,
    &threshold_compressor,
    &topk_compressor,
    &variance_compressor,
    NULL,
};

extern const struct quantiser bf16_quantiser;
extern const struct quantiser efsignsgd_quantiser;
extern const struct quantiser fp16_quantiser;
extern const struct quantiser natural_quantiser;
extern const struct quantiser qsgd_quantiser;
extern const struct quantiser signsgd_quantiser;
extern const struct quantiser signum_quantiser;
extern const struct quantiser terngrad_quantiser;

const struct quantiser *const quantisers[] = {
    &bf16_quantiser,    &efsignsgd_quantiser, &fp16_quantiser,
    &natural_quantiser, &qsgd_quantiser,      &signsgd_quantiser,
    &signum_quantiser,  &terngrad_quantiser,  NULL,
};

static const struct {
    const char *name, *spec;
} aliases[] = {
    {"varbased", "variance:original=1"},
    {"adacomp2", "adacomp:original=1,sigmas=60"},
    {"efsignadacomp", "adacomp:original=1+efsignsgd"},
    {"efsigntopk", "topk+efsignsgd"},
    {"terngradadacomp", "adacomp:original=1+terngrad"},
    {"terngradtopk", "topk+terngrad"},
};

const struct compressor *compressor_find(const char *name)
{
    for (const struct compressor *const *c = compressors; *c != NULL; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}

const struct quantiser *quantiser_find(const char *name)
{
    for (const struct quantiser *const *q = quantisers; *q != NULL; q++)
        if (strcmp((*q)->name, name) == 0)
            return *q;
    return NULL;
}

char *compressor_alias(const char *spec)
{
    size_t name = strcspn(spec, ":+");

    for (size_t i = 0; i < ARRAY_LENGTH(aliases); i++) {
        const char *of = aliases[i].spec;
        size_t first = strcspn(of, "+");
        const char *own = spec + name;

        if (strlen(aliases[i].name) != name || strncmp(aliases[i].name, spec, name) != 0)
            continue;
        if (*own == ':' && memchr(of, ':', first) != NULL)
            return format_text("%.*s,%s%s", (int)first, of, own + 1, of + first);
        return format_text("%.*s%s%s", (int)first, of, own, of + first);
    }
    return NULL;
}
