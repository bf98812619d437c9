/*
 * Every access is a piece of work that is tried as a whole, and again while the database is locked;
 * whatever writes does so in a transaction that takes the write lock first (begin immediate), so
 * that none fails half-way for a lock.
 *
 * In write-ahead mode a commit is not synced by itself (synchronous = normal): what an epoch must
 * survive, a killed process and a copy of the one file, the checkpoint after it brings about, and
 * that syncs too.  A heartbeat thus costs no sync.
 */
#include "results/store.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "results/process.h"
#include "results/schema.h"

#define PATIENCE_SECONDS  60
#define FOLD_SECONDS      1 /* a reader in another process may hold the checkpoint up */
#define HEARTBEAT_SECONDS 5
#define SMALLEST_BYTES    512 /* what is shorter SQLite takes for empty, and writes over it */
#define SILENT_SECONDS    600 /* without a heartbeat, a process on another host counts as dead */

/* migrations[v] makes version v + 1 of version v; 0 is an empty file, which schema.sql makes the
 * newest at once.  Append; never change one that was released.  Views are made anew behind them, as
 * schema.sql has them: those that are no more, or another, are to be dropped. */
static const char *const migrations[] = {
    NULL, "drop view summary", /* it had no top1 */
};

#define NEWEST_VERSION ((int64_t)ARRAY_LENGTH(migrations))
_Static_assert(ARRAY_LENGTH(migrations) == STORE_VERSION, "store.h has another version");

struct store {
    sqlite3 *db;
    char *path, *notice;
    int code; /* what SQLite said when the last work failed, or SQLITE_OK if the fault is ours */
    double next_heartbeat;
    struct process self;
};

typedef bool (*store_work)(struct store *store, void *arg, struct error *err);

/* Statements. */

static bool is_busy(int code)
{
    return code == SQLITE_BUSY || code == SQLITE_LOCKED || code == SQLITE_PROTOCOL;
}

static bool fail_gone(const struct store *store, struct error *err)
{
    return fail(err, "%s: the run is no longer there: it was begun anew or deleted", store->path);
}

static bool fault(struct store *store, struct error *err)
{
    int code = sqlite3_extended_errcode(store->db);
    int cause = sqlite3_system_errno(store->db);

    store->code = code & 0xff;
    if (is_busy(store->code))
        return fail(err, "%s: still locked by another process after %d seconds", store->path,
                    PATIENCE_SECONDS);
    if (code == SQLITE_CONSTRAINT_FOREIGNKEY)
        return fail_gone(store, err);
    if ((store->code == SQLITE_IOERR || store->code == SQLITE_CANTOPEN) && cause != 0)
        return fail(err, "%s: %s: %s", store->path, sqlite3_errmsg(store->db), strerror(cause));
    return fail(err, "%s: %s", store->path, sqlite3_errmsg(store->db));
}

static bool run_script(struct store *store, const char *sql, struct error *err)
{
    return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK || fault(store, err);
}

/* NULL after a fault. */
static sqlite3_stmt *prepare(struct store *store, const char *sql, struct error *err)
{
    sqlite3_stmt *statement = NULL;

    if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK)
        fault(store, err);
    return statement;
}

static int place_of(sqlite3_stmt *statement, const char *name)
{
    int place = sqlite3_bind_parameter_index(statement, name);

    CHECK(place > 0);
    return place;
}

/* The text must live until the statement has run. */
static void bind_text(sqlite3_stmt *statement, const char *name, const char *text)
{
    CHECK(sqlite3_bind_text(statement, place_of(statement, name), text, -1, SQLITE_STATIC) ==
          SQLITE_OK);
}

static void bind_integer(sqlite3_stmt *statement, const char *name, int64_t value)
{
    CHECK(sqlite3_bind_int64(statement, place_of(statement, name), value) == SQLITE_OK);
}

/* worst stands for what is not finite. */
static void bind_metric(sqlite3_stmt *statement, const char *name, double value, double worst)
{
    int place = place_of(statement, name);

    if (value == NOT_MEASURED)
        CHECK(sqlite3_bind_null(statement, place) == SQLITE_OK);
    else
        CHECK(sqlite3_bind_double(statement, place, isfinite(value) ? value : worst) == SQLITE_OK);
}

static void bind_less_is_better(sqlite3_stmt *statement, const char *name, double value)
{
    bind_metric(statement, name, value, INFINITY);
}

static void bind_more_is_better(sqlite3_stmt *statement, const char *name, double value)
{
    bind_metric(statement, name, value, -INFINITY);
}

/* True if there is a row; false also after a fault, which *ok tells. */
static bool next_row(struct store *store, sqlite3_stmt *statement, bool *ok, struct error *err)
{
    int code = sqlite3_step(statement);

    *ok = code == SQLITE_ROW || code == SQLITE_DONE || fault(store, err);
    return code == SQLITE_ROW;
}

/* Runs a statement that yields no rows, and finalises it. */
static bool execute(struct store *store, sqlite3_stmt *statement, struct error *err)
{
    bool ok;

    next_row(store, statement, &ok, err);
    sqlite3_finalize(statement);
    return ok;
}

