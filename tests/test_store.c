#include "results/store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/test_store.XXXXXX";

/* What every file system seems to be: this stands in for the C library's function. */
#define EXT4 0xef53
#define NFS  0x6969

static long file_system = EXT4;

int statfs(const char *file, struct statfs *buf)
{
    memset(buf, 0, sizeof(*buf));
    buf->f_type = file_system;
    return 0;
}

static char *path_of(const char *name)
{
    return format_text("%s/%s.db", folder, name);
}

/* Plain SQL, past the store. */

static sqlite3 *open_raw(const char *path)
{
    sqlite3 *db;

    CHECK(sqlite3_open(path, &db) == SQLITE_OK);
    sqlite3_busy_timeout(db, 10000);
    return db;
}

static void run_raw(const char *path, const char *sql)
{
    sqlite3 *db = open_raw(path);

    CHECK(sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK);
    CHECK(sqlite3_close(db) == SQLITE_OK);
}

/* The first value of the first row as text, "NULL" if it is that. */
static char *ask(const char *path, const char *sql)
{
    sqlite3 *db = open_raw(path);
    sqlite3_stmt *statement;
    char *answer;

    if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    if (sqlite3_step(statement) != SQLITE_ROW)
        fail_msg("%s: %s", sql, sqlite3_errmsg(db));
    if (sqlite3_column_type(statement, 0) == SQLITE_NULL)
        answer = format_text("NULL");
    else
        answer = format_text("%s", sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    CHECK(sqlite3_close(db) == SQLITE_OK);
    return answer;
}

static void assert_answer(const char *path, const char *sql, const char *expected)
{
    char *answer = ask(path, sql);

    if (strcmp(answer, expected) != 0)
        fail_msg("%s: %s, not %s", sql, answer, expected);
    free(answer);
}

static long ask_number(const char *path, const char *sql)
{
    char *answer = ask(path, sql);
    long number = strtol(answer, NULL, 10);

    free(answer);
    return number;
}

/* Runs, epochs and tests to store. */

static struct run_row a_run(const char *key, const char *name)
{
    return (struct run_row){
        .key = key,
        .name = name,
        .model = "lstm",
        .dataset = "kjv",
        .method = "topk:ratio=0.01",
        .memory = "residual",
        .ratio = 0.01,
        .workers = 4,
        .seed = 1,
    };
}

static struct epoch_row an_epoch(uint32_t epoch)
{
    return (struct epoch_row){
        .epoch = epoch,
        .train_loss = 4,
        .valid_loss = 3,
        .lr = 40,
        .steps = 100,
        .samples = 6400,
        .scored = 45063,
        .density = 0.01,
        .density_union = NOT_MEASURED,
        .bytes_dense = 8000,
        .bytes_up = 160,
        .bytes_up_step = 1.5,
        .bytes_down = 640,
        .bytes_paper = 80,
        .grad_norm = 1,
        .residual_norm = 2,
        .seconds = 10,
        .samples_per_second = 640,
    };
}

static struct store *open_store(const char *path)
{
    struct store *store;
    struct error err;

    if (!store_open(&store, path, &err)) {
        fprintf(stderr, "%s\n", err.text);
        CHECK(!"opened");
    }
    return store;
}

static enum store_claim claim_row(struct store *store, const struct run_row *row, bool again,
                                  int64_t *run)
{
    enum store_claim claim;
    struct error err;

    if (!store_claim(store, row, again, &claim, run, &err)) {
        fprintf(stderr, "%s\n", err.text);
        CHECK(!"claimed");
    }
    return claim;
}

static enum store_claim claim_key(struct store *store, const char *key, int64_t *run)
{
    struct run_row row = a_run(key, key);

    return claim_row(store, &row, false, run);
}

static void write_epoch(struct store *store, int64_t run, const struct epoch_row *row)
{
    struct error err;

    if (!store_epoch(store, run, row, &err)) {
        fprintf(stderr, "%s\n", err.text);
        CHECK(!"written");
    }
}

static void finish(struct store *store, int64_t run, const char *status)
{
    struct error err;

    CHECK(store_finish(store, run, status, NULL, 0, &err));
}

static void assert_refused(const char *path, const char *part)
{
    struct store *store = NULL;
    struct error err = {{0}};

    assert_false(store_open(&store, path, &err));
    assert_null(store);
    if (strstr(err.text, path) == NULL || strstr(err.text, part) == NULL)
        fail_msg("'%s' has no '%s' and '%s'", err.text, path, part);
}

/* Processes.  What happens in a child must not use assertions: they would go on with the tests. */

/* Claims the key, tells so, and sleeps until it is killed. */
static pid_t start_holder(const char *path, const char *key)
{
    int ready[2];
    char byte;
    pid_t child;

    CHECK(pipe(ready) == 0);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int64_t run;

        CHECK(claim_key(open_store(path), key, &run) == STORE_NEW);
        CHECK(write(ready[1], "r", 1) == 1);
        for (;;)
            pause();
    }
    close(ready[1]);
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    return child;
}

