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

-- Bytes are per worker and of the whole epoch.
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
    density_union      real,    -- values that any worker sent / values (not measured yet)
    bytes_dense        real,    -- without compression
    bytes_up           real,    -- of a worker, in the whole epoch
    bytes_up_step      real,    -- in its last step: what it is once a warm-up is over
    bytes_down         real,
    bytes_paper        real,    -- by the counting rule of the method's paper
    bytes_framework    real,
    bytes_bound        real,
    grad_norm          real,    -- before clipping, the mean over workers and steps
    residual_norm      real,    -- of what is not yet sent, root mean square over workers
    compression_error  real,
    step_distance      real,
    scored             integer, -- what valid_loss is a mean of: tokens or images
    seconds            real,
    seconds_forward    real,
    seconds_backward   real,
    seconds_compensate real,
    seconds_encode     real,
    seconds_exchange   real,
    seconds_apply      real,
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
-- validation part; compression is of the whole run, compression_last of its last epoch.
create view summary as
with totals as (
    select run_id,
           count(*) as epochs,
           max(epoch) as last_epoch,
           min(perplexity) as best_perplexity,
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
        where run_id = runs.id and perplexity = totals.best_perplexity) as best_epoch,
       test_best.perplexity as test_best,
       test_last.perplexity as test_last,
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
