-- images.sql -- what compression costs and what it saves: the table of ./quickstart images.
--
--     sqlite3 -header -column build/images.db <results/queries/images.sql
--
-- Test accuracy of the weights that were best on validation, and how far it is from the same workers
-- and seed without compression; bytes that a worker sends up in a step, as in demo.sql.
with demo as (
    select summary.*,
           (select none.test_best_top1
            from summary as none
            where none.experiment = 'demo' and none.method = 'none' and none.status = 'done'
                  and none.workers = summary.workers and none.seed = summary.seed
                  and none.epochs = summary.epochs
            order by none.id limit 1) as without
    from summary
    where experiment = 'demo'
)
select method,
       case status when 'done' then printf('%.2f %%', 100 * test_best_top1) else status end as top1,
       printf('%+.2f', 100 * (test_best_top1 - without)) as "vs none",
       printf('%,d', bytes_up_per_step) as "bytes/step",
       printf('%.1fx', compression) as "less",
       printf('%,d', bytes_up_per_step_last) as "at the end",
       printf('%.1fx', compression_last) as "less ",
       printf('%.0f', seconds) as seconds
from demo
order by id;