static void kill_and_wait(pid_t child)
{
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, NULL, 0) == child);
}

static bool succeeded(pid_t child)
{
    int status;

    CHECK(waitpid(child, &status, 0) == child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static char *copy_of(const char *path)
{
    char *copy = format_text("%s.copy", path), *command;

    command = format_text("cp '%s' '%s' && rm -f '%s-wal' '%s-shm'", path, copy, copy, copy);
    CHECK(system(command) == 0);
    free(command);
    return copy;
}

static bool exists(const char *path, const char *suffix)
{
    char *name = format_text("%s%s", path, suffix);
    bool found = access(name, F_OK) == 0;

    free(name);
    return found;
}

/* Opening. */

static void a_fresh_file_has_the_tables(void **state)
{
    char *path = path_of(__func__);

    store_close(open_store(path));
    assert_answer(path,
                  "select group_concat(name) from (select name from sqlite_master"
                  " where type in ('table', 'view') and name not like 'sqlite_%' order by name)",
                  "epochs,runs,settings,steps,summary,tensors,tests");
    assert_answer(path, "pragma user_version", "2");
    assert_answer(path, "pragma application_id", "1735549284");
    assert_answer(path, "pragma journal_mode", "wal");
    free(path);
}

static void what_was_written_is_there_when_opened_again(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    int64_t run, again;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    finish(store, run, "done");
    store_close(store);
    store = open_store(path);
    assert_int_equal(claim_key(store, "a", &again), STORE_DONE);
    assert_int_equal(again, run);
    store_close(store);
    assert_answer(path, "select count(*) from epochs", "1");
    free(path);
}

/* Version 1 had another view: it is made anew, and what was written stays. */
static void an_older_version_is_brought_up(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(0);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    store_close(store);
    run_raw(path, "drop view summary; create view summary as select id, key from runs;"
                  " pragma user_version = 1");
    store_close(open_store(path));
    assert_answer(path, "pragma user_version", "2");
    assert_answer(path, "select epochs || ' ' || (best_top1 is null) from summary", "1 1");
    free(path);
}

/* Ranks are of images, whose perplexity is none; the largest top1 is the best. */
static void ranks_are_of_images_and_perplexity_of_texts(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct test_row test = {
        .which = "last", .epoch = 2, .loss = 1, .ranked = true, .top1 = 0.5, .top5 = 0.75};
    struct error err;
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    for (uint32_t epoch = 0; epoch < 3; epoch++) {
        struct epoch_row row = an_epoch(epoch);

        row.ranked = true;
        row.train_top1 = 0.25;
        row.top1 = epoch == 1 ? 0.75 : 0.5;
        row.top5 = epoch == 2 ? (double)-INFINITY : 1;
        write_epoch(store, run, &row);
    }
    assert_true(store_finish(store, run, "done", &test, 1, &err));
    store_close(store);
    assert_answer(path, "select count(perplexity) || ' ' || sum(train_top1) from epochs", "0 0.75");
    assert_answer(path, "select min(top5) = -9e999 from epochs", "1");
    assert_answer(path,
                  "select top1 || ' ' || best_top1 || ' ' || best_epoch || ' ' || test_last_top1 ||"
                  " ' ' || (test_best_top1 is null) || ' ' || (test_last is null) from summary",
                  "0.5 0.75 1 0.5 1 1");
    free(path);
}

static void a_newer_version_is_refused(void **state)
{
    char *path = path_of(__func__);

    store_close(open_store(path));
    run_raw(path, "pragma user_version = 3");
    assert_refused(path, "newer gradpress");
    free(path);
}

static void another_programs_database_is_refused_and_left_alone(void **state)
{
    char *path = path_of(__func__), *marked = path_of("marked");

    run_raw(path, "create table runs (id integer)");
    assert_refused(path, "another program");
    assert_answer(path, "pragma journal_mode", "delete");
    run_raw(marked, "pragma application_id = 77; pragma user_version = 1");
    assert_refused(marked, "another program");
    free(path);
    free(marked);
}

static void a_text_file_is_refused(void **state)
{
    char *path = path_of(__func__);
    FILE *file = fopen(path, "w");

    for (int i = 0; i < 1000; i++)
        fprintf(file, "epoch,perplexity\n");
    fclose(file);
    assert_refused(path, "not a database");
    free(path);
}

static void a_truncated_file_is_refused(void **state)
{
    char *path = path_of(__func__);

    store_close(open_store(path));
    assert_int_equal(truncate(path, 9000), 0);
    assert_refused(path, "malformed");
    free(path);
}

static void a_place_where_no_file_can_be_is_refused(void **state)
{
    struct store *store;
    struct error err;

    assert_false(store_open(&store, "", &err));
    assert_non_null(strstr(err.text, "empty"));
    assert_refused(folder, "a folder");
    assert_refused("/tmp/there-is-no-such-folder/a.db", "No such file or directory");
    assert_refused("/dev/null", "not a regular file");
}

/* As nobody, for root may write everywhere. */
static void a_folder_without_permission_is_refused(void **state)
{
    char *locked = format_text("%s/locked", folder), *path = format_text("%s/a.db", locked);
    pid_t child;

    assert_int_equal(mkdir(locked, 0755), 0);
    store_close(open_store(path));
    assert_int_equal(chmod(path, 0444), 0);
    assert_int_equal(chmod(locked, 0555), 0);
    child = fork();
    if (child == 0) {
        struct store *store;
        struct error err;
        char *other = format_text("%s/b.db", locked);

        CHECK(getuid() != 0 || setuid(65534) == 0);
        CHECK(!store_open(&store, path, &err) && strstr(err.text, path) != NULL);
        CHECK(!store_open(&store, other, &err) && strstr(err.text, "folder") != NULL);
        _exit(0);
    }
    assert_true(succeeded(child));
    assert_int_equal(chmod(locked, 0755), 0);
    free(locked);
    free(path);
}

static void a_network_file_system_gets_a_rollback_journal(void **state)
{
    char *path = path_of(__func__), *copy;
    struct epoch_row row = an_epoch(1);
    struct store *store;
    int64_t run;

    store = open_store(path);
    assert_null(store_notice(store));
    store_close(store);
    file_system = NFS;
    store = open_store(path);
    assert_non_null(strstr(store_notice(store), "nfs"));
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    assert_false(exists(path, "-wal"));
    copy = copy_of(path);
    store_close(store);
    file_system = EXT4;
    assert_answer(path, "pragma journal_mode", "delete");
    assert_answer(copy, "select count(*) from epochs", "1");
    free(path);
    free(copy);
}

/* Claiming. */

static void a_key_is_elsewhere_until_its_process_is_killed(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    pid_t child = start_holder(path, "a");
    int64_t run, theirs = ask_number(path, "select id from runs");

    assert_int_equal(claim_key(store, "a", &run), STORE_ELSEWHERE);
    assert_int_equal(run, theirs);
    assert_int_equal(claim_key(store, "b", &run), STORE_NEW);
    kill_and_wait(child);
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_int_not_equal(run, theirs);
    assert_answer(path, "select count(*) from runs where key = 'a'", "1");
    store_close(store);
    free(path);
}

static void a_key_of_our_own_is_elsewhere(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_int_equal(claim_key(store, "a", &run), STORE_ELSEWHERE);
    store_close(store);
    free(path);
}

static void a_zombie_is_dead(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    pid_t child = start_holder(path, "a");
    siginfo_t info;
    int64_t run;

    assert_int_equal(kill(child, SIGKILL), 0);
    assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_int_equal(waitpid(child, NULL, 0), child);
    store_close(store);
    free(path);
}

static void a_pid_that_is_used_again_is_dead(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    run_raw(path, "update runs set pid_started = pid_started - 1");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    store_close(store);
    free(path);
}

static void another_host_lives_by_its_heartbeat(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    run_raw(path, "update runs set host = 'elsewhere', pid = 1,"
                  " heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-550 seconds')");
    assert_int_equal(claim_key(store, "a", &run), STORE_ELSEWHERE);
    run_raw(path, "update runs set"
                  " heartbeat_at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-650 seconds')");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    store_close(store);
    free(path);
}

static void a_finished_run_over_other_data_is_not_this_one(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct run_row row = a_run("a", "a");
    enum store_claim claim;
    struct error err;
    int64_t run;

    row.data_sha256 = "1111";
    assert_true(store_claim(store, &row, false, &claim, &run, &err));
    finish(store, run, "done");
    row.data_sha256 = "2222";
    assert_false(store_claim(store, &row, false, &claim, &run, &err));
    assert_non_null(strstr(err.text, "other data"));
    assert_true(store_claim(store, &row, true, &claim, &run, &err));
    assert_int_equal(claim, STORE_NEW);
    store_close(store);
    free(path);
}

static void a_finished_run_joins_the_first_experiment_that_asks(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct run_row row = a_run("a", "a");
    enum store_claim claim;
    struct error err;
    int64_t run;

    row.experiment = "";
    assert_true(store_claim(store, &row, false, &claim, &run, &err));
    finish(store, run, "done");
    row.experiment = "first";
    assert_true(store_claim(store, &row, false, &claim, &run, &err));
    row.experiment = "second";
    assert_true(store_claim(store, &row, false, &claim, &run, &err));
    assert_int_equal(claim, STORE_DONE);
    assert_answer(path, "select experiment from runs", "first");
    store_close(store);
    free(path);
}

static void what_did_not_end_well_is_begun_anew(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    finish(store, run, "stopped");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_answer(path, "select count(*) from epochs", "0");
    finish(store, run, "failed");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    finish(store, run, "diverged");
    assert_int_equal(claim_key(store, "a", &run), STORE_DONE);
    store_close(store);
    free(path);
}

static void a_finished_run_is_begun_anew_only_if_asked_again(void **state)
{
    static const struct store_pair settings[] = {{"seed", "1"}};
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct run_row row = a_run("a", "a");
    struct epoch_row epoch = an_epoch(1);
    struct test_row test = {.which = "last", .epoch = 1, .loss = 3, .scored = 10};
    struct error err;
    int64_t run, again;

    row.settings = settings;
    row.settings_count = 1;
    assert_int_equal(claim_row(store, &row, false, &run), STORE_NEW);
    write_epoch(store, run, &epoch);
    assert_true(store_finish(store, run, "done", &test, 1, &err));
    assert_int_equal(claim_row(store, &row, false, &again), STORE_DONE);
    assert_answer(path, "select count(*) from epochs, tests, settings", "1");
    assert_int_equal(claim_row(store, &row, true, &again), STORE_NEW);
    assert_answer(path, "select count(*) from epochs", "0");
    assert_answer(path, "select count(*) from tests", "0");
    assert_answer(path, "select count(*) from settings", "1");
    assert_answer(path, "select status from runs", "running");
    store_close(store);
    free(path);
}

static void a_name_of_another_key_is_refused_with_the_settings_that_differ(void **state)
{
    static const struct store_pair there[] = {
        {"data.bptt", "20"}, {"epochs", "1"}, {"model.tied", "1"}};
    static const struct store_pair here[] = {
        {"data.bptt", "35"}, {"epochs", "1"}, {"clip.norm", "0.25"}};
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct run_row row = a_run("a", "same");
    enum store_claim claim;
    struct error err;
    int64_t run;

    row.settings = there;
    row.settings_count = ARRAY_LENGTH(there);
    assert_int_equal(claim_row(store, &row, false, &run), STORE_NEW);
    finish(store, run, "failed");
    row.key = "b";
    row.settings = here;
    assert_false(store_claim(store, &row, false, &claim, &run, &err));
    assert_non_null(strstr(err.text, path));
    assert_non_null(strstr(err.text, "'same'"));
    assert_non_null(strstr(err.text, "data.bptt: 20 there, 35 here; model.tied: 1 there, none "
                                     "here; clip.norm: none there, 0.25 here"));
    assert_null(strstr(err.text, "epochs"));
    assert_answer(path, "select count(*) from runs", "1");
    store_close(store);
    free(path);
}

static void of_many_differences_some_are_named_and_the_rest_counted(void **state)
{
    static const struct store_pair there[] = {{"a", "1"}, {"b", "1"}, {"c", "1"}, {"d", "1"},
                                              {"e", "1"}, {"f", "1"}, {"g", "1"}};
    static const struct store_pair here[] = {{"a", "2"}, {"b", "2"}, {"c", "2"}, {"d", "2"},
                                             {"e", "2"}, {"f", "2"}, {"g", "2"}};
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct run_row row = a_run("a", "same");
    enum store_claim claim;
    struct error err;
    int64_t run;

    row.settings = there;
    row.settings_count = ARRAY_LENGTH(there);
    assert_int_equal(claim_row(store, &row, false, &run), STORE_NEW);
    row.key = "b";
    row.settings = here;
    assert_false(store_claim(store, &row, false, &claim, &run, &err));
    assert_non_null(strstr(err.text, "e: 1 there, 2 here and 2 more"));
    store_close(store);
    free(path);
}

static void an_epoch_of_a_run_begun_anew_is_refused(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    struct error err;
    int64_t old, run;

    assert_int_equal(claim_key(store, "a", &old), STORE_NEW);
    run_raw(path, "update runs set pid_started = 1");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_false(store_epoch(store, old, &row, &err));
    assert_non_null(strstr(err.text, "begun anew"));
    assert_false(store_finish(store, old, "done", NULL, 0, &err));
    assert_non_null(strstr(err.text, "begun anew"));
    assert_false(store_heartbeat(store, old, &err));
    write_epoch(store, run, &row);
    store_close(store);
    free(path);
}

/* Rows. */

static void what_is_not_finite_never_ranks_best(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    row.train_loss = NAN;
    row.valid_loss = -INFINITY;
    row.grad_norm = INFINITY;
    row.samples_per_second = NAN;
    write_epoch(store, run, &row);
    row = an_epoch(2);
    row.valid_loss = 710;
    row.residual_norm = NOT_MEASURED;
    write_epoch(store, run, &row);
    row = an_epoch(3);
    row.valid_loss = NOT_MEASURED;
    write_epoch(store, run, &row);
    row = an_epoch(4);
    row.valid_loss = log(44.5);
    write_epoch(store, run, &row);
    store_close(store);
    assert_answer(path,
                  "select count(*) from epochs where epoch = 1 and train_loss = 9e999 and"
                  " valid_loss = 9e999 and perplexity = 9e999 and grad_norm = 9e999 and"
                  " samples_per_second = -9e999",
                  "1");
    assert_answer(path, "select perplexity = 9e999 from epochs where epoch = 2", "1");
    assert_answer(path, "select residual_norm from epochs where epoch = 2", "NULL");
    assert_answer(path, "select density_union from epochs where epoch = 2", "NULL");
    assert_answer(path, "select perplexity from epochs where epoch = 3", "NULL");
    assert_answer(path, "select round(perplexity, 6) from epochs where epoch = 4", "44.5");
    assert_answer(path, "select epoch from epochs order by perplexity is null, perplexity", "4");
    assert_answer(path, "select best_epoch from summary", "4");
    free(path);
}

static bool has_steps(struct store *store, int64_t run, uint32_t every)
{
    struct error err;
    bool has;

    CHECK(store_has_steps(store, run, every, &has, &err));
    return has;
}

/* Two epochs of 5 steps, of which every second is kept, each once. */
static void steps_are_kept_beside_their_epoch(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct step_row steps[] = {{.step = 0, .loss = 4}, {.step = 2, .loss = 3}, {.step = 4}};
    struct epoch_row row = an_epoch(0);
    int64_t run;

    row.steps = 5;
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_false(has_steps(store, run, 2));
    row.step = steps;
    row.steps_kept = 3;
    for (int twice = 0; twice < 2; twice++)
        write_epoch(store, run, &row);
    assert_true(has_steps(store, run, 2));
    assert_false(has_steps(store, run, 1));
    row.epoch = 1;
    row.steps_kept = 0;
    write_epoch(store, run, &row);
    assert_false(has_steps(store, run, 2));
    assert_true(has_steps(store, run, 10));
    steps[0] = (struct step_row){.step = 6, .loss = NAN, .samples = 40, .bytes_up = 1.5};
    steps[1] = (struct step_row){.step = 8, .loss = 2};
    row.steps_kept = 2;
    write_epoch(store, run, &row);
    assert_true(has_steps(store, run, 2));
    assert_answer(path, "select group_concat(epoch || ' ' || step) from steps",
                  "0 0,0 2,0 4,1 6,1 8");
    assert_answer(path,
                  "select loss = 9e999 and samples = 40 and bytes_up = 1.5 from steps"
                  " where step = 6",
                  "1");
    finish(store, run, "stopped");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_answer(path, "select count(*) from steps", "0");
    store_close(store);
    free(path);
}

static bool has_tensors(struct store *store, int64_t run)
{
    struct error err;
    bool has;

    CHECK(store_has_tensors(store, run, &has, &err));
    return has;
}

static void tensors_are_kept_beside_their_epoch(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct tensor_row tensors[] = {{.tensor = "encoder.weight", .elements = 7, .bytes_up = 1.5},
                                   {.tensor = "it's", .compression_error = NAN}};
    struct epoch_row row = an_epoch(0);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    row.tensor = tensors;
    row.tensors_kept = 2;
    tensors[1].residual_norm = NOT_MEASURED;
    for (int twice = 0; twice < 2; twice++)
        write_epoch(store, run, &row);
    assert_true(has_tensors(store, run));
    row.epoch = 1;
    row.tensors_kept = 0;
    write_epoch(store, run, &row);
    assert_false(has_tensors(store, run));
    assert_answer(path, "select group_concat(epoch || ' ' || tensor) from tensors",
                  "0 encoder.weight,0 it's");
    assert_answer(path,
                  "select elements = 7 and bytes_up = 1.5 and residual_norm = 0 from tensors"
                  " where tensor = 'encoder.weight'",
                  "1");
    assert_answer(path,
                  "select residual_norm is null and compression_error = 9e999 from tensors"
                  " where tensor <> 'encoder.weight'",
                  "1");
    finish(store, run, "stopped");
    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_answer(path, "select count(*) from tensors", "0");
    store_close(store);
    free(path);
}

static void an_epoch_written_twice_is_replaced(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    row.steps = 7;
    write_epoch(store, run, &row);
    store_close(store);
    assert_answer(path, "select count(*) || ' ' || steps from epochs", "1 7");
    free(path);
}

static void times_are_iso_8601_with_milliseconds(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_answer(path, "select finished_at from runs", "NULL");
    finish(store, run, "done");
    store_close(store);
    assert_answer(path,
                  "select count(*) from runs where started_at glob"
                  " '20[0-9][0-9]-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9].[0-9][0-9]"
                  "[0-9]Z' and heartbeat_at >= started_at and finished_at >= started_at",
                  "1");
    free(path);
}

static void an_unknown_status_is_refused(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct error err;
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    assert_false(store_finish(store, run, "splendid", NULL, 0, &err));
    assert_answer(path, "select status from runs", "running");
    store_close(store);
    free(path);
}

/* Two epochs, the second of which is better and sends less, and both tests. */
static int64_t write_small_run(struct store *store)
{
    static const struct test_row tests[] = {
        {.which = "best", .selected_on = "valid_loss", .epoch = 2, .loss = 2.5, .scored = 10},
        {.which = "last", .epoch = 2, .loss = 3, .scored = 10},
    };
    struct run_row row = a_run("1a2b3c4d5e6f7081", "say \"hi\"\\there");
    struct epoch_row epoch = an_epoch(1);
    struct error err;
    int64_t run;

    CHECK(claim_row(store, &row, false, &run) == STORE_NEW);
    write_epoch(store, run, &epoch);
    epoch = an_epoch(2);
    epoch.valid_loss = 2;
    epoch.steps = 300;
    epoch.bytes_up = 40;
    epoch.bytes_up_step = 0.0625;
    epoch.density = 0.002;
    write_epoch(store, run, &epoch);
    CHECK(store_finish(store, run, "done", tests, 2, &err));
    return run;
}

static void the_view_sums_a_run_up(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);

    write_small_run(store);
    store_close(store);
    assert_answer(
        path,
        "select status || ' ' || epochs || ' ' || best_epoch || ' ' || bytes_up || ' ' ||"
        " bytes_up_per_step || ' ' || compression || ' ' || round(compression_last, 1) || ' ' ||"
        " density || ' ' || seconds from summary",
        "done 2 2 200.0 0.5 80.0 426.7 0.004 20.0");
    assert_answer(path,
                  "select round(perplexity, 3) || ' ' || round(best_perplexity, 3) || ' ' ||"
                  " round(test_best, 3) || ' ' || round(test_last, 3) from summary",
                  "7.389 7.389 12.182 20.086");
    free(path);
}

static void the_last_line_tells_key_status_and_metrics(void **state)
{
    char *path = path_of(__func__), *text;
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    struct error err;
    int64_t run = write_small_run(store);

    assert_true(store_summary(store, run, false, &text, &err));
    assert_string_equal(text, "say \"hi\"\\there done key 1a2b3c4d5e6f epochs 2 perplexity 7.39 "
                              "test 20.09 best-test 12.18 bytes_up 200 ratio 80.0 seconds 20.0");
    free(text);
    assert_int_equal(claim_key(store, "b", &run), STORE_NEW);
    row.valid_loss = NAN;
    write_epoch(store, run, &row);
    finish(store, run, "diverged");
    assert_true(store_summary(store, run, false, &text, &err));
    assert_string_equal(text, "b diverged key b epochs 1 perplexity Infinity bytes_up 160 "
                              "ratio 50.0 seconds 10.0");
    free(text);
    assert_false(store_summary(store, 77, false, &text, &err));
    store_close(store);
    free(path);
}

static void the_last_line_is_valid_json(void **state)
{
    char *path = path_of(__func__), *text, *sql;
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    struct error err;
    int64_t run = write_small_run(store);

    assert_true(store_summary(store, run, true, &text, &err));
    assert_null(strchr(text, '\n'));
    sql =
        sqlite3_mprintf("select %Q ->> 'name' || ' ' || round(%Q ->> 'test_best', 2)", text, text);
    assert_answer(path, sql, "say \"hi\"\\there 12.18");
    sqlite3_free(sql);
    free(text);
    assert_int_equal(claim_key(store, "b", &run), STORE_NEW);
    row.valid_loss = INFINITY;
    row.bytes_up = INFINITY;
    write_epoch(store, run, &row);
    finish(store, run, "diverged");
    assert_true(store_summary(store, run, true, &text, &err));
    assert_non_null(strstr(text, "\"status\":\"diverged\""));
    assert_non_null(strstr(text, "\"perplexity\":null"));
    assert_null(strstr(text, "nf"));
    sql = sqlite3_mprintf("select json_valid(%Q)", text);
    assert_answer(path, sql, "1");
    sqlite3_free(sql);
    free(text);
    store_close(store);
    free(path);
}

/* The one file. */

static void a_copy_of_the_one_file_holds_the_epoch(void **state)
{
    char *path = path_of(__func__), *copy;
    struct store *store = open_store(path);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    for (uint32_t epoch = 1; epoch <= 3; epoch++) {
        struct epoch_row row = an_epoch(epoch);

        write_epoch(store, run, &row);
        copy = copy_of(path);
        assert_int_equal(ask_number(copy, "select count(*) from epochs"), epoch);
        assert_answer(copy, "pragma integrity_check", "ok");
        free(copy);
    }
    store_close(store);
    free(path);
}

static void no_log_is_left_after_the_end(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path), *other = open_store(path);
    struct epoch_row row = an_epoch(1);
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    write_epoch(store, run, &row);
    store_close(store);
    assert_true(exists(path, "-wal"));
    store_close(other);
    assert_false(exists(path, "-wal"));
    assert_false(exists(path, "-shm"));
    free(path);
}

