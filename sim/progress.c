#include "sim/progress.h"

#include "sim/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#define BAR 24

void progress_begin(struct progress *p, bool quiet, uint64_t steps)
{
    *p = (struct progress){
        .quiet = quiet, .terminal = isatty(STDERR_FILENO), .steps = steps, .began = seconds_now()};
    p->shown = p->began;
}

void progress_say(struct progress *p, const char *format, ...)
{
    va_list args;

    if (p->quiet)
        return;
    progress_end(p);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

bool progress_due(const struct progress *p)
{
    return p->terminal && !p->quiet && seconds_now() - p->shown >= 0.5;
}

static void put_time(char *text, size_t room, double seconds)
{
    unsigned long s = (unsigned long)(seconds + 0.5);

    if (s >= 3600)
        snprintf(text, room, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(text, room, "%lu:%02lu", s / 60, s % 60);
}

void progress_show(struct progress *p, uint64_t step, double loss)
{
    double now = seconds_now();
    double rate = (double)step / (now - p->began + 1e-9);
    unsigned full = (unsigned)((double)BAR * (double)step / (double)p->steps);
    char left[32];
    char bar[BAR + 1];

    for (unsigned i = 0; i < BAR; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR] = '\0';
    put_time(left, sizeof(left), (double)(p->steps - step) / (rate + 1e-9));
    fprintf(stderr, "\r[%s] step %llu of %llu  loss %.3f  %.1f steps/s  %s left \033[K", bar,
            (unsigned long long)step, (unsigned long long)p->steps, loss, rate, left);
    fflush(stderr);
    p->shown = now;
}

void progress_end(struct progress *p)
{
    if (p->terminal && !p->quiet)
        fputs("\r\033[K", stderr);
}
