-- methods.sql -- every method at its best settings: what it costs and what it saves.
--
--     sqlite3 -box tune.db <results/queries/methods.sql
--
-- Of the experiment 'tune' the run of least validation perplexity of each method, bytes of a worker
-- and epoch in MB: up and down in the encoding in use, as its paper counts, and the least possible.
with ranked as (
    select summary.*,
           row_number() over (partition by summary.method, summary.workers
                              order by summary.best_perplexity) as place
    from summary
    where experiment = 'tune' and status = 'done'
)
select ranked.method,
       ranked.workers as k,
       printf('%.1f', ranked.best_perplexity) as valid,
       printf('%.1f', ranked.test_best) as test,
       (select value from settings where run_id = ranked.id and key = 'schedule.0.lr') as lr,
       coalesce((select value from settings where run_id = ranked.id and key = 'clip.mode'),
                'none') as clip,
       printf('%.1f', sum(epochs.bytes_up) / count(*) / 1e6) as up,
       printf('%.1f', sum(epochs.bytes_down) / count(*) / 1e6) as down,
       printf('%.1f', sum(epochs.bytes_paper) / count(*) / 1e6) as paper,
       printf('%.1f', sum(epochs.bytes_bound) / count(*) / 1e6) as bound,
       printf('%.1fx', ranked.compression) as less
from ranked
join epochs on epochs.run_id = ranked.id
where ranked.place = 1
group by ranked.id
order by ranked.workers, ranked.best_perplexity;