static bool read_integer(struct store *store, const char *sql, int64_t *value, struct error *err)
{
    sqlite3_stmt *statement = prepare(store, sql, err);
    bool ok;

    if (statement == NULL)
        return false;
    if (next_row(store, statement, &ok, err))
        *value = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return ok;
}

/* Locks. */

/* begin is NULL (no transaction), "begin" (one snapshot) or "begin immediate" (a writer's). */
static bool attempt(struct store *store, const char *begin, store_work work, void *arg,
                    struct error *err)
{
    store->code = SQLITE_OK;
    if (begin != NULL && !run_script(store, begin, err))
        return false;
    if (!work(store, arg, err))
        return false;
    return begin == NULL || run_script(store, "commit", err);
}

static void roll_back(struct store *store)
{
    if (!sqlite3_get_autocommit(store->db))
        sqlite3_exec(store->db, "rollback", NULL, NULL, NULL);
}

/* SQLite's own busy timeout does most of the waiting, but gives some locks up at once: those of a
 * change of the journal's kind, of a snapshot that is outdated, of a race for the log. */
static bool patiently(struct store *store, const char *begin, store_work work, void *arg,
                      struct error *err)
{
    double until = seconds_now() + PATIENCE_SECONDS;

    while (!attempt(store, begin, work, arg, err)) {
        roll_back(store);
        if (!is_busy(store->code) || seconds_now() > until)
            return false;
        usleep(10000);
    }
    return true;
}

/* After this the one file holds all that this process has committed, unless a reader elsewhere
 * sits on an old snapshot; then the next epoch's does it. */
static void fold_log(struct store *store)
{
    double until = seconds_now() + FOLD_SECONDS;

    while (seconds_now() < until) {
        int frames = 0, folded = 0;
        int code =
            sqlite3_wal_checkpoint_v2(store->db, NULL, SQLITE_CHECKPOINT_PASSIVE, &frames, &folded);

        if (code == SQLITE_OK && frames == folded)
            return;
        usleep(5000);
    }
}

/* Opening. */

/* SQLite's own words for these are all "unable to open database file". */
static bool check_place(const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/');
    struct stat status;
    char *folder;
    bool ok;

    if (path[0] == '\0')
        return fail(err, "'': the path of the database is empty");
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode))
            return fail(err, "%s: a folder, where a database file is expected", path);
        if (!S_ISREG(status.st_mode))
            return fail(err, "%s: not a regular file, as a database is", path);
        if (status.st_size > 0 && status.st_size < SMALLEST_BYTES)
            return fail(err, "%s: %jd bytes are no database", path, (intmax_t)status.st_size);
        if (access(path, R_OK | W_OK) != 0)
            return fail(err, "%s: the database cannot be written: %s", path, strerror(errno));
    } else if (errno != ENOENT) {
        return fail(err, "%s: %s", path, strerror(errno));
    }
    folder = slash == NULL ? format_text(".") : format_text("%.*s", (int)(slash - path + 1), path);
    ok = access(folder, W_OK | X_OK) == 0 ||
         fail(err, "%s: the folder of the database cannot be written: %s", path, strerror(errno));
    free(folder);
    return ok;
}

/* So that a lack is told before the training, not behind it. */
static bool has_tables(struct store *store, struct error *err)
{
    static const char *const names[] = {"runs", "settings", "epochs", "steps", "tests", "summary"};

    for (size_t i = 0; i < ARRAY_LENGTH(names); i++) {
        char sql[64];
        int64_t one = 0;

        snprintf(sql, sizeof(sql), "select 1 from %s limit 0", names[i]);
        if (!read_integer(store, sql, &one, err))
            return false;
    }
    return true;
}

/* Version 0 is an empty file.  What is not ours is refused before anything in it is changed. */
static bool recognise(struct store *store, void *arg, struct error *err)
{
    int64_t *version = arg;
    int64_t tables = 0, application = 0;

    if (!read_integer(store, "select count(*) from sqlite_master", &tables, err) ||
        !read_integer(store, "pragma application_id", &application, err) ||
        !read_integer(store, "pragma user_version", version, err))
        return false;
    if (application == 0 && *version == 0 && tables == 0)
        return true;
    if (application != STORE_APPLICATION_ID)
        return fail(err, "%s: a database of another program, not of gradpress", store->path);
    if (*version > NEWEST_VERSION)
        return fail(err,
                    "%s: written by a newer gradpress: version %" PRId64
                    " of the schema, where this one knows up to %" PRId64,
                    store->path, *version, NEWEST_VERSION);
    if (*version < 1)
        return fail(err, "%s: damaged: version %" PRId64 " of the schema, where 1 is the first",
                    store->path, *version);
    return *version < NEWEST_VERSION || has_tables(store, err);
}

/* schema.sql has tables, then views. */
static bool make_views(struct store *store, struct error *err)
{
    const char *views = strstr(schema_sql, "create view ");

    CHECK(views != NULL && strstr(views, "create table ") == NULL);
    return run_script(store, views, err);
}

