#include "results/query.h"

#include <errno.h>
#include <math.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "results/store.h"

#define PATIENCE_SECONDS 10

struct query {
    sqlite3 *db;
    const char *path;
};

/* The first line of what SQLite says: the others would be of our own query. */
static bool fault(const struct query *q, const char *what, struct error *err)
{
    const char *text = sqlite3_errmsg(q->db);

    return fail(err, "%s: %s%.*s", q->path, what, (int)strcspn(text, "\n"), text);
}

static const char *parameter_name(sqlite3_stmt *statement)
{
    const char *name = sqlite3_bind_parameter_name(statement, 1);

    return name != NULL ? name : "?";
}

/* NULL after a fault. */
static sqlite3_stmt *prepare(const struct query *q, const char *sql, const char *what,
                             struct error *err)
{
    sqlite3_stmt *statement = NULL;
    const char *rest = "";

    if (sqlite3_prepare_v2(q->db, sql, -1, &statement, &rest) != SQLITE_OK) {
        fault(q, what, err);
        return NULL;
    }
    if (*rest != '\0')
        fail(err, "%s: %smore than a condition", q->path, what);
    else if (sqlite3_bind_parameter_count(statement) > 0)
        fail(err, "%s: %s'%s' has no value", q->path, what, parameter_name(statement));
    else
        return statement;
    sqlite3_finalize(statement);
    return NULL;
}

static bool read_integer(const struct query *q, const char *sql, int *value, struct error *err)
{
    sqlite3_stmt *statement = prepare(q, sql, "", err);
    bool ok;

    if (statement == NULL)
        return false;
    ok = sqlite3_step(statement) == SQLITE_ROW || fault(q, "", err);
    *value = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    return ok;
}

static bool recognise(const struct query *q, struct error *err)
{
    int application, version, runs;

    if (!read_integer(q, "pragma application_id", &application, err) ||
        !read_integer(q, "pragma user_version", &version, err))
        return false;
    if (application != STORE_APPLICATION_ID)
        return fail(err, "%s: not a database of gradpress", q->path);
    if (version > 0 && version < STORE_VERSION)
        return fail(err,
                    "%s: written by an older gradpress: version %d of the schema, not %d; the "
                    "next train that writes into it brings it up",
                    q->path, version, STORE_VERSION);
    /* Else what it lacks would be said to be a fault of the condition. */
    return read_integer(q, "select count(*) from summary", &runs, err);
}

static bool check_place(const char *path, struct error *err)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? fail(err, "%s: there is no database; gradpress train makes one", path)
                   : fail(err, "%s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return fail(err, "%s: not a file, as a database is", path);
    return access(path, R_OK) == 0 ||
           fail(err, "%s: the database cannot be read: %s", path, strerror(errno));
}

/* A reader of a write-ahead log needs its index beside the file.  Where there is no log and none
 * can be made, nobody writes, and the one file is all there is. */
static bool is_still(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *log = format_text("%s-wal", path);
    char *folder = format_text("%.*s", slash == NULL ? 0 : (int)(slash - path + 1), path);
    bool still = access(log, F_OK) != 0 && access(*folder != '\0' ? folder : ".", W_OK) != 0;

    free(folder);
    free(log);
    return still;
}

/* A URI, with what has a meaning in one spelt as %XX. */
static char *still_address(const char *path)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);

    CHECK(out != NULL);
    fprintf(out, "file:%s", path[0] == '/' ? "//" : "");
    for (const char *p = path; *p != '\0'; p++)
        if (strchr("?#%", *p) != NULL)
            fprintf(out, "%%%02x", (unsigned char)*p);
        else
            putc(*p, out);
    fputs("?immutable=1", out);
    CHECK(fclose(out) == 0);
    return text;
}

/* A connection that could write tidies up when it is closed: a read-only one would leave the log's
 * files behind.  So it is one where it may be, and is told to change nothing. */
static bool open_database(struct query *q, struct error *err)
{
    int flags = SQLITE_OPEN_READONLY;
    bool still;
    char *address;
    int code;

    if (!check_place(q->path, err))
        return false;
    still = is_still(q->path);
    address = still ? still_address(q->path) : store_address(q->path);
    if (still)
        flags |= SQLITE_OPEN_URI;
    else if (access(q->path, W_OK) == 0)
        flags = SQLITE_OPEN_READWRITE;
    code = sqlite3_open_v2(address, &q->db, flags, NULL);
    free(address);
    CHECK(q->db != NULL);
    sqlite3_busy_timeout(q->db, PATIENCE_SECONDS * 1000);
    if (code == SQLITE_OK)
        code = sqlite3_exec(q->db, "pragma query_only = on", NULL, NULL, NULL);
    return (code == SQLITE_OK || fault(q, "", err)) && recognise(q, err);
}

/* The table. */

#define COLUMNS 9

static const struct {
    const char *title;
    int decimals; /* of a number; -1: a text */
} columns[COLUMNS] = {
    {"name", -1}, {"status", -1}, {"epochs", 0},  {"perplexity", 2}, {"test", 2},
    {"top1", 4},  {"ratio", 1},   {"seconds", 1}, {"age", -1},
};

static const char table_query[] =
    "select name, status, epochs, perplexity, test_best,"
    "       coalesce(test_best_top1, test_last_top1), compression, seconds,"
    "       (select case when age < 120 then cast(age as integer) || ' s'"
    "                    when age < 7200 then cast(age / 60 as integer) || ' min'"
    "                    when age < 172800 then cast(age / 3600 as integer) || ' h'"
    "                    else cast(age / 86400 as integer) || ' d' end"
    "        from (select 86400 * (julianday('now') - julianday(started_at)) as age"
    "              from runs where runs.id = summary.id))"
    " from summary";

