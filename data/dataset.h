/*
 * dataset.h -- the table of data sets, and where they are sought.
 */
#ifndef DATA_DATASET_H
#define DATA_DATASET_H

#include "sim/base.h"

struct images;
struct source_kind;

struct dataset {
    const char *name;
    const char *about;  /* one line for list */
    const char *folder; /* below a root of data; NULL: data.path names it */
    const char *make;   /* how to get it, a sentence that ends the error when it is absent */
    const struct setting *settings; /* besides those that all of its kind have */
    const struct source_kind *kind;
    bool (*fits)(const char *path); /* whether a folder holds it; NULL: it needs none */
    const char *installed;          /* where a package puts it, or NULL */

    /* Of images; what is expected stands in *images when they are read. */
    void (*expect)(struct images *images, const double *settings);
    bool (*read)(struct images *images, const char *folder, const double *settings,
                 struct error *err);
};

extern const struct source_kind text_kind, images_kind;

/* NULL-terminated, in alphabetical order. */
extern const struct dataset *const datasets[];

const struct dataset *dataset_find(const char *name);

/* The folder of a data set: path itself if given (may be NULL); else the first that exists of
 * root/FOLDER and root (root may be NULL: --data), the same below $GRADPRESS_DATA,
 * the cache ($XDG_CACHE_HOME or ~/.cache)/gradpress/FOLDER, and where a package puts it.  A fault
 * lists where it looked.  On success *folder is a new string, "" of a set that needs none. */
bool dataset_locate(const struct dataset *set, const char *path, const char *root, char **folder,
                    struct error *err);

/* Its folder in the cache, a new string; NULL: it has none, or there is no cache. */
char *dataset_cache(const struct dataset *set);

#endif