static bool migrate(struct store *store, void *arg, struct error *err)
{
    char text[96];
    int64_t version = 0;

    if (!recognise(store, &version, err))
        return false;
    if (version == 0) {
        if (!run_script(store, schema_sql, err))
            return false;
        version = NEWEST_VERSION;
    }
    for (bool behind = version < NEWEST_VERSION; behind; behind = version < NEWEST_VERSION)
        if (!run_script(store, migrations[version++], err) ||
            (version == NEWEST_VERSION && !make_views(store, err)))
            return false;
    snprintf(text, sizeof(text), "pragma application_id = %d; pragma user_version = %" PRId64,
             STORE_APPLICATION_ID, version);
    return run_script(store, text, err);
}

/* The file systems on which a write-ahead log is not safe, for its index is shared memory. */
static const char *network_of(const char *path)
{
    static const struct {
        uint32_t type;
        const char *name;
    } networks[] = {
        {0x01021997, "9p"},     {0x5346414f, "afs"},  {0x6b414653, "afs"},  {0x19830326, "beegfs"},
        {0x00c36400, "ceph"},   {0xff534d42, "cifs"}, {0x65735546, "fuse"}, {0x47504653, "gpfs"},
        {0x0bd00bd0, "lustre"}, {0x00006969, "nfs"},  {0xfe534d42, "smb"},
    };
    struct statfs status;

    if (statfs(path, &status) != 0)
        return NULL;
    for (size_t i = 0; i < ARRAY_LENGTH(networks); i++)
        if (networks[i].type == (uint32_t)status.f_type)
            return networks[i].name;
    return NULL;
}

static bool read_journal(struct store *store, const char *sql, bool *wal, struct error *err)
{
    sqlite3_stmt *statement = prepare(store, sql, err);
    bool ok;

    if (statement == NULL)
        return false;
    *wal = next_row(store, statement, &ok, err) &&
           strcmp((const char *)sqlite3_column_text(statement, 0), "wal") == 0;
    sqlite3_finalize(statement);
    return ok;
}

static bool choose_journal(struct store *store, void *arg, struct error *err)
{
    const char *network = network_of(store->path);
    bool wal;

    if (!read_journal(
            store, network == NULL ? "pragma journal_mode = wal" : "pragma journal_mode = delete",
            &wal, err))
        return false;
    free(store->notice);
    store->notice = NULL;
    if (!wal)
        store->notice = format_text("%s: a rollback journal is kept, for %s%s cannot share a "
                                    "write-ahead log",
                                    store->path, network == NULL ? "its file system" : "",
                                    network == NULL ? "" : network);
    return run_script(store, wal ? "pragma synchronous = normal" : "pragma synchronous = full",
                      err);
}

static bool prepare_database(struct store *store, struct error *err)
{
    int64_t version = 0;

    if (!patiently(store, "begin", recognise, &version, err) ||
        !patiently(store, NULL, choose_journal, NULL, err) ||
        !run_script(store, "pragma foreign_keys = on", err))
        return false;
    if (version == NEWEST_VERSION)
        return true;
    if (!patiently(store, "begin immediate", migrate, NULL, err))
        return false;
    fold_log(store);
    return true;
}

char *store_address(const char *path)
{
    return format_text("%s%s", path[0] == '/' ? "" : "./", path);
}

bool store_open(struct store **store, const char *path, struct error *err)
{
    struct store *opened;
    char *address;
    int code;

    if (!check_place(path, err))
        return false;
    opened = allocate(1, sizeof(*opened));
    opened->path = format_text("%s", path);
    process_self(&opened->self);
    address = store_address(path);
    code = sqlite3_open_v2(address, &opened->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL);
    free(address);
    CHECK(opened->db != NULL);
    sqlite3_extended_result_codes(opened->db, 1);
    sqlite3_busy_timeout(opened->db, PATIENCE_SECONDS * 1000);
    if ((code != SQLITE_OK && !fault(opened, err)) || !prepare_database(opened, err)) {
        store_close(opened);
        return false;
    }
    *store = opened;
    return true;
}

void store_close(struct store *store)
{
    if (store == NULL)
        return;
    /* The last connection folds the log and removes it. */
    CHECK(sqlite3_close(store->db) == SQLITE_OK);
    free(store->path);
    free(store->notice);
    free(store);
}

const char *store_notice(const struct store *store)
{
    return store->notice;
}

/* Claiming. */

/* The settings in which two runs differ, in words. */
struct differences {
    char text[256]; /* leaves room for the rest of the sentence in struct error */
    int named, more;
};

/* At most 40 bytes of a value, and no part of a character. */
static int shown_length(const char *text)
{
    size_t length = strnlen(text, 41);

    if (length == 41)
        for (length = 40; length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80;)
            length--;
    return (int)length;
}

static void add_difference(struct differences *d, const char *key, const char *there,
                           const char *here)
{
    size_t length = strlen(d->text), room = sizeof(d->text) - length;
    int written;

    there = there == NULL ? "none" : there;
    here = here == NULL ? "none" : here;
    if (d->named == 5 || d->more > 0) {
        d->more++;
        return;
    }
    written =
        snprintf(d->text + length, room, "%s%s: %.*s there, %.*s here", d->named > 0 ? "; " : "",
                 key, shown_length(there), there, shown_length(here), here);
    if (written < 0 || (size_t)written >= room) {
        d->text[length] = '\0';
        d->more++;
    } else {
        d->named++;
    }
}