static void a_reader_in_the_way_holds_nothing_up(void **state)
{
    char *path = path_of(__func__), *copy;
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    double begun = seconds_now();
    sqlite3 *reader;
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    reader = open_raw(path);
    CHECK(sqlite3_exec(reader, "begin; select * from runs", NULL, NULL, NULL) == SQLITE_OK);
    write_epoch(store, run, &row);
    assert_true(seconds_now() - begun < 4);
    sqlite3_close(reader);
    row.epoch = 2;
    write_epoch(store, run, &row);
    copy = copy_of(path);
    assert_answer(copy, "select count(*) from epochs", "2");
    store_close(store);
    free(copy);
    free(path);
}

/* Many processes. */

static void a_locked_database_is_waited_for(void **state)
{
    char *path = path_of(__func__);
    struct store *store = open_store(path);
    struct epoch_row row = an_epoch(1);
    struct error err;
    int64_t run;
    int ready[2];
    char byte;
    pid_t child;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    CHECK(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        sqlite3 *db = open_raw(path);

        CHECK(sqlite3_exec(db, "begin immediate", NULL, NULL, NULL) == SQLITE_OK);
        CHECK(write(ready[1], "r", 1) == 1);
        usleep(700000);
        _exit(sqlite3_close(db) != SQLITE_OK);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    assert_true(store_heartbeat(store, run, &err)); /* at once */
    assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    write_epoch(store, run, &row);
    assert_true(succeeded(child));
    assert_answer(path, "select count(*) from epochs", "1");
    close(ready[0]);
    close(ready[1]);
    store_close(store);
    free(path);
}

static void a_heartbeat_tells_that_one_lives(void **state)
{
    char *path = path_of(__func__), *first, *second;
    struct store *store = open_store(path);
    struct error err;
    int64_t run;

    assert_int_equal(claim_key(store, "a", &run), STORE_NEW);
    run_raw(path, "update runs set heartbeat_at = 'long ago'");
    assert_true(store_heartbeat(store, run, &err));
    first = ask(path, "select heartbeat_at from runs");
    assert_string_not_equal(first, "long ago");
    usleep(2000);
    assert_true(store_heartbeat(store, run, &err));
    second = ask(path, "select heartbeat_at from runs");
    assert_string_equal(first, second);
    store_close(store);
    free(first);
    free(second);
    free(path);
}

#define PROCESSES 16
#define EPOCHS    5

static pid_t start_writer(const char *path, int number)
{
    pid_t child = fork();

    CHECK(child >= 0);
    if (child == 0) {
        struct store *store = open_store(path);
        char *key = format_text("key%d", number);
        int64_t run;

        CHECK(claim_key(store, key, &run) == STORE_NEW);
        for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
            struct epoch_row row = an_epoch(epoch);

            write_epoch(store, run, &row);
        }
        finish(store, run, "done");
        store_close(store);
        _exit(0);
    }
    return child;
}

