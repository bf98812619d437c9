#include "results/process.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* At most size - 1 characters of a file of /proc; empty if it cannot be read. */
static void read_file(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t length = 0;

    if (file != NULL) {
        length = fread(text, 1, size - 1, file);
        fclose(file);
    }
    text[length] = '\0';
}

/* Fields 3 and 22 of the stat file, counted from behind field 2, a name that may hold anything. */
static bool read_stat(int64_t pid, char *state, int64_t *started)
{
    char path[48], text[1024], *field;

    snprintf(path, sizeof(path), "/proc/%" PRId64 "/stat", pid);
    read_file(path, text, sizeof(text));
    field = strrchr(text, ')');
    if (field == NULL || strlen(field) < 3)
        return false;
    *state = field[2];
    for (int i = 2; i < 22 && field != NULL; i++)
        field = strchr(field + 1, ' ');
    if (field == NULL)
        return false;
    *started = strtoll(field, NULL, 10);
    return true;
}

void process_self(struct process *self)
{
    char boot[64], space[48] = "", state;

    *self = (struct process){.pid = getpid()};
    if (gethostname(self->host, sizeof(self->host) - 1) != 0)
        self->host[0] = '\0';
    read_file("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
    boot[strcspn(boot, "\n")] = '\0';
    if (readlink("/proc/self/ns/pid", space, sizeof(space) - 1) < 0)
        space[0] = '\0';
    snprintf(self->space, sizeof(self->space), "%s %s", boot, space);
    if (!read_stat(self->pid, &state, &self->started))
        self->started = 0;
}

bool process_lives(int64_t pid, int64_t started)
{
    char state;
    int64_t began;

    if (pid <= 0)
        return false;
    if (read_stat(pid, &state, &began))
        return state != 'Z' && state != 'X' && (started == 0 || started == began);
    /* Another user's may be hidden from us. */
    return kill((pid_t)pid, 0) == 0 || errno == EPERM;
}