static void compare_setting(struct differences *d, const struct run_row *row, bool *seen,
                            const char *key, const char *there)
{
    for (size_t i = 0; i < row->settings_count; i++) {
        if (strcmp(row->settings[i].key, key) == 0) {
            seen[i] = true;
            if (strcmp(row->settings[i].value, there) != 0)
                add_difference(d, key, there, row->settings[i].value);
            return;
        }
    }
    add_difference(d, key, there, NULL);
}

static bool find_differences(struct store *store, int64_t other, const struct run_row *row,
                             struct differences *d, struct error *err)
{
    sqlite3_stmt *statement =
        prepare(store, "select key, coalesce(value, '') from settings where run_id = :run", err);
    bool *seen, ok;

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", other);
    seen = allocate(row->settings_count, sizeof(*seen));
    while (next_row(store, statement, &ok, err))
        compare_setting(d, row, seen, (const char *)sqlite3_column_text(statement, 0),
                        (const char *)sqlite3_column_text(statement, 1));
    for (size_t i = 0; ok && i < row->settings_count; i++)
        if (!seen[i])
            add_difference(d, row->settings[i].key, NULL, row->settings[i].value);
    free(seen);
    sqlite3_finalize(statement);
    return ok;
}

static bool refuse_name(struct store *store, int64_t other, const struct run_row *row,
                        struct error *err)
{
    struct differences d = {0};
    char more[32] = "";

    if (!find_differences(store, other, row, &d, err))
        return false;
    if (d.named == 0 && d.more == 0)
        return fail(err, "%s: '%s' is the name of a run with another key than %.12s", store->path,
                    row->name, row->key);
    if (d.more > 0)
        snprintf(more, sizeof(more), "%s%d more", d.named > 0 ? " and " : "", d.more);
    return fail(err, "%s: '%s' is the name of a run with other settings: %s%s", store->path,
                row->name, d.text, more);
}

static bool check_name(struct store *store, const struct run_row *row, struct error *err)
{
    sqlite3_stmt *statement =
        prepare(store, "select id from runs where name = :name and key <> :key", err);
    int64_t other = 0;
    bool taken, ok;

    if (statement == NULL)
        return false;
    bind_text(statement, ":name", row->name);
    bind_text(statement, ":key", row->key);
    taken = next_row(store, statement, &ok, err);
    if (taken)
        other = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    return ok && (!taken || refuse_name(store, other, row, err));
}

/* What stands under a key; id is 0 if nothing does. */
struct found {
    int64_t id;
    bool finished, lives, other_data;
};

static bool find_run(struct store *store, const struct run_row *row, struct found *found,
                     struct error *err)
{
    sqlite3_stmt *statement =
        prepare(store,
                "select id, status in ('done', 'diverged'), status = 'running',"
                "       host = :host and pid_space = :pid_space, pid, pid_started,"
                "       coalesce((julianday('now') - julianday(heartbeat_at)) * 86400, 1e9),"
                "       coalesce(data_sha256 <> :data_sha256, 0)"
                " from runs where key = :key",
                err);
    bool ok;

    *found = (struct found){0};
    if (statement == NULL)
        return false;
    bind_text(statement, ":key", row->key);
    bind_text(statement, ":data_sha256", row->data_sha256);
    bind_text(statement, ":host", store->self.host);
    bind_text(statement, ":pid_space", store->self.space);
    if (next_row(store, statement, &ok, err)) {
        bool running = sqlite3_column_int(statement, 2), here = sqlite3_column_int(statement, 3);

        found->id = sqlite3_column_int64(statement, 0);
        found->finished = sqlite3_column_int(statement, 1);
        found->lives = running && (here ? process_lives(sqlite3_column_int64(statement, 4),
                                                        sqlite3_column_int64(statement, 5))
                                        : sqlite3_column_double(statement, 6) < SILENT_SECONDS);
        found->other_data = sqlite3_column_int(statement, 7);
    }
    sqlite3_finalize(statement);
    return ok;
}

static bool remove_run(struct store *store, int64_t run, struct error *err)
{
    sqlite3_stmt *statement = prepare(store, "delete from runs where id = :run", err);

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", run);
    return execute(store, statement, err);
}

static void bind_process(sqlite3_stmt *statement, const struct store *store)
{
    bind_text(statement, ":host", store->self.host);
    bind_integer(statement, ":pid", store->self.pid);
    bind_integer(statement, ":pid_started", store->self.started);
    bind_text(statement, ":pid_space", store->self.space);
}

static void bind_run(sqlite3_stmt *statement, const struct run_row *row)
{
    bind_text(statement, ":key", row->key);
    bind_text(statement, ":name", row->name);
    bind_text(statement, ":experiment", row->experiment);
    bind_text(statement, ":experiment_key", row->experiment_key);
    bind_text(statement, ":model", row->model);
    bind_text(statement, ":dataset", row->dataset);
    bind_text(statement, ":compressor", row->compressor);
    bind_text(statement, ":memory", row->memory);
    bind_text(statement, ":method", row->method);
    bind_metric(statement, ":ratio", row->ratio, INFINITY);
    bind_integer(statement, ":workers", row->workers);
    bind_integer(statement, ":batch", row->batch);
    bind_integer(statement, ":batch_total", row->batch_total);
    bind_integer(statement, ":threads", row->threads);
    bind_integer(statement, ":group_size", row->group);
    bind_integer(statement, ":streams", row->streams);
    bind_integer(statement, ":seed", (int64_t)row->seed);
    bind_text(statement, ":tuned", row->tuned);
    bind_text(statement, ":device", row->device);
    bind_text(statement, ":config", row->config);
    bind_text(statement, ":version", row->version);
    bind_text(statement, ":data_sha256", row->data_sha256);
}

