/*
 * words.h -- the words of a command line, for commands that know flags which train does not.
 */
#ifndef SIM_WORDS_H
#define SIM_WORDS_H

#include <stdbool.h>
#include <stdint.h>

/* Steps *i over the value behind the flag, if it is the one of that name; *value is NULL where it
 * is missing. */
bool take_value(const char *name, int argc, char **argv, int *i, const char **value);

/* Takes a flag with a whole number out of the arguments; the others are those of train.  *wrong is a
 * new string where it isn't one. */
void take_count(const char *name, uint32_t most, int *argc, char **argv, uint32_t *count,
                char **wrong);

/* Takes a flag with a word out of the arguments; *word is "" where that is missing. */
void take_word(const char *name, int *argc, char **argv, const char **word);

#endif
