-- The database of gradpress.  store.c fills it; any SQLite reads it.
--
-- A metric that is not finite is +Infinity where less is better and -Infinity where more is;
-- NULL is "not measured".  Times are ISO 8601 in UTC.  This file is the newest version; what
-- brings an older database up to it stands in store.c (migrations).

create table runs (
    -- Never used twice, so that a process whose run was begun anew by another cannot write into it.
    id             integer primary key autoincrement,
    key            text not null unique, -- a hash of the effective regime with workers and seed
    name           text not null unique,
    experiment     text,
    experiment_key text,                 -- the key without the seed
    model          text,
    dataset        text,
    compressor     text,
    memory         text,
    method         text,                 -- the compressor as it is spelt everywhere, in full
    ratio          real,                 -- asked for; what was reached is in the view summary
    workers        integer,
    batch          integer,              -- per worker
    batch_total    integer,
    threads        integer, -- of the CPU; with device, version, group and streams: what a run
    group_size     integer, -- repeats for to the bit
    streams        integer,
    seed           integer,
    tuned          text,                 -- which of the regime's tuned settings applied
    device         text,
    status         text not null
                   check (status in ('running', 'done', 'diverged', 'stopped', 'failed')),
    config         text,                 -- the effective regime, JSON
    version        text,
    data_sha256    text,
    host           text,
    pid            integer,
    pid_started    integer,              -- in clock ticks since the boot: a pid is used again
    pid_space      text,                 -- boot and pid namespace, in which alone a pid means much
    started_at     text,
    heartbeat_at   text,
    finished_at    text
);

-- The effective regime, flat.
create table settings (
    run_id integer not null references runs (id) on delete cascade,
    key    text not null,
    value  text,
    primary key (run_id, key)
) without rowid;

-- Bytes are per worker and of the whole epoch, tensors that are sent whole included.
--
-- What is "measured" is measured in one step of the epoch, its last but one, and with
-- --measure-every N in each N-th step of the run; NULL if none of them was reached.  The parts of
-- seconds are shares of it, as the measured steps' stages (run launch by launch, one at a time) are
-- of those steps without what measuring itself took: so they add up to it.
--
-- Perplexity is for texts, top1 and top5 are for images: the share of them whose class the model put
-- first, or among the first five.  What is told of the validation part is told of the test part
-- where a set has none and none is held out; nothing is then chosen by it (tests.selected_on).
create table epochs (
    run_id             integer not null references runs (id) on delete cascade,
    epoch              integer not null,
    train_loss         real,
    train_top1         real,
    train_top5         real,
    valid_loss         real,
    top1               real,
    top5               real,
    perplexity         real,    -- exp(valid_loss)
    lr                 real,
    steps              integer,
    samples            integer,
    density            real,    -- values sent by a worker / values
    density_union      real,    -- measured: values that any worker sent / values, the mean
    bytes_dense        real,    -- without compression
    bytes_up           real,    -- of a worker, in the whole epoch
    bytes_up_step      real,    -- in its last step: what it is once a warm-up is over
    bytes_down         real,
    bytes_paper        real,    -- by the counting rule of the method's paper
    -- As GRACE counts: whole bytes.  4 for an index, none where all know it or all are sent; 4 for a
    -- float, 2 for 16 bits, 1 for any code of 8 bits or fewer; 4 for a scalar.
    bytes_framework    real,
    -- log2 of how many messages there could be, of each tensor and step, given how many entries k of
    -- n it has: log2 C(n, k), none where all workers know the indices; 32 bits for a float, log2 of
    -- the number of codes for a code; 32 bits for a scalar.  Where the data decide k, of its mean.
    bytes_bound        real,
    grad_norm          real,    -- before clipping, the mean over workers and steps
    residual_norm      real,    -- of what is not yet sent, root mean square over workers
    -- Measured: the root of (the sum over workers of |w - d|^2 / the sum of |w|^2), w what a worker
    -- wanted to send of the compressed tensors (with what it had kept), d what its message said.
    compression_error  real,
    step_distance      real,
    scored             integer, -- what valid_loss is a mean of: tokens or images
    seconds            real,    -- of its training, without validation
    seconds_forward    real,    -- measured, as are the others
    seconds_backward   real,
    seconds_compensate real,    -- clipping; and what a memory adds up, and takes off when it is sent
    seconds_encode     real,
    seconds_exchange   real,
    seconds_apply      real,    -- the optimizer
    shared             integer, -- 1: others were on the device, the times do not count
    samples_per_second real,
    primary key (run_id, epoch)
) without rowid;