#define NOW "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"

static bool insert_run(struct store *store, const struct run_row *row, int64_t *run,
                       struct error *err)
{
    sqlite3_stmt *statement = prepare(
        store,
        "insert into runs (key, name, experiment, experiment_key, model, dataset, compressor,"
        " memory, method, ratio, workers, batch, batch_total, threads, group_size, streams, seed, "
        "tuned, device, status, config,"
        " version, data_sha256, host, pid, pid_started, pid_space, started_at, heartbeat_at)"
        " values (:key, :name, :experiment, :experiment_key, :model, :dataset, :compressor,"
        " :memory, :method, :ratio, :workers, :batch, :batch_total, :threads, :group_size, "
        ":streams, :seed, :tuned, :device,"
        " 'running', :config, :version, :data_sha256, :host, :pid, :pid_started, :pid_space,"
        " " NOW ", " NOW ")",
        err);

    if (statement == NULL)
        return false;
    bind_run(statement, row);
    bind_process(statement, store);
    if (!execute(store, statement, err))
        return false;
    *run = sqlite3_last_insert_rowid(store->db);
    return true;
}

static bool insert_settings(struct store *store, const struct run_row *row, int64_t run,
                            struct error *err)
{
    for (size_t i = 0; i < row->settings_count; i++) {
        sqlite3_stmt *statement = prepare(
            store, "insert into settings (run_id, key, value) values (:run, :key, :value)", err);

        if (statement == NULL)
            return false;
        bind_integer(statement, ":run", run);
        bind_text(statement, ":key", row->settings[i].key);
        bind_text(statement, ":value", row->settings[i].value);
        if (!execute(store, statement, err))
            return false;
    }
    return true;
}

struct claim_call {
    const struct run_row *row;
    bool again;
    enum store_claim claim;
    int64_t run;
};

/* A key does not tell what stands in a user's own files. */
static bool check_data(const struct run_row *row, const struct found *found, struct error *err)
{
    return !found->other_data ||
           fail(err,
                "%s: the database has this run over other data of the same name; --again trains "
                "anew over these",
                row->name);
}

/* A finished run that belongs to no experiment joins the one that asks for it. */
static bool join_experiment(struct store *store, const struct run_row *row, int64_t run,
                            struct error *err)
{
    sqlite3_stmt *statement = prepare(store,
                                      "update runs set experiment = :experiment"
                                      " where id = :run and coalesce(experiment, '') = ''",
                                      err);

    if (statement == NULL)
        return false;
    bind_text(statement, ":experiment", row->experiment);
    bind_integer(statement, ":run", run);
    return execute(store, statement, err);
}

static bool claim(struct store *store, void *arg, struct error *err)
{
    struct claim_call *call = arg;
    struct found found;

    if (!check_name(store, call->row, err) || !find_run(store, call->row, &found, err))
        return false;
    call->run = found.id;
    if (found.lives) {
        call->claim = STORE_ELSEWHERE;
        return true;
    }
    if (found.finished && !call->again) {
        call->claim = STORE_DONE;
        return check_data(call->row, &found, err) &&
               join_experiment(store, call->row, found.id, err);
    }
    call->claim = STORE_NEW;
    return (found.id == 0 || remove_run(store, found.id, err)) &&
           insert_run(store, call->row, &call->run, err) &&
           insert_settings(store, call->row, call->run, err);
}

bool store_claim(struct store *store, const struct run_row *row, bool again,
                 enum store_claim *result, int64_t *run, struct error *err)
{
    struct claim_call call = {.row = row, .again = again};

    if (!patiently(store, "begin immediate", claim, &call, err))
        return false;
    *result = call.claim;
    *run = call.run;
    return true;
}

/* Writing. */

/* Past 709 it does not fit a double; and minus infinity must not become 0, the best of all. */
static double perplexity_of(double loss)
{
    if (loss == NOT_MEASURED)
        return NOT_MEASURED;
    return isfinite(loss) && loss <= 709 ? exp(loss) : INFINITY;
}

/* Perplexity is for texts, shares of what came first for images. */
static void bind_ranks(sqlite3_stmt *statement, bool ranked, double loss, double top1, double top5)
{
    bind_less_is_better(statement, ":perplexity", ranked ? NOT_MEASURED : perplexity_of(loss));
    bind_more_is_better(statement, ":top1", ranked ? top1 : NOT_MEASURED);
    bind_more_is_better(statement, ":top5", ranked ? top5 : NOT_MEASURED);
}

struct epoch_call {
    int64_t run;
    const struct epoch_row *row;
};