static void run_writers(const char *path)
{
    pid_t children[PROCESSES];
    bool ok = true;

    for (int i = 0; i < PROCESSES; i++)
        children[i] = start_writer(path, i);
    for (int i = 0; i < PROCESSES; i++)
        ok = succeeded(children[i]) && ok;
    assert_true(ok);
    assert_int_equal(ask_number(path, "select count(*) from summary where status = 'done'"),
                     PROCESSES);
    assert_int_equal(ask_number(path, "select count(*) from epochs"), PROCESSES * EPOCHS);
    assert_answer(path, "pragma integrity_check", "ok");
    assert_false(exists(path, "-wal"));
}

static void sixteen_processes_lose_nothing(void **state)
{
    char *path = path_of(__func__);

    run_writers(path);
    free(path);
}

static void sixteen_processes_lose_nothing_on_a_network(void **state)
{
    char *path = path_of(__func__);

    file_system = NFS;
    run_writers(path);
    file_system = EXT4;
    free(path);
}

/* Runs of five epochs without end; each epoch is told to out when store_epoch has returned. */
static void write_runs(const char *path, int round, int out)
{
    struct store *store = open_store(path);

    for (int i = 0;; i++) {
        char *key = format_text("round%d-%d", round, i);
        int64_t run;

        CHECK(claim_key(store, key, &run) == STORE_NEW);
        for (uint32_t epoch = 1; epoch <= EPOCHS; epoch++) {
            struct epoch_row row = an_epoch(epoch);

            write_epoch(store, run, &row);
            CHECK(write(out, "e", 1) == 1);
        }
        finish(store, run, "done");
        free(key);
    }
}