-- What --log-every keeps.  Bytes are per worker, of this step alone; the others as in epochs.
create table steps (
    run_id     integer not null references runs (id) on delete cascade,
    step       integer not null, -- of the run, from 0
    epoch      integer not null,
    loss       real,             -- the mean over the step's samples
    lr         real,
    samples    integer,
    density    real,
    bytes_up   real,
    bytes_down real,
    grad_norm  real,
    primary key (run_id, step)
) without rowid;

-- What --tensors keeps: each tensor's part of an epoch's row, with the same meanings.  The bytes add
-- up to the epoch's; residual_norm does as squares.  Of a tensor that is sent whole nothing is left.
create table tensors (
    run_id            integer not null references runs (id) on delete cascade,
    epoch             integer not null,
    tensor            text not null,   -- PyTorch's name
    elements          integer,
    entries           real,            -- that a worker sent in the whole epoch
    density           real,
    density_union     real,
    bytes_up          real,
    bytes_down        real,
    bytes_paper       real,
    bytes_framework   real,
    bytes_bound       real,
    residual_norm     real,
    compression_error real,
    primary key (run_id, epoch, tensor)
) without rowid;

create table tests (
    run_id      integer not null references runs (id) on delete cascade,
    which       text not null check (which in ('best', 'last')),
    epoch       integer,
    loss        real,
    perplexity  real,
    top1        real,
    top5        real,
    scored      integer,
    selected_on text,
    primary key (run_id, which)
) without rowid;

-- One row a run.  perplexity is of the last epoch, best_perplexity the least, both on the
-- validation part, and so are top1 and best_top1, the largest; test_best and test_last are
-- perplexities, test_best_top1 and test_last_top1 shares; compression is of the whole run, compression_last of its last epoch.
create view summary as
with totals as (
    select run_id,
           count(*) as epochs,
           max(epoch) as last_epoch,
           min(perplexity) as best_perplexity,
           max(top1) as best_top1,
           sum(bytes_up) as bytes_up,
           sum(bytes_up) / sum(steps) as bytes_up_per_step,
           sum(bytes_dense) / sum(bytes_up) as compression,
           sum(density * steps) / sum(steps) as density,
           sum(seconds) as seconds
    from epochs
    group by run_id
)
select runs.id,
       runs.key,
       runs.name,
       runs.experiment,
       runs.status,
       runs.model,
       runs.dataset,
       runs.method,
       runs.memory,
       runs.ratio,
       runs.workers,
       runs.seed,
       coalesce(totals.epochs, 0) as epochs,
       last.perplexity,
       totals.best_perplexity,
       (select min(epoch) from epochs
        where run_id = runs.id and (perplexity = totals.best_perplexity or top1 = totals.best_top1))
       as best_epoch,
       test_best.perplexity as test_best,
       test_last.perplexity as test_last,
       last.top1,
       totals.best_top1,
       test_best.top1 as test_best_top1,
       test_last.top1 as test_last_top1,
       totals.bytes_up,
       totals.bytes_up_per_step,
       last.bytes_up_step as bytes_up_per_step_last,
       totals.compression,
       last.bytes_dense / last.steps / last.bytes_up_step as compression_last,
       totals.density,
       totals.seconds
from runs
left join totals on totals.run_id = runs.id
left join epochs as last on last.run_id = runs.id and last.epoch = totals.last_epoch
left join tests as test_best on test_best.run_id = runs.id and test_best.which = 'best'
left join tests as test_last on test_last.run_id = runs.id and test_last.which = 'last';