static void bind_epoch(sqlite3_stmt *statement, const struct epoch_row *row)
{
    bind_integer(statement, ":epoch", row->epoch);
    bind_less_is_better(statement, ":train_loss", row->train_loss);
    bind_less_is_better(statement, ":valid_loss", row->valid_loss);
    bind_ranks(statement, row->ranked, row->valid_loss, row->top1, row->top5);
    bind_more_is_better(statement, ":train_top1", row->ranked ? row->train_top1 : NOT_MEASURED);
    bind_more_is_better(statement, ":train_top5", row->ranked ? row->train_top5 : NOT_MEASURED);
    bind_less_is_better(statement, ":lr", row->lr);
    bind_integer(statement, ":steps", (int64_t)row->steps);
    bind_integer(statement, ":samples", (int64_t)row->samples);
    bind_less_is_better(statement, ":density", row->density);
    bind_less_is_better(statement, ":density_union", row->density_union);
    bind_less_is_better(statement, ":bytes_dense", row->bytes_dense);
    bind_less_is_better(statement, ":bytes_up", row->bytes_up);
    bind_less_is_better(statement, ":bytes_up_step", row->bytes_up_step);
    bind_less_is_better(statement, ":bytes_down", row->bytes_down);
    bind_less_is_better(statement, ":bytes_paper", row->bytes_paper);
    bind_less_is_better(statement, ":bytes_framework", row->bytes_framework);
    bind_less_is_better(statement, ":bytes_bound", row->bytes_bound);
    bind_less_is_better(statement, ":grad_norm", row->grad_norm);
    bind_less_is_better(statement, ":residual_norm", row->residual_norm);
    bind_less_is_better(statement, ":compression_error", row->compression_error);
    bind_integer(statement, ":scored", (int64_t)row->scored);
    bind_less_is_better(statement, ":seconds", row->seconds);
    bind_less_is_better(statement, ":seconds_forward", row->seconds_forward);
    bind_less_is_better(statement, ":seconds_backward", row->seconds_backward);
    bind_less_is_better(statement, ":seconds_compensate", row->seconds_compensate);
    bind_less_is_better(statement, ":seconds_encode", row->seconds_encode);
    bind_less_is_better(statement, ":seconds_exchange", row->seconds_exchange);
    bind_less_is_better(statement, ":seconds_apply", row->seconds_apply);
    bind_more_is_better(statement, ":samples_per_second", row->samples_per_second);
}

static bool touch(struct store *store, int64_t run, struct error *err)
{
    sqlite3_stmt *statement =
        prepare(store, "update runs set heartbeat_at = " NOW " where id = :run", err);

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", run);
    if (!execute(store, statement, err))
        return false;
    return sqlite3_changes(store->db) == 1 || fail_gone(store, err);
}

static void bind_step(sqlite3_stmt *statement, const struct epoch_row *epoch, size_t i)
{
    const struct step_row *row = &epoch->step[i];

    bind_integer(statement, ":step", (int64_t)row->step);
    bind_less_is_better(statement, ":loss", row->loss);
    bind_less_is_better(statement, ":lr", row->lr);
    bind_integer(statement, ":samples", (int64_t)row->samples);
    bind_less_is_better(statement, ":density", row->density);
    bind_less_is_better(statement, ":bytes_up", row->bytes_up);
    bind_less_is_better(statement, ":bytes_down", row->bytes_down);
    bind_less_is_better(statement, ":grad_norm", row->grad_norm);
}

static void bind_tensor(sqlite3_stmt *statement, const struct epoch_row *epoch, size_t i)
{
    const struct tensor_row *row = &epoch->tensor[i];

    bind_text(statement, ":tensor", row->tensor);
    bind_integer(statement, ":elements", (int64_t)row->elements);
    bind_less_is_better(statement, ":entries", row->entries);
    bind_less_is_better(statement, ":density", row->density);
    bind_less_is_better(statement, ":density_union", row->density_union);
    bind_less_is_better(statement, ":bytes_up", row->bytes_up);
    bind_less_is_better(statement, ":bytes_down", row->bytes_down);
    bind_less_is_better(statement, ":bytes_paper", row->bytes_paper);
    bind_less_is_better(statement, ":bytes_framework", row->bytes_framework);
    bind_less_is_better(statement, ":bytes_bound", row->bytes_bound);
    bind_less_is_better(statement, ":residual_norm", row->residual_norm);
    bind_less_is_better(statement, ":compression_error", row->compression_error);
}

/* Rows of another table that belong to an epoch. */
struct rows_within {
    size_t count;
    void (*bind)(sqlite3_stmt *statement, const struct epoch_row *epoch, size_t i);
    const char *sql;
};

static bool write_within(struct store *store, const struct epoch_call *call,
                         const struct rows_within *rows, struct error *err)
{
    sqlite3_stmt *statement;
    bool ok = true;

    if (rows->count == 0)
        return true;
    statement = prepare(store, rows->sql, err);
    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", call->run);
    bind_integer(statement, ":epoch", call->row->epoch);
    for (size_t i = 0; ok && i < rows->count; i++) {
        rows->bind(statement, call->row, i);
        next_row(store, statement, &ok, err);
        sqlite3_reset(statement);
    }
    sqlite3_finalize(statement);
    return ok;
}

static bool write_steps(struct store *store, const struct epoch_call *call, struct error *err)
{
    struct rows_within steps = {
        call->row->steps_kept, bind_step,
        "insert or replace into steps (run_id, step, epoch, loss, lr, samples, density, bytes_up,"
        " bytes_down, grad_norm)"
        " values (:run, :step, :epoch, :loss, :lr, :samples, :density, :bytes_up, :bytes_down,"
        " :grad_norm)"};

    return write_within(store, call, &steps, err);
}

