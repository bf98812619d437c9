#include "models/model.h"

#include <string.h>

extern const struct model lstm_model;

const struct model *const models[] = {
    &lstm_model,
    NULL,
};

const struct model *model_find(const char *name)
{
    for (const struct model *const *m = models; *m != NULL; m++)
        if (strcmp((*m)->name, name) == 0)
            return *m;
    return NULL;
}
