/*
 * dataset.c -- the table, and a search through folders that remembers where it looked.
 */
#include "data/dataset.h"

#include "data/images.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const struct setting no_settings[] = {{0}};

static bool is_text_folder(const char *path);

static const struct dataset cifar10_dataset = {
    .name = "cifar10",
    .about = "CIFAR-10: 50,000 colour images of 32 x 32 to train on, 10 classes",
    .folder = "cifar10",
    .make = "'gradpress data fetch cifar10' downloads it, or put data_batch_1.bin to "
            "data_batch_5.bin and test_batch.bin (CIFAR-10's binary "
            "version) into one folder and name it with --data",
    .settings = no_settings,
    .kind = &images_kind,
    .fits = images_fit_cifar10,
    .expect = images_expect_cifar10,
    .read = images_read_cifar10,
};

static const struct dataset cifar100_dataset = {
    .name = "cifar100",
    .about = "CIFAR-100: 50,000 colour images of 32 x 32 to train on, 100 classes",
    .folder = "cifar100",
    .make = "'gradpress data fetch cifar100' downloads it, or put train.bin and test.bin "
            "(CIFAR-100's binary version) into one folder and name it "
            "with --data",
    .settings = no_settings,
    .kind = &images_kind,
    .fits = images_fit_cifar100,
    .expect = images_expect_cifar100,
    .read = images_read_cifar100,
};

static const struct dataset fashion_mnist_dataset = {
    .name = "fashion-mnist",
    .about = "Fashion-MNIST: 60,000 grey images of 28 x 28 to train on, 10 classes",
    .folder = "fashion-mnist",
    .make = "Debian's package dataset-fashion-mnist has it, 'gradpress data fetch fashion-mnist' "
            "downloads it, or name the folder of its four idx "
            "files with --data",
    .settings = no_settings,
    .kind = &images_kind,
    .fits = images_fit_idx,
    .installed = "/usr/share/datasets/fashion-mnist",
    .expect = images_expect_idx,
    .read = images_read_idx,
};

static const struct dataset kjv_dataset = {
    .name = "kjv",
    .about = "King James Bible, the demo corpus: 853,618 tokens to train on",
    .folder = "kjv",
    .make = "data/kjv.sh makes it from Debian's packages bible-kjv and bible-kjv-text",
    .settings = no_settings,
    .kind = &text_kind,
    .fits = is_text_folder,
};

static const struct dataset mnist_dataset = {
    .name = "mnist",
    .about = "MNIST: 60,000 grey images of 28 x 28 to train on, 10 classes",
    .folder = "mnist",
    .make = "'gradpress data fetch mnist' downloads it, or put its four idx files "
            "(train-images-idx3-ubyte, ...; gzip or not) into one folder and "
            "name it with --data",
    .settings = no_settings,
    .kind = &images_kind,
    .fits = images_fit_idx,
    .expect = images_expect_idx,
    .read = images_read_idx,
};

static const struct dataset ptb_dataset = {
    .name = "ptb",
    .about = "Penn Treebank, Mikolov's split: 929,589 tokens to train on, 10,000 words",
    .folder = "ptb",
    .make = "'gradpress data fetch ptb' downloads it, or put ptb.train.txt, ptb.valid.txt and "
            "ptb.test.txt (Mikolov's split of the Penn "
            "Treebank) into one folder and name it with --data",
    .settings = no_settings,
    .kind = &text_kind,
    .fits = is_text_folder,
};

static const struct dataset synthetic_dataset = {
    .name = "synthetic",
    .about = "images that nobody took, of any size: a pattern for each class, and noise",
    .settings = images_synthetic_settings,
    .kind = &images_kind,
    .expect = images_expect_synthetic,
    .read = images_make_synthetic,
};

static const struct dataset text_dataset = {
    .name = "text",
    .about = "any folder with train.txt, valid.txt and test.txt: data.path names it",
    .make = "put train.txt, valid.txt and test.txt into one folder and name it with data.path",
    .settings = no_settings,
    .kind = &text_kind,
    .fits = is_text_folder,
};

/* In alphabetical order; a new entry is listed, sought and read like these. */
const struct dataset *const datasets[] = {
    &cifar10_dataset, &cifar100_dataset,  &fashion_mnist_dataset, &kjv_dataset, &mnist_dataset,
    &ptb_dataset,     &synthetic_dataset, &text_dataset,          NULL,
};

const struct dataset *dataset_find(const char *name)
{
    for (size_t i = 0; datasets[i] != NULL; i++)
        if (strcmp(datasets[i]->name, name) == 0)
            return datasets[i];
    return NULL;
}

static bool is_folder(const char *path)
{
    struct stat about;

    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

/* train.txt, or that behind a prefix. */
static bool is_train_file(const char *name)
{
    const char *end = "train.txt";
    size_t length = strlen(name), tail = strlen(end);

    if (length < tail || strcmp(name + length - tail, end) != 0)
        return false;
    return length == tail || (name[0] != '.' && name[length - tail - 1] == '.');
}

/* A root with many data sets in it is not one itself, though it exists. */
static bool is_text_folder(const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    bool found = false;

    if (dir == NULL)
        return false;
    while (!found && (entry = readdir(dir)) != NULL)
        found = is_train_file(entry->d_name);
    closedir(dir);
    return found;
}

struct search {
    char *folder; /* found, or NULL */
    char *places; /* looked at, with commas between */
};

/* Takes path: a new string, or NULL. */
static void look(struct search *search, char *path, bool (*fits)(const char *path))
{
    char *places;

    if (search->folder == NULL && path != NULL) {
        places = format_text("%s%s%s", search->places, *search->places != '\0' ? ", " : "", path);
        free(search->places);
        search->places = places;
        if (fits(path)) {
            search->folder = path;
            return;
        }
    }
    free(path);
}

static bool is_given(const char *name)
{
    return name != NULL && *name != '\0';
}

static void look_in_root(struct search *search, const struct dataset *set, const char *root)
{
    if (!is_given(root))
        return;
    if (set->folder != NULL)
        look(search, format_text("%s/%s", root, set->folder), is_folder);
    look(search, format_text("%s", root), set->fits);
}

char *dataset_cache(const struct dataset *set)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

    if (set->folder == NULL)
        return NULL;
    if (is_given(cache))
        return format_text("%s/gradpress/%s", cache, set->folder);
    return is_given(home) ? format_text("%s/.cache/gradpress/%s", home, set->folder) : NULL;
}

bool dataset_locate(const struct dataset *set, const char *path, const char *root, char **folder,
                    struct error *err)
{
    struct search search = {0};

    if (path != NULL || set->fits == NULL) {
        *folder = format_text("%s", path != NULL ? path : "");
        return true;
    }
    search.places = format_text("%s", "");
    look_in_root(&search, set, root);
    look_in_root(&search, set, getenv("GRADPRESS_DATA"));
    look(&search, dataset_cache(set), is_folder);
    if (set->installed != NULL)
        look(&search, format_text("%s", set->installed), is_folder);
    if (search.folder != NULL)
        *folder = search.folder;
    else /* the end of the sentence is the useful one: long paths must leave room for it */
        fail(err, "data set '%s' is not in %.300s: %s", set->name,
             *search.places != '\0' ? search.places : "any folder that was named", set->make);
    free(search.places);
    return search.folder != NULL;
}