static bool write_tensors(struct store *store, const struct epoch_call *call, struct error *err)
{
    struct rows_within tensors = {
        call->row->tensors_kept, bind_tensor,
        "insert or replace into tensors (run_id, epoch, tensor, elements, entries, density,"
        " density_union, bytes_up, bytes_down, bytes_paper, bytes_framework, bytes_bound,"
        " residual_norm, compression_error)"
        " values (:run, :epoch, :tensor, :elements, :entries, :density, :density_union, :bytes_up,"
        " :bytes_down, :bytes_paper, :bytes_framework, :bytes_bound, :residual_norm,"
        " :compression_error)"};

    return write_within(store, call, &tensors, err);
}

/* An epoch that is there already (of a run that was taken up again) is replaced. */
static bool write_epoch(struct store *store, void *arg, struct error *err)
{
    const struct epoch_call *call = arg;
    sqlite3_stmt *statement = prepare(
        store,
        "insert or replace into epochs (run_id, epoch, train_loss, train_top1, train_top5,"
        " valid_loss, top1, top5, perplexity, lr,"
        " steps, samples, density, density_union, bytes_dense, bytes_up, bytes_up_step,"
        " bytes_down, bytes_paper, bytes_framework, bytes_bound, grad_norm, residual_norm,"
        " compression_error, scored, seconds, seconds_forward, seconds_backward,"
        " seconds_compensate, seconds_encode, seconds_exchange, seconds_apply, samples_per_second)"
        " values (:run, :epoch, :train_loss, :train_top1, :train_top5,"
        " :valid_loss, :top1, :top5, :perplexity, :lr,"
        " :steps, :samples, :density, :density_union, :bytes_dense, :bytes_up, :bytes_up_step,"
        " :bytes_down, :bytes_paper, :bytes_framework, :bytes_bound, :grad_norm, :residual_norm,"
        " :compression_error, :scored, :seconds, :seconds_forward, :seconds_backward,"
        " :seconds_compensate, :seconds_encode, :seconds_exchange, :seconds_apply,"
        " :samples_per_second)",
        err);

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", call->run);
    bind_epoch(statement, call->row);
    return execute(store, statement, err) && write_steps(store, call, err) &&
           write_tensors(store, call, err) && touch(store, call->run, err);
}

bool store_epoch(struct store *store, int64_t run, const struct epoch_row *row, struct error *err)
{
    struct epoch_call call = {run, row};

    if (!patiently(store, "begin immediate", write_epoch, &call, err))
        return false;
    fold_log(store);
    return true;
}

/* What --log-every and --tensors keep. */
struct kept_call {
    int64_t run;
    const char *sql; /* one number, of :run and :every */
    uint32_t every;
    bool has;
};

static bool read_kept(struct store *store, void *arg, struct error *err)
{
    struct kept_call *call = arg;
    sqlite3_stmt *statement = prepare(store, call->sql, err);
    bool ok;

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", call->run);
    if (call->every > 0)
        bind_integer(statement, ":every", call->every);
    call->has = next_row(store, statement, &ok, err) && sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return ok;
}

static bool has_kept(struct store *store, struct kept_call call, bool *has, struct error *err)
{
    if (!patiently(store, NULL, read_kept, &call, err))
        return false;
    *has = call.has;
    return true;
}

bool store_has_steps(struct store *store, int64_t run, uint32_t every, bool *has, struct error *err)
{
    static const char sql[] =
        "select (select count(*) from steps where run_id = :run and step % :every = 0)"
        "       >= (sum(steps) + :every - 1) / :every from epochs where run_id = :run";

    return has_kept(store, (struct kept_call){.run = run, .sql = sql, .every = every}, has, err);
}

bool store_has_tensors(struct store *store, int64_t run, bool *has, struct error *err)
{
    static const char sql[] =
        "select count(*) = (select count(distinct epoch) from tensors where run_id = :run)"
        " from epochs where run_id = :run";

    return has_kept(store, (struct kept_call){.run = run, .sql = sql}, has, err);
}

struct finish_call {
    int64_t run;
    const char *status;
    const struct test_row *tests;
    size_t count;
};

static bool write_test(struct store *store, int64_t run, const struct test_row *row,
                       struct error *err)
{
    sqlite3_stmt *statement = prepare(
        store,
        "insert or replace into tests (run_id, which, epoch, loss, perplexity, top1, top5, scored,"
        " selected_on)"
        " values (:run, :which, :epoch, :loss, :perplexity, :top1, :top5, :scored, :selected_on)",
        err);

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", run);
    bind_text(statement, ":which", row->which);
    bind_integer(statement, ":epoch", row->epoch);
    bind_less_is_better(statement, ":loss", row->loss);
    bind_ranks(statement, row->ranked, row->loss, row->top1, row->top5);
    bind_integer(statement, ":scored", (int64_t)row->scored);
    bind_text(statement, ":selected_on", row->selected_on);
    return execute(store, statement, err);
}

