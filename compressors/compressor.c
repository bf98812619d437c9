#include "compressors/compressor.h"

#include <string.h>

extern const struct compressor dgc_compressor;
extern const struct compressor gradient_dropping_compressor;
extern const struct compressor none_compressor;
extern const struct compressor topk_compressor;

const struct compressor *const compressors[] = {
    &dgc_compressor, &gradient_dropping_compressor, &none_compressor, &topk_compressor, NULL,
};

const struct compressor *compressor_find(const char *name)
{
    for (const struct compressor *const *c = compressors; *c != NULL; c++)
        if (strcmp((*c)->name, name) == 0)
            return *c;
    return NULL;
}
