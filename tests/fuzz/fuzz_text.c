/*
 * fuzz_text.c -- train.txt, valid.txt and test.txt, with lines of ---- between.
 */
#include "tests/fuzz/fuzz.h"

#include "data/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[TEXT_PARTS] = {"train.txt", "valid.txt", "test.txt"};

static bool load(struct text *text, uint32_t min_count)
{
    struct error err = {""};

    if (text_load(text, fuzz_folder(), min_count, &err))
        return true;
    CHECK(err.text[0] != '\0');
    return false;
}

static void put(const struct part part[TEXT_PARTS])
{
    for (int i = 0; i < TEXT_PARTS; i++)
        free(fuzz_file(names[i], part[i]));
}

static void check_numbers(const struct text *text)
{
    for (int i = 0; i < TEXT_PARTS; i++) {
        const struct text_tokens *tokens = &text->part[i];

        CHECK(tokens->count >= 2);
        for (size_t j = 0; j < tokens->count; j++)
            CHECK(tokens->token[j] < text->words);
        CHECK(strcmp(text->word[tokens->token[tokens->count - 1]], "<eos>") == 0);
    }
    for (uint32_t i = 0; i < text->words; i++)
        CHECK(text->word[i][0] != '\0' && strpbrk(text->word[i], " \t\r\n") == NULL);
}

/* A part as a text again.  <eos> is the end of a line, but at the beginning of one, or where the end
 * of the text is next, a word of that name.  Behind a byte-order mark, lest the first word begins
 * with one.  A new string, which is the part. */
static char *print(const struct text *text, enum text_part which, struct part *part)
{
    const struct text_tokens *tokens = &text->part[which];
    char *printed = NULL;
    size_t size;
    FILE *out = open_memstream(&printed, &size);
    bool blank = true;

    CHECK(out != NULL);
    fputs("\xEF\xBB\xBF", out);
    for (size_t i = 0; i < tokens->count; i++) {
        const char *word = text->word[tokens->token[i]];
        bool end = !blank && i + 2 != tokens->count && strcmp(word, "<eos>") == 0;

        fputs(end ? "\n" : word, out);
        fputs(end ? "" : " ", out);
        blank = end;
    }
    CHECK(fclose(out) == 0);
    *part = (struct part){(const uint8_t *)printed, size};
    return printed;
}

static void check_same(const struct text *a, const struct text *b)
{
    CHECK(a->words == b->words);
    for (uint32_t i = 0; i < a->words; i++)
        CHECK(strcmp(a->word[i], b->word[i]) == 0);
    for (int i = 0; i < TEXT_PARTS; i++) {
        CHECK(a->part[i].count == b->part[i].count);
        CHECK(memcmp(a->part[i].token, b->part[i].token,
                     a->part[i].count * sizeof(*a->part[i].token)) == 0);
    }
}

/* Printed and read again it is the same. */
static void check_again(const struct text *text)
{
    struct part part[TEXT_PARTS];
    char *printed[TEXT_PARTS];
    struct text again;

    for (int i = 0; i < TEXT_PARTS; i++)
        printed[i] = print(text, (enum text_part)i, &part[i]);
    put(part);
    CHECK(load(&again, 1));
    check_same(text, &again);
    text_free(&again);
    for (int i = 0; i < TEXT_PARTS; i++)
        free(printed[i]);
}

/* Without rare words there are no more words, and as many tokens. */
static void check_rare(const struct text *text)
{
    struct text common;

    CHECK(load(&common, 2));
    check_numbers(&common);
    CHECK(common.words <= text->words + 1);
    CHECK(strcmp(common.sha256, text->sha256) == 0);
    for (int i = 0; i < TEXT_PARTS; i++)
        CHECK(common.part[i].count == text->part[i].count);
    text_free(&common);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct part part[TEXT_PARTS];
    struct text text;

    fuzz_split(part, TEXT_PARTS, data, size);
    put(part);
    if (!load(&text, 1))
        return 0;
    check_numbers(&text);
    check_rare(&text);
    check_again(&text);
    text_free(&text);
    return 0;
}