static bool write_finish(struct store *store, void *arg, struct error *err)
{
    const struct finish_call *call = arg;
    sqlite3_stmt *statement;

    for (size_t i = 0; i < call->count; i++)
        if (!write_test(store, call->run, &call->tests[i], err))
            return false;
    statement = prepare(store,
                        "update runs set status = :status, heartbeat_at = " NOW
                        ", finished_at = " NOW " where id = :run",
                        err);
    if (statement == NULL)
        return false;
    bind_text(statement, ":status", call->status);
    bind_integer(statement, ":run", call->run);
    if (!execute(store, statement, err))
        return false;
    return sqlite3_changes(store->db) == 1 || fail_gone(store, err);
}

bool store_finish(struct store *store, int64_t run, const char *status,
                  const struct test_row *tests, size_t count, struct error *err)
{
    struct finish_call call = {run, status, tests, count};

    if (!patiently(store, "begin immediate", write_finish, &call, err))
        return false;
    fold_log(store);
    return true;
}

/* A locked database is not waited for: the next call will do. */
bool store_heartbeat(struct store *store, int64_t run, struct error *err)
{
    double now = seconds_now();
    bool ok;

    if (now < store->next_heartbeat)
        return true;
    store->code = SQLITE_OK;
    sqlite3_busy_timeout(store->db, 0);
    ok = touch(store, run, err);
    sqlite3_busy_timeout(store->db, PATIENCE_SECONDS * 1000);
    if (!ok && !is_busy(store->code))
        return false;
    store->next_heartbeat = now + (ok ? HEARTBEAT_SECONDS : 1);
    return true;
}

/* Summing up. */

struct summary_call {
    int64_t run;
    bool json;
    char *text;
};

/* Not measured: not told. */
static void print_metric(FILE *out, const char *name, sqlite3_stmt *row, int column, int decimals)
{
    double value = sqlite3_column_double(row, column);

    if (sqlite3_column_type(row, column) == SQLITE_NULL)
        return;
    if (isfinite(value))
        fprintf(out, " %s %.*f", name, decimals, value);
    else
        fprintf(out, " %s %s", name, value > 0 ? "Infinity" : "-Infinity");
}

static char *text_of(sqlite3_stmt *row)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);

    CHECK(out != NULL);
    fprintf(out, "%s %s key %.12s epochs %d", sqlite3_column_text(row, 0),
            sqlite3_column_text(row, 1), sqlite3_column_text(row, 2), sqlite3_column_int(row, 3));
    print_metric(out, "perplexity", row, 4, 2);
    print_metric(out, "test", row, 5, 2);
    print_metric(out, "best-test", row, 6, 2);
    print_metric(out, "top1", row, 10, 4);
    print_metric(out, "test", row, 11, 4);
    print_metric(out, "best-test", row, 12, 4);
    print_metric(out, "bytes_up", row, 7, 0);
    print_metric(out, "ratio", row, 8, 1);
    print_metric(out, "seconds", row, 9, 1);
    CHECK(fclose(out) == 0);
    return text;
}

static const char text_query[] =
    "select name, status, key, epochs, perplexity, test_last, test_best, bytes_up, compression,"
    "       seconds, top1, test_last_top1, test_best_top1"
    " from summary where id = :run";

/* JSON has no infinity (9e999 here): null, and the status tells why. */
static const char json_query[] =
    "select json_object("
    "  'key', key, 'name', name, 'status', status, 'model', model, 'dataset', dataset,"
    "  'method', method, 'memory', memory, 'workers', workers, 'seed', seed, 'epochs', epochs,"
    "  'perplexity', nullif(perplexity, 9e999),"
    "  'best_perplexity', nullif(best_perplexity, 9e999), 'best_epoch', best_epoch,"
    "  'test_last', nullif(test_last, 9e999), 'test_best', nullif(test_best, 9e999),"
    "  'top1', nullif(top1, -9e999), 'best_top1', nullif(best_top1, -9e999),"
    "  'test_last_top1', nullif(test_last_top1, -9e999),"
    "  'test_best_top1', nullif(test_best_top1, -9e999),"
    "  'bytes_up', nullif(bytes_up, 9e999),"
    "  'bytes_up_per_step', nullif(bytes_up_per_step, 9e999),"
    "  'compression', nullif(compression, 9e999),"
    "  'compression_last', nullif(compression_last, 9e999),"
    "  'density', nullif(density, 9e999), 'seconds', nullif(seconds, 9e999))"
    " from summary where id = :run";

static bool summarise(struct store *store, void *arg, struct error *err)
{
    struct summary_call *call = arg;
    sqlite3_stmt *statement = prepare(store, call->json ? json_query : text_query, err);
    bool ok;

    if (statement == NULL)
        return false;
    bind_integer(statement, ":run", call->run);
    if (next_row(store, statement, &ok, err))
        call->text =
            call->json ? format_text("%s", sqlite3_column_text(statement, 0)) : text_of(statement);
    sqlite3_finalize(statement);
    return ok && (call->text != NULL ||
                  fail(err, "%s: there is no run %" PRId64, store->path, call->run));
}

bool store_summary(struct store *store, int64_t run, bool json, char **text, struct error *err)
{
    struct summary_call call = {.run = run, .json = json};

    if (!patiently(store, NULL, summarise, &call, err))
        return false;
    *text = call.text;
    return true;
}
