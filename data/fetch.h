/*
 * fetch.h -- data sets from where the public gets them, into a folder where they are found.
 *
 * Programs do the work that they do best: curl downloads and goes on where it was cut off, tar
 * unpacks.  What came is what was published: sizes and SHA-256 are told here.
 */
#ifndef DATA_FETCH_H
#define DATA_FETCH_H

#include "data/dataset.h"

/* Whether there is a public place for it; else set->make tells how to get it. */
bool fetch_knows(const struct dataset *set);

/* Into a folder (NULL: the cache's), which need not exist; from: the URL of a folder to take in place
 * of the public ones (NULL: those).  Files that are there already stay if they are whole.  Fills
 * *folder, a new string.  Says on stderr what it does unless quiet. */
bool fetch(const struct dataset *set, const char *into, const char *from, bool quiet, char **folder,
           struct error *err);

#endif
