/*
 * show.h -- what a run would be, before it is one: every key and who said it, and what follows.
 */
#ifndef SIM_SHOW_H
#define SIM_SHOW_H

#include "sim/config.h"

#include <stdio.h>

/* parts: of the memory too.  Where data are missing, *missing says which (else it is empty), and what
 * follows from them is left out.  Returns false, having shown the rest, if the run could not begin
 * here: no such device, a text that is too short, not enough memory. */
bool show(const struct config *c, bool parts, FILE *out, struct error *missing, struct error *err);

#endif