struct table {
    char *(*cell)[COLUMNS];
    size_t rows;
};

static char *cell_text(sqlite3_stmt *row, int column)
{
    double value = sqlite3_column_double(row, column);

    if (sqlite3_column_type(row, column) == SQLITE_NULL)
        return format_text("-");
    if (columns[column].decimals < 0)
        return format_text("%s", sqlite3_column_text(row, column));
    if (!isfinite(value))
        return format_text(value > 0 ? "inf" : "-inf");
    return format_text("%.*f", columns[column].decimals, value);
}

static void add_row(struct table *t, sqlite3_stmt *row)
{
    t->cell = realloc(t->cell, (t->rows + 1) * sizeof(*t->cell));
    CHECK(t->cell != NULL);
    for (int c = 0; c < COLUMNS; c++)
        t->cell[t->rows][c] = cell_text(row, c);
    t->rows++;
}

/* Characters, not bytes. */
static int width_of(const char *text)
{
    int width = 0;

    for (; *text != '\0'; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

/* Texts stand on the left of their column, numbers and ages on the right. */
static void print_cell(FILE *out, const char *text, int width, int column)
{
    int blanks = width - width_of(text);

    if (column < 2)
        fprintf(out, "%s%*s  ", text, blanks, "");
    else
        fprintf(out, "%*s%s%s", blanks, "", text, column + 1 < COLUMNS ? "  " : "\n");
}

static void print_table(FILE *out, const struct table *t)
{
    int width[COLUMNS];

    for (int c = 0; c < COLUMNS; c++) {
        width[c] = width_of(columns[c].title);
        for (size_t r = 0; r < t->rows; r++)
            if (width_of(t->cell[r][c]) > width[c])
                width[c] = width_of(t->cell[r][c]);
    }
    for (int c = 0; c < COLUMNS; c++)
        print_cell(out, columns[c].title, width[c], c);
    for (size_t r = 0; r < t->rows; r++)
        for (int c = 0; c < COLUMNS; c++)
            print_cell(out, t->cell[r][c], width[c], c);
}

static void table_free(struct table *t)
{
    for (size_t r = 0; r < t->rows; r++)
        for (int c = 0; c < COLUMNS; c++)
            free(t->cell[r][c]);
    free(t->cell);
}

static bool print_as_table(const struct query *q, sqlite3_stmt *rows, FILE *out, struct error *err)
{
    struct table t = {0};
    int code;
    bool ok;

    while ((code = sqlite3_step(rows)) == SQLITE_ROW)
        add_row(&t, rows);
    ok = code == SQLITE_DONE || fault(q, "", err);
    if (ok)
        print_table(out, &t);
    table_free(&t);
    return ok;
}

/* JSON, which has no infinity (9e999 here): null. */

#define PAIR(column) "'" #column "', nullif(" #column ", 9e999)"
#define RANK(column) "'" #column "', nullif(" #column ", -9e999)"

static const char
    json_query[] = "select json_object(" PAIR(id) "," PAIR(key) "," PAIR(name) "," PAIR(experiment) "," PAIR(status) "," PAIR(model) "," PAIR(dataset) "," PAIR(method) "," PAIR(memory) "," PAIR(ratio) "," PAIR(workers) "," PAIR(seed) "," PAIR(epochs) "," PAIR(perplexity) "," PAIR(best_perplexity) "," PAIR(
        best_epoch) "," PAIR(test_best) "," PAIR(test_last) "," RANK(top1) "," RANK(best_top1) "," RANK(test_best_top1) "," RANK(test_last_top1) "," PAIR(bytes_up) "," PAIR(bytes_up_per_step) "," PAIR(bytes_up_per_step_last) "," PAIR(compression) "," PAIR(compression_last) "," PAIR(density) "," PAIR(seconds) ", 'started_at', (select started_at from runs where runs.id = summary.id)) from summary";

static bool print_as_json(const struct query *q, sqlite3_stmt *rows, FILE *out, struct error *err)
{
    char *text = NULL;
    size_t length = 0;
    FILE *list = open_memstream(&text, &length);
    const char *before = "[";
    int code;
    bool ok;

    CHECK(list != NULL);
    for (; (code = sqlite3_step(rows)) == SQLITE_ROW; before = ",\n ")
        fprintf(list, "%s%s", before, sqlite3_column_text(rows, 0));
    ok = code == SQLITE_DONE || fault(q, "", err);
    CHECK(fclose(list) == 0);
    if (ok)
        fprintf(out, "%s%s]\n", *before == '[' ? "[" : "", text);
    free(text);
    return ok;
}

bool query_runs(const char *path, const char *where, bool json, FILE *out, struct error *err)
{
    struct query q = {.path = path};
    sqlite3_stmt *rows;
    bool ok = false;
    char *sql;

    if (open_database(&q, err)) {
        /* The line's end, so that a comment in the condition ends with it. */
        sql = format_text("%s where (%s\n) order by id", json ? json_query : table_query, where);
        rows = prepare(&q, sql, "--where: ", err);
        if (rows != NULL)
            ok = json ? print_as_json(&q, rows, out, err) : print_as_table(&q, rows, out, err);
        sqlite3_finalize(rows);
        free(sql);
    }
    sqlite3_close(q.db);
    return ok;
}
