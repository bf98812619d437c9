/*
 * query.h -- reading results back: over a connection that changes nothing, of files that are there.
 *
 * While a run writes, a reader sees the epochs that have ended, and holds nothing up.
 */
#ifndef RESULTS_QUERY_H
#define RESULTS_QUERY_H

#include "sim/base.h"

#include <stdio.h>

/* A table of the runs for which `where`, a condition on columns of the view summary, is true, the
 * newest last; or a JSON list of all columns.  Faults: no such file, not a database of ours, a
 * condition that SQLite refuses. */
bool query_runs(const char *path, const char *where, bool json, FILE *out, struct error *err);

#endif
