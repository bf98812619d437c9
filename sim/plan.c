#include "sim/plan.h"

#include "compressors/sparse.h"
#include "sim/measure.h"
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

static size_t lane_total(const struct lane_bytes *lane)
{
    return lane->slab + lane->activations + lane->messages + lane->scratch;
}

static size_t fixed_total(const struct plan *plan)
{
    return plan->part.parameters + plan->part.workers + plan->part.evaluation + plan->part.data;
}

static bool fits(struct plan *plan)
{
    plan->bytes = fixed_total(plan) + plan->streams * lane_total(&plan->part.lane);
    return (double)plan->bytes <= USABLE * (double)plan->available;
}

/* Of like size; a segment begins with the state that the one before it left, so there one. */
static uint32_t group_size(const struct config *c, uint32_t groups)
{
    if (c->data.sharding == SHARD_SEGMENTS)
        return 1;
    if (c->group > 0)
        return c->group < c->workers ? c->group : c->workers;
    return (c->workers + groups - 1) / groups;
}

/* What is there to evaluate; fills and places *parameters. */
static void begin(struct plan *plan, struct device *dev, const struct config *c,
                  const struct network *network, struct parameters *parameters, size_t data_bytes)
{
    struct shape eval = {1, c->evaluate.batch, c->evaluate.bptt};

    *plan = (struct plan){.available = device_memory_free(dev)};
    plan->part.evaluation = graph_measure(dev, parameters, network, eval, false);
    graph_place(parameters, c->compress_all);
    plan->part.parameters = 2 * parameters->length * sizeof(float);
    plan->part.data = data_bytes;
}

bool plan_evaluation(struct plan *plan, struct device *dev, const struct config *c,
                     const struct network *network, struct parameters *parameters,
                     size_t data_bytes, struct error *err)
{
    begin(plan, dev, c, network, parameters, data_bytes);
    return fits(plan) ||
           fail(err,
                "the evaluation needs %.1f GiB of the device's memory, and %.1f GiB are free; a "
                "smaller evaluate.batch might fit",
                gib(plan->bytes), gib(plan->available));
}

bool plan_make(struct plan *plan, struct device *dev, const struct config *c,
               const struct network *network, struct parameters *parameters, size_t data_bytes,
               struct error *err)
{
    begin(plan, dev, c, network, parameters, data_bytes);
    plan->part.parameters += parameters->length * sizeof(float) + optimizer_bytes(c, parameters) +
                             measure_bytes(c, parameters);
    plan->part.workers = workers_bytes(c, parameters);
    for (uint32_t groups = 1; groups <= c->workers; groups++) {
        plan->group = group_size(c, groups);
        plan->streams = streams_for(dev, c, plan->group);
        plan->part.lane = workers_lane_bytes(dev, c, network, parameters, plan->group);
        if (c->streams == 0 && !fits(plan))
            plan->streams = 1;
        if (fits(plan))
            return true;
        if (c->group > 0 || plan->group == 1)
            break;
    }
    return refuse(plan, c, fixed_total(plan), err);
}

size_t plan_message_bytes(const struct config *c, const struct parameters *parameters, double ratio)
{
    struct method method = workers_method(c);
    bool sparse = method.compressor->room != NULL;
    size_t bytes = 0;

    for (uint32_t i = 0; i < parameters->count; i++) {
        size_t n = parameters->item[parameters->order[i]].n;
        size_t keep = sparse ? sparse_keep(n, ratio) : n;

        bytes += i < parameters->compressed ? message_tensor_bytes(&method, c->encoding, n, keep)
                                            : n * sizeof(float);
    }
    return bytes;
}
