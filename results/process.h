/*
 * process.h -- which process is at a run, and whether it still lives.
 *
 * A pid means something only together with its start (pids are used again), the host, the boot,
 * and the namespace (containers of one host may share a host name, but have pids of their own).
 */
#ifndef RESULTS_PROCESS_H
#define RESULTS_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

struct process {
    char host[256];
    char space[128]; /* the boot and the pid namespace, where pids are comparable */
    int64_t pid;
    int64_t started; /* in clock ticks since the boot; 0 if unknown */
};

void process_self(struct process *self);

/* Of a process in our own space.  A zombie is dead: it was killed, and its parent has yet to
 * notice. */
bool process_lives(int64_t pid, int64_t started);

#endif
