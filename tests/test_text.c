/*
 * test_text.c -- corpora: the oddities of real files, known counts, and where data are sought.
 */
#include "data/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/dataset.h"

/* Last: its macro fail() would hide ours. */
#include <cmocka.h>

/* Of this test; removed after it. */
static char folder[64];

static int make_folder(void **state)
{
    strcpy(folder, "/tmp/test_text.XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static int remove_folder(void **state)
{
    char *command = format_text("rm -rf '%s'", folder);
    int status = system(command);

    free(command);
    unsetenv("GRADPRESS_DATA");
    unsetenv("XDG_CACHE_HOME");
    return status;
}

static char *below(const char *name)
{
    return format_text("%s/%s", folder, name);
}

static void put_bytes(const char *name, const char *bytes, size_t count)
{
    char *path = below(name);
    FILE *file = fopen(path, "wb");

    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    free(path);
}

static void put(const char *name, const char *content)
{
    put_bytes(name, content, strlen(content));
}

static void put_three(const char *train, const char *valid, const char *test)
{
    put("train.txt", train);
    put("valid.txt", valid);
    put("test.txt", test);
}

static void make_below(const char *name)
{
    char *path = below(name);

    assert_int_equal(mkdir(path, 0777), 0);
    free(path);
}

static void load(struct text *text, const char *from, uint32_t min_count)
{
    struct error err = {""};

    if (!text_load(text, from, min_count, &err))
        fail_msg("%s", err.text);
}

static void append_word(char *to, size_t room, const char *word)
{
    size_t used = strlen(to);

    snprintf(to + used, room - used, "%s%s", used > 0 ? " " : "", word);
}

/* The part's words, with spaces between. */
static void assert_part(const struct text *text, enum text_part part, const char *expected)
{
    const struct text_tokens *tokens = &text->part[part];
    char got[1024] = "";

    for (size_t i = 0; i < tokens->count; i++) {
        assert_true(tokens->token[i] < text->words);
        append_word(got, sizeof(got), text->word[tokens->token[i]]);
    }
    assert_string_equal(got, expected);
}

static void assert_vocabulary(const struct text *text, const char *expected)
{
    char got[1024] = "";

    for (uint32_t i = 0; i < text->words; i++)
        append_word(got, sizeof(got), text->word[i]);
    assert_string_equal(got, expected);
}

static void assert_counts(const struct text *text, size_t train, size_t valid, size_t test)
{
    assert_int_equal(text->part[TEXT_TRAIN].count, train);
    assert_int_equal(text->part[TEXT_VALID].count, valid);
    assert_int_equal(text->part[TEXT_TEST].count, test);
}

static void assert_train(const char *content, const char *expected)
{
    struct text text = {0};

    put_three(content, "a", "a");
    load(&text, folder, 1);
    assert_part(&text, TEXT_TRAIN, expected);
    text_free(&text);
}

/* The sentence begins with the folder, a slash and this (or with the folder and this if it begins
 * with a colon), and the text stays as it was. */
static void assert_fault(const char *expected)
{
    struct text text = {.words = 7};
    struct error err = {""};
    char *sentence = format_text(*expected == ':' ? "%s%s" : "%s/%s", folder, expected);

    assert_false(text_load(&text, folder, 1, &err));
    assert_memory_equal(err.text, sentence, strlen(sentence));
    assert_int_equal(text.words, 7);
    assert_null(text.word);
    free(sentence);
}

static void numbers_go_by_first_appearance_over_the_three_files(void **state)
{
    struct text text = {0};

    put_three("b a b\n", "c a\n", "d c\n");
    load(&text, folder, 1);
    assert_vocabulary(&text, "b a <eos> c d");
    assert_part(&text, TEXT_TRAIN, "b a b <eos>");
    assert_part(&text, TEXT_VALID, "c a <eos>");
    assert_part(&text, TEXT_TEST, "d c <eos>");
    text_free(&text);
}

static void the_case_of_the_byte_order_mark_gives_its_six_tokens(void **state)
{
    assert_train("\xEF\xBB\xBF"
                 "a b\r\n\r\na\xC2\xA0"
                 "c",
                 "a b <eos> a c <eos>");
}

static void a_byte_order_mark_alone_is_no_word(void **state)
{
    put_three("\xEF\xBB\xBF\n", "a", "a");
    assert_fault("train.txt: holds no word");
}

static void a_byte_order_mark_further_on_is_part_of_a_word(void **state)
{
    assert_train("a \xEF\xBB\xBF"
                 "b",
                 "a \xEF\xBB\xBF"
                 "b <eos>");
}

static void carriage_returns_change_nothing(void **state)
{
    assert_train("a b\nc\n", "a b <eos> c <eos>");
    assert_train("a b\r\nc\r\n", "a b <eos> c <eos>");
}

static void the_last_line_needs_no_end(void **state)
{
    assert_train("a b\nc", "a b <eos> c <eos>");
}

static void blank_lines_are_nothing(void **state)
{
    assert_train("\n \t\n\xE3\x80\x80\na\n\n\nb\n\n", "a <eos> b <eos>");
}

static void words_are_split_at_any_white_space_of_ascii(void **state)
{
    assert_train(" a\tb\vc\fd  e ", "a b c d e <eos>");
}

static void words_are_split_at_any_white_space_of_unicode(void **state)
{
    static const char *const space[] = {
        "\xC2\x85",     "\xC2\xA0",     "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x81",
        "\xE2\x80\x82", "\xE2\x80\x83", "\xE2\x80\x84", "\xE2\x80\x85", "\xE2\x80\x86",
        "\xE2\x80\x87", "\xE2\x80\x88", "\xE2\x80\x89", "\xE2\x80\x8A", "\xE2\x80\xA8",
        "\xE2\x80\xA9", "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(space); i++) {
        char *content = format_text("x%sy\n", space[i]);

        assert_train(content, "x y <eos>");
        free(content);
    }
}

static void zero_width_and_look_alikes_do_not_split(void **state)
{
    static const char *const letter[] = {"\xE2\x80\x8B", "\xE2\x81\xA0", "\xC2\xA1",
                                         "\xE1\xA0\x8E", "\xE2\x80\x90", "\x1F"};

    for (size_t i = 0; i < ARRAY_LENGTH(letter); i++) {
        char *content = format_text("x%sy\n", letter[i]);
        char *expected = format_text("x%sy <eos>", letter[i]);

        assert_train(content, expected);
        free(expected);
        free(content);
    }
}

static void words_of_one_to_four_bytes_a_letter_are_kept(void **state)
{
    assert_train("z \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8C\x8D \xF4\x8F\xBF\xBF",
                 "z \xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8C\x8D \xF4\x8F\xBF\xBF <eos>");
}

static void what_is_no_utf_8_is_refused_with_its_line(void **state)
{
    static const char *const wrong[] = {
        "\x80",             /* a continuation first */
        "\xE9t\xE9",        /* Latin-1 */
        "\xC3",             /* cut short by the end */
        "\xE2\x82",         /* the same */
        "\xC3 ",            /* or by a space */
        "\xC0\xAF",         /* longer than need be */
        "\xE0\x80\xAF",     /* the same */
        "\xF0\x80\x80\xAF", /* the same */
        "\xED\xA0\x80",     /* a surrogate */
        "\xF4\x90\x80\x80", /* above U+10FFFF */
        "\xF8\x88\x80\x80\x80",
        "\xFF\xFE",
    };

    for (size_t i = 0; i < ARRAY_LENGTH(wrong); i++) {
        char *content = format_text("a\r\n\nb %s", wrong[i]);

        put_three("a", content, "a");
        assert_fault("valid.txt:3: not UTF-8");
        free(content);
    }
}

static void a_nul_byte_is_refused_with_its_line(void **state)
{
    put_three("a", "a", "a");
    put_bytes("test.txt", "a\nb\0c\n", 6);
    assert_fault("test.txt:2: a NUL byte");
}

static void a_file_without_a_word_is_refused(void **state)
{
    put_three("a", "", "a");
    assert_fault("valid.txt: holds no word");
    put_three("a", "a", "\r\n \n");
    assert_fault("test.txt: holds no word");
}

static void a_prefix_is_found(void **state)
{
    struct text text = {0};
    char *slash = below("");

    put("my.own.train.txt", "a b");
    put("my.own.valid.txt", "b");
    put("my.own.test.txt", "c");
    put("other.valid.txt", "d");
    put("._my.own.train.txt", "left by another system");
    load(&text, folder, 1);
    assert_vocabulary(&text, "a b <eos> c");
    text_free(&text);
    load(&text, slash, 1);
    assert_vocabulary(&text, "a b <eos> c");
    text_free(&text);
    free(slash);
}

static void two_prefixes_are_a_fault_that_names_both(void **state)
{
    put("b.train.txt", "a");
    put("a.train.txt", "a");
    assert_fault(": holds both a.train.txt and b.train.txt");
}

static void names_without_a_prefix_come_first(void **state)
{
    put_three("a", "a", "a");
    put("old.train.txt", "b");
    assert_train("a", "a <eos>");
}

static void missing_things_are_told_with_their_path(void **state)
{
    struct text text = {0};
    struct error err = {""};

    assert_false(text_load(&text, "/nowhere/at/all", 1, &err));
    assert_string_equal(err.text, "/nowhere/at/all: No such file or directory");
    assert_fault(": holds neither train.txt nor a PREFIX.train.txt");
    put("ptb.train.txt", "a");
    assert_fault("ptb.valid.txt: No such file or directory");
    assert_false(text_load(&text, "meson.build", 1, &err));
    assert_string_equal(err.text, "meson.build: Not a directory");
}

static void a_folder_for_a_file_is_refused(void **state)
{
    put("train.txt", "a");
    make_below("valid.txt");
    assert_fault("valid.txt: not a regular file");
}

static void a_file_that_may_not_be_read_is_refused(void **state)
{
    char *path = below("train.txt");

    if (geteuid() != 0) {
        put_three("a", "a", "a");
        assert_int_equal(chmod(path, 0), 0);
        assert_fault("train.txt: Permission denied");
    }
    free(path);
}

static void a_file_larger_than_memory_is_refused(void **state)
{
    char *path = below("train.txt");

    put_three("a", "a", "a");
    if (truncate(path, (off_t)1 << 43) == 0) /* full of holes */
        assert_fault("train.txt: its 8796093022208 bytes do not fit in memory");
    free(path);
}

static void a_fault_in_the_last_file_leaks_nothing_of_the_first(void **state)
{
    put_three("a b c", "d", "\xFF");
    assert_fault("test.txt:1: not UTF-8");
}

static void words_that_train_has_too_seldom_are_unknown(void **state)
{
    struct text text = {0};

    put_three("r a a b b\n", "c c c a\n", "b c\n");
    load(&text, folder, 2);
    assert_vocabulary(&text, "<unk> a b <eos>");
    assert_part(&text, TEXT_TRAIN, "<unk> a a b b <eos>");
    assert_part(&text, TEXT_VALID, "<unk> <unk> <unk> a <eos>");
    assert_part(&text, TEXT_TEST, "b <unk> <eos>");
    text_free(&text);
}

static void the_end_of_a_line_is_never_rare(void **state)
{
    struct text text = {0};

    put_three("a a a a a b\n", "a", "a");
    load(&text, folder, 5);
    assert_part(&text, TEXT_TRAIN, "a a a a a <unk> <eos>");
    text_free(&text);
}

static void unknown_words_of_the_file_and_of_ours_are_one(void **state)
{
    struct text text = {0};

    put_three("a a <unk> r\n", "s a", "a");
    load(&text, folder, 2);
    assert_vocabulary(&text, "a <unk> <eos>");
    assert_part(&text, TEXT_TRAIN, "a a <unk> <unk> <eos>");
    text_free(&text);
}

static void without_rare_words_nothing_is_unknown(void **state)
{
    struct text text = {0};

    put_three("a a b b\n", "a", "b");
    load(&text, folder, 2);
    assert_vocabulary(&text, "a b <eos>");
    text_free(&text);
    put_three("a b\n", "c", "b");
    load(&text, folder, 0);
    assert_vocabulary(&text, "a b <eos> c");
    text_free(&text);
}

static void many_words_keep_their_numbers(void **state)
{
    enum { MANY = 20000 };
    struct text text = {0};
    char *content = allocate(MANY, 8), *end = content;

    for (int i = 0; i < MANY; i++)
        end += sprintf(end, "%d ", i);
    put_three(content, content, "7\n");
    load(&text, folder, 1);
    assert_int_equal(text.words, MANY + 1);
    for (uint32_t i = 0; i < MANY; i++) {
        assert_int_equal(text.part[TEXT_VALID].token[i], i);
        assert_int_equal(atoi(text.word[i]), i);
    }
    text_free(&text);
    free(content);
}

static void the_hash_is_of_the_three_files_and_their_sizes(void **state)
{
    struct text text = {0};

    put_three("a", "b", "c");
    load(&text, folder, 1);
    assert_string_equal(text.sha256, /* of "\1\0\0\0\0\0\0\0a\1...b\1...c", by sha256sum */
                        "3d10f2e96612f8284bd5233f0c75d6283331be5afd353c22cfacb4872685a972");
    text_free(&text);
}

static void freeing_nothing_or_twice_is_harmless(void **state)
{
    struct text text = {0};

    text_free(NULL);
    text_free(&text);
    assert_train("a", "a <eos>");
    put_three("a", "a", "a");
    load(&text, folder, 1);
    text_free(&text);
    text_free(&text);
    assert_null(text.word);
}

static void the_penn_treebank_has_its_known_counts(void **state)
{
    const char *root = getenv("GRADPRESS_TEST_DATA");
    char *ptb = format_text("%s/ptb", root != NULL ? root : "../shared/data");
    struct text text = {0};

    if (access(ptb, F_OK) != 0) {
        print_message("skipped: %s is not here (GRADPRESS_TEST_DATA names another root)\n", ptb);
        free(ptb);
        skip();
        return;
    }
    load(&text, ptb, 1);
    assert_int_equal(text.words, 10000);
    assert_counts(&text, 929589, 73760, 82430);
    assert_string_equal(text.word[0], "aer");
    text_free(&text);
    free(ptb);
}

/* Status of data/kjv.sh, its folder set through the environment. */
static int run_kjv(void)
{
    assert_int_equal(setenv("XDG_CACHE_HOME", folder, 1), 0);
    return system("sh data/kjv.sh");
}

static void the_demo_corpus_has_its_known_counts(void **state)
{
    struct text text = {0};
    struct error err = {""};
    char *found = NULL;

    if (system("command -v bible >/dev/null") != 0) {
        print_message("skipped: the program 'bible' (Debian's bible-kjv) is not here\n");
        skip();
        return;
    }
    assert_int_equal(run_kjv(), 0);
    assert_true(dataset_locate(dataset_find("kjv"), NULL, NULL, &found, &err));
    load(&text, found, 1);
    assert_int_equal(text.words, 12773);
    assert_counts(&text, 853618, 45063, 46129);
    text_free(&text);
    load(&text, found, 3);
    assert_int_equal(text.words, 6638);
    assert_counts(&text, 853618, 45063, 46129);
    text_free(&text);
    free(found);
}

static void a_demo_corpus_that_is_there_is_left_alone(void **state)
{
    struct text text = {0};
    char *kjv = below("gradpress/kjv");

    make_below("gradpress");
    make_below("gradpress/kjv");
    put("gradpress/kjv/train.txt", "mine");
    put("gradpress/kjv/valid.txt", "mine");
    put("gradpress/kjv/test.txt", "mine");
    assert_int_equal(run_kjv(), 0);
    load(&text, kjv, 1);
    assert_vocabulary(&text, "mine <eos>");
    text_free(&text);
    free(kjv);
}

static void without_its_program_the_demo_corpus_is_not_begun(void **state)
{
    char *command =
        format_text("PATH=/nowhere /bin/sh data/kjv.sh '%s/kjv' 2>'%s/said'", folder, folder);
    char *kjv = below("kjv"), *said = below("said");
    char line[256] = "";
    FILE *file;

    assert_int_not_equal(system(command), 0);
    assert_int_not_equal(access(kjv, F_OK), 0);
    file = fopen(said, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof(line), file));
    assert_non_null(strstr(line, "install Debian's packages bible-kjv and bible-kjv-text"));
    fclose(file);
    free(said);
    free(kjv);
    free(command);
}

static void data_sets_are_in_order_and_complete(void **state)
{
    for (size_t i = 0; datasets[i] != NULL; i++) {
        assert_true(i == 0 || strcmp(datasets[i - 1]->name, datasets[i]->name) < 0);
        assert_ptr_equal(dataset_find(datasets[i]->name), datasets[i]);
        assert_non_null(datasets[i]->about);
        assert_non_null(datasets[i]->kind);
        assert_true((datasets[i]->fits == NULL) == (datasets[i]->make == NULL));
        assert_non_null(datasets[i]->settings);
    }
    assert_null(dataset_find("pbt"));
}

/* root below the test's folder, or NULL for none; expected likewise. */
static void assert_located(const char *name, const char *path, const char *root,
                           const char *expected)
{
    struct error err = {""};
    char *from = root != NULL ? below(root) : NULL;
    char *found = NULL;
    char *full = below(expected);

    if (!dataset_locate(dataset_find(name), path, from, &found, &err))
        fail_msg("%s", err.text);
    assert_string_equal(found, full);
    free(full);
    free(found);
    free(from);
}

/* Two roots and a cache, each with a PTB. */
static void make_roots(void)
{
    char *variable = below("variable"), *cache = below("cache");

    make_below("option");
    make_below("option/ptb");
    make_below("variable");
    make_below("variable/ptb");
    make_below("cache");
    make_below("cache/gradpress");
    make_below("cache/gradpress/ptb");
    assert_int_equal(setenv("GRADPRESS_DATA", variable, 1), 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", cache, 1), 0);
    free(cache);
    free(variable);
}

static void remove_below(const char *name)
{
    char *path = below(name);

    assert_int_equal(rmdir(path), 0);
    free(path);
}

static void data_are_sought_in_the_option_the_variable_and_the_cache(void **state)
{
    make_roots();
    assert_located("ptb", NULL, "option", "option/ptb");
    assert_located("ptb", NULL, NULL, "variable/ptb");
    remove_below("option/ptb");
    assert_located("ptb", NULL, "option", "variable/ptb");
    remove_below("variable/ptb");
    assert_located("ptb", NULL, "option", "cache/gradpress/ptb");
}

static void a_root_may_be_the_data_set_itself(void **state)
{
    make_roots();
    remove_below("option/ptb");
    put("option/ptb.train.txt", "a");
    assert_located("ptb", NULL, "option", "option");
    assert_located("text", NULL, "option", "option");
    remove_below("variable/ptb");
    put("variable/train.txt", "a");
    assert_located("ptb", NULL, NULL, "variable");
}

static void a_path_is_taken_as_it_is(void **state)
{
    struct error err = {""};
    char *found = NULL;

    make_roots();
    assert_true(dataset_locate(dataset_find("text"), "any/where", folder, &found, &err));
    assert_string_equal(found, "any/where");
    free(found);
}

static void without_a_cache_variable_the_cache_is_at_home(void **state)
{
    char *home = getenv("HOME") != NULL ? format_text("%s", getenv("HOME")) : NULL;

    make_below(".cache");
    make_below(".cache/gradpress");
    make_below(".cache/gradpress/kjv");
    assert_int_equal(setenv("HOME", folder, 1), 0);
    assert_located("kjv", NULL, NULL, ".cache/gradpress/kjv");
    assert_int_equal(setenv("XDG_CACHE_HOME", "", 1), 0);
    assert_located("kjv", NULL, NULL, ".cache/gradpress/kjv");
    if (home != NULL)
        setenv("HOME", home, 1);
    free(home);
}

static void absent_data_are_a_fault_that_lists_the_places(void **state)
{
    struct error err = {""};
    char *found = NULL;

    assert_int_equal(setenv("GRADPRESS_DATA", "/variable", 1), 0);
    assert_int_equal(setenv("XDG_CACHE_HOME", "/cache", 1), 0);
    assert_false(dataset_locate(dataset_find("kjv"), NULL, "/option", &found, &err));
    assert_string_equal(err.text,
                        "data set 'kjv' is not in /option/kjv, /option, /variable/kjv, /variable, "
                        "/cache/gradpress/kjv: data/kjv.sh makes it from Debian's packages "
                        "bible-kjv and bible-kjv-text");
    assert_int_equal(unsetenv("GRADPRESS_DATA"), 0);
    assert_false(dataset_locate(dataset_find("text"), NULL, NULL, &found, &err));
    assert_string_equal(err.text, "data set 'text' is not in any folder that was named: put "
                                  "train.txt, valid.txt and test.txt into one folder and name it "
                                  "with data.path");
    assert_null(found);
}

#define FACT(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    static const struct CMUnitTest facts[] = {
        FACT(numbers_go_by_first_appearance_over_the_three_files),
        FACT(the_case_of_the_byte_order_mark_gives_its_six_tokens),
        FACT(a_byte_order_mark_alone_is_no_word),
        FACT(a_byte_order_mark_further_on_is_part_of_a_word),
        FACT(carriage_returns_change_nothing),
        FACT(the_last_line_needs_no_end),
        FACT(blank_lines_are_nothing),
        FACT(words_are_split_at_any_white_space_of_ascii),
        FACT(words_are_split_at_any_white_space_of_unicode),
        FACT(zero_width_and_look_alikes_do_not_split),
        FACT(words_of_one_to_four_bytes_a_letter_are_kept),
        FACT(what_is_no_utf_8_is_refused_with_its_line),
        FACT(a_nul_byte_is_refused_with_its_line),
        FACT(a_file_without_a_word_is_refused),
        FACT(a_prefix_is_found),
        FACT(two_prefixes_are_a_fault_that_names_both),
        FACT(names_without_a_prefix_come_first),
        FACT(missing_things_are_told_with_their_path),
        FACT(a_folder_for_a_file_is_refused),
        FACT(a_file_that_may_not_be_read_is_refused),
        FACT(a_file_larger_than_memory_is_refused),
        FACT(a_fault_in_the_last_file_leaks_nothing_of_the_first),
        FACT(words_that_train_has_too_seldom_are_unknown),
        FACT(the_end_of_a_line_is_never_rare),
        FACT(unknown_words_of_the_file_and_of_ours_are_one),
        FACT(without_rare_words_nothing_is_unknown),
        FACT(many_words_keep_their_numbers),
        FACT(the_hash_is_of_the_three_files_and_their_sizes),
        FACT(freeing_nothing_or_twice_is_harmless),
        FACT(the_penn_treebank_has_its_known_counts),
        FACT(the_demo_corpus_has_its_known_counts),
        FACT(a_demo_corpus_that_is_there_is_left_alone),
        FACT(without_its_program_the_demo_corpus_is_not_begun),
        FACT(data_sets_are_in_order_and_complete),
        FACT(data_are_sought_in_the_option_the_variable_and_the_cache),
        FACT(a_root_may_be_the_data_set_itself),
        FACT(a_path_is_taken_as_it_is),
        FACT(without_a_cache_variable_the_cache_is_at_home),
        FACT(absent_data_are_a_fault_that_lists_the_places),
    };

    unsetenv("GRADPRESS_DATA");
    unsetenv("XDG_CACHE_HOME");
    return cmocka_run_group_tests(facts, NULL, NULL);
}
