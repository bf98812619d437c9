/*
 * dataset.h -- the table of data sets, and where they are sought.
 */
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include "sim/base.h"

struct dataset {
    const char *name;
    const char *about;  /* one line for list */
    const char *folder; /* below a root of data; NULL: data.path names it */
    const char *make;   /* how to get it, a sentence that ends the error when it is absent */
    const struct setting *settings; /* besides those every text has */
};

/* NULL-terminated, in alphabetical order. */
extern const struct dataset *const datasets[];

const struct dataset *dataset_find(const char *name);

/* The folder of a data set: path itself if given (may be NULL); else the first that exists of
 * root/FOLDER and root (root may be NULL: --data), the same below $GRADPRESS_DATA, and
 * the cache ($XDG_CACHE_HOME or ~/.cache)/gradpress/FOLDER.  A fault lists where it looked.
 * On success *folder is a new string. */
bool dataset_locate(const struct dataset *set, const char *path, const char *root, char **folder,
                    struct error *err);

#endif
