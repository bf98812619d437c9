#include "models/model.h"

#include <string.h>

extern const struct model lenet_model, lstm_model, resnet_model, resnet_imagenet_model, vgg_model;

const struct model *const models[] = {
    &lenet_model, &lstm_model, &resnet_model, &resnet_imagenet_model, &vgg_model, NULL,
};

const struct model *model_find(const char *name)
{
    for (const struct model *const *m = models; *m != NULL; m++)
        if (strcmp((*m)->name, name) == 0)
            return *m;
    return NULL;
}