static void a_killed_process_leaves_every_epoch_it_was_told_of(void **state)
{
    char *path = path_of(__func__);
    long told = 0;

    store_close(open_store(path)); /* so that there are tables, however soon the first is killed */
    srand(1);
    for (int round = 0; round < 30; round++) {
        int ready[2];
        pid_t child;
        char byte;

        CHECK(pipe(ready) == 0);
        child = fork();
        CHECK(child >= 0);
        if (child == 0)
            write_runs(path, round, ready[1]);
        close(ready[1]);
        usleep((useconds_t)(10000 + rand() % 40000));
        kill_and_wait(child);
        while (read(ready[0], &byte, 1) == 1)
            told++;
        close(ready[0]);
        /* An epoch may be there of which the process had no time to hear. */
        assert_in_range(ask_number(path, "select count(*) from epochs"), told, told + round + 1);
        assert_answer(path, "pragma integrity_check", "ok");
        assert_answer(path,
                      "select count(*) from (select 1 from epochs group by run_id"
                      " having max(epoch) <> count(*))",
                      "0");
    }
    assert_true(told > 0);
    free(path);
}

static int make_folder(void **state)
{
    return mkdtemp(folder) == NULL || chmod(folder, 0755) != 0;
}

static int remove_folder(void **state)
{
    char *command = format_text("rm -rf '%s'", folder);
    int status = system(command);

    free(command);
    return status;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_fresh_file_has_the_tables),
        cmocka_unit_test(what_was_written_is_there_when_opened_again),
        cmocka_unit_test(an_older_version_is_brought_up),
        cmocka_unit_test(ranks_are_of_images_and_perplexity_of_texts),
        cmocka_unit_test(a_newer_version_is_refused),
        cmocka_unit_test(another_programs_database_is_refused_and_left_alone),
        cmocka_unit_test(a_text_file_is_refused),
        cmocka_unit_test(a_truncated_file_is_refused),
        cmocka_unit_test(a_place_where_no_file_can_be_is_refused),
        cmocka_unit_test(a_folder_without_permission_is_refused),
        cmocka_unit_test(a_network_file_system_gets_a_rollback_journal),
        cmocka_unit_test(a_key_is_elsewhere_until_its_process_is_killed),
        cmocka_unit_test(a_key_of_our_own_is_elsewhere),
        cmocka_unit_test(a_zombie_is_dead),
        cmocka_unit_test(a_pid_that_is_used_again_is_dead),
        cmocka_unit_test(another_host_lives_by_its_heartbeat),
        cmocka_unit_test(a_finished_run_over_other_data_is_not_this_one),
        cmocka_unit_test(a_finished_run_joins_the_first_experiment_that_asks),
        cmocka_unit_test(what_did_not_end_well_is_begun_anew),
        cmocka_unit_test(a_finished_run_is_begun_anew_only_if_asked_again),
        cmocka_unit_test(a_name_of_another_key_is_refused_with_the_settings_that_differ),
        cmocka_unit_test(of_many_differences_some_are_named_and_the_rest_counted),
        cmocka_unit_test(an_epoch_of_a_run_begun_anew_is_refused),
        cmocka_unit_test(what_is_not_finite_never_ranks_best),
        cmocka_unit_test(steps_are_kept_beside_their_epoch),
        cmocka_unit_test(tensors_are_kept_beside_their_epoch),
        cmocka_unit_test(an_epoch_written_twice_is_replaced),
        cmocka_unit_test(times_are_iso_8601_with_milliseconds),
        cmocka_unit_test(an_unknown_status_is_refused),
        cmocka_unit_test(the_view_sums_a_run_up),
        cmocka_unit_test(the_last_line_tells_key_status_and_metrics),
        cmocka_unit_test(the_last_line_is_valid_json),
        cmocka_unit_test(a_copy_of_the_one_file_holds_the_epoch),
        cmocka_unit_test(no_log_is_left_after_the_end),
        cmocka_unit_test(a_reader_in_the_way_holds_nothing_up),
        cmocka_unit_test(a_locked_database_is_waited_for),
        cmocka_unit_test(a_heartbeat_tells_that_one_lives),
        cmocka_unit_test(sixteen_processes_lose_nothing),
        cmocka_unit_test(sixteen_processes_lose_nothing_on_a_network),
        cmocka_unit_test(a_killed_process_leaves_every_epoch_it_was_told_of),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
