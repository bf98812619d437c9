#include "sim/plan.h"

#include "sim/optimizer.h"
#include "sim/worker.h"

/* Of what is free, leave some to the libraries' own workspaces. */
#define USABLE 0.92

static double gib(size_t bytes)
{
    return (double)bytes / (double)((size_t)1 << 30);
}

/* One of the devices' streams where all workers are one group; two where they take turns. */
static uint32_t streams_for(const struct device *dev, const struct config *c, uint32_t group)
{
    uint32_t groups = (c->workers + group - 1) / group;
    uint32_t wanted = c->streams > 0 ? c->streams : 2;
    uint32_t most = c->data.sharding == SHARD_SEGMENTS ? 1 : device_streams(dev);

    wanted = wanted < most ? wanted : most;
    return wanted < groups ? wanted : groups;
}

static bool refuse(const struct plan *plan, const struct config *c, size_t fixed, struct error *err)
{
    return fail(err,
                "the run needs %.1f GiB of the device's memory, %.1f GiB of them for what %u "
                "workers keep, and %.1f GiB are free; fewer --workers%s%s, or a smaller model or "
                "batch would fit",
                gib(plan->bytes), gib(fixed), c->workers, gib(plan->available),
                plan->group > 1 ? ", a smaller --group" : "",
                plan->streams > 1 ? ", fewer --streams" : "");
}

/* So many bytes for all, and so many for each lane. */
static bool fits(struct plan *plan, size_t fixed, size_t lane)
{
    plan->bytes = fixed + plan->streams * lane;
    return (double)plan->bytes <= USABLE * (double)plan->available;
}

bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err)
{
    struct shape eval = {1, c->evaluate.batch, c->evaluate.bptt};
    size_t fixed = graph_measure(dev, parameters, network, eval, false);
    size_t available = device_memory_free(dev);
    size_t lane;

    graph_place(parameters, c->compress_all);
    fixed += workers_bytes(c, parameters) + optimizer_bytes(c, parameters) + data_bytes;
    fixed += parameters->length * sizeof(float); /* the best so far */
    for (uint32_t groups = 1; groups <= c->workers; groups++) {
        uint32_t group = (c->workers + groups - 1) / groups; /* of like size */

        if (c->data.sharding == SHARD_SEGMENTS)
            group = 1; /* a segment begins with the state that the one before it left */
        else if (c->group > 0)
            group = c->group < c->workers ? c->group : c->workers;
        *plan = (struct plan){
            .group = group, .streams = streams_for(dev, c, group), .available = available};
        lane = workers_lane_bytes(dev, c, network, parameters, group);
        if (c->streams == 0 && !fits(plan, fixed, lane))
            plan->streams = 1;
        if (fits(plan, fixed, lane))
            return true;
        if (c->group > 0 || group == 1)
            break;
    }
    return refuse(plan, c, fixed, err);
}
