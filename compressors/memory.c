#include "compressors/memory.h"

#include <string.h>

extern const struct memory dgc_memory;
extern const struct memory low_pass_memory;
extern const struct memory momentum_memory;
extern const struct memory none_memory;
extern const struct memory residual_memory;

const struct memory *const memories[] = {
    &dgc_memory, &low_pass_memory, &momentum_memory, &none_memory, &residual_memory, NULL,
};

const struct memory *memory_find(const char *name)
{
    for (const struct memory *const *m = memories; *m != NULL; m++)
        if (strcmp((*m)->name, name) == 0)
            return *m;
    return NULL;
}

uint32_t memory_slabs(const struct memory *m)
{
    uint32_t count = 0;

    while (m->slab_names[count] != NULL)
        count++;
    return count;
}
