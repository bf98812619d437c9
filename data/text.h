/*
 * text.h -- a corpus of words for a language model: vocabulary and token numbers, on the host.
 *
 * A folder holds train.txt, valid.txt and test.txt, or the same names behind a prefix and a dot
 * (ptb.train.txt).  A line is its words, split at any white space (Unicode's too), and <eos>; a
 * blank line is nothing.  Words get numbers in order of first appearance over train, valid, test.
 * With least count m, words that train has fewer than m times become <unk>.
 */
#ifndef DATA_TEXT_H
#define DATA_TEXT_H

#include "sim/base.h"

enum text_part { TEXT_TRAIN, TEXT_VALID, TEXT_TEST, TEXT_PARTS };

/* train, valid, test, NULL. */
extern const char *const text_part_names[];

struct text {
    uint32_t words; /* in the vocabulary */
    char **word;    /* [words]; NULL in a random text */
    struct text_tokens {
        size_t count;
        uint32_t *token;
    } part[TEXT_PARTS];
    char sha256[65]; /* of the three files, each behind its size in 64 bits */
};

/* A fault names the file and, where there is one, the line. */
bool text_load(struct text *text, const char *folder, uint32_t min_count, struct error *err);

/* A text that nobody wrote, to measure with: every word of it is drawn alike of so many. */
void text_random(struct text *text, uint32_t words, const size_t count[TEXT_PARTS]);
void text_free(struct text *text);

#endif
