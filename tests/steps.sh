#!/bin/bash
# steps.sh PROGRAM -- --log-every: the steps that are kept are the right ones, add up to the epoch's
# row, and change nothing.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

answer() { # answer VALUE DATABASE QUERY
    [ "$(sql "$2" "$3" 2>&1)" = "$1" ] || { echo "  $3: $(sql "$2" "$3" 2>&1), not $1" && false; }
}

# 27 steps an epoch, the last one shorter.
cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 1, "dropout": 0.1},
 "data": {"name": "text", "path": "$work", "bptt": 5}, "evaluate": {"batch": 4, "bptt": 5},
 "workers": 2, "total_batch": 8, "epochs": 3, "seed": 1,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2, "momentum": 0.5}}, "lr_rule": "linear"}
EOF
# All that a run stores but names, times and what is asked about here.
results="select epoch, train_loss, valid_loss, lr, steps, samples, density, bytes_dense, bytes_up,
    bytes_up_step, bytes_down, bytes_paper, grad_norm, residual_norm, scored from epochs
    union all select which, loss, scored, null, null, null, null, null, null, null, null, null, null,
    null, null from tests
    union all select key, null, null, null, null, null, null, null, null, null, null, null, null, null,
    null from runs"

# What is no number of steps.
says 0 '^  --log-every N ' - train --help
for value in -1 abc 1.5 1e12; do
    says 1 - "^gradpress: --log-every $value: not a whole number" train tiny.json --log-every "$value"
done
says 2 - '--log-every needs a value: --log-every N' train tiny.json --log-every
fact "nothing is made" test ! -e gradpress.db

check() { # check NAME ARGUMENT...
    local name=$1 every
    shift
    for every in 0 1 3 1000; do
        gradpress train tiny.json "$@" --db "$name$every.db" --log-every $every --quiet
        fact "the run ends with 0" ends_with 0
        fact "kept or not: the same results" test \
            "$(sql "$name$every.db" "$results")" = "$(sql "${name}0.db" "$results")"
        fact "nothing else is kept" answer 0 "$name$every.db" \
            "select count(*) from steps where $every = 0 or step % $every <> 0"
    done
    fact "none" answer 0 "${name}0.db" 'select count(*) from steps'
    fact "the first" answer 0 "${name}1000.db" 'select group_concat(step) from steps'
    fact "each" answer '1|1' "${name}1.db" 'select count(*) = (select sum(steps) from epochs),
        max(step) + 1 = count(*) from steps'
    fact "every third" answer "$(seq -s , 0 3 "$(($(sql "${name}1.db" 'select max(step) from steps')))")" \
        "${name}3.db" 'select group_concat(step) from (select step from steps order by step)'
    fact "which belong to their epochs" answer 0 "${name}3.db" \
        'select count(*) from steps where epoch <> step / (select steps from epochs limit 1)'
    fact "and are what they are among all" answer 0 "${name}3.db" \
        "attach '${name}1.db' as each; select count(*) from main.steps as a join each.steps as b
         using (run_id, step) where a.epoch <> b.epoch or a.samples <> b.samples or a.lr <> b.lr
         or a.bytes_up <> b.bytes_up or a.loss <> b.loss or a.grad_norm <> b.grad_norm"
    fact "they add up to the epoch" answer 0 "${name}1.db" \
        'with kept as (select epoch, sum(bytes_up) as up, sum(bytes_down) as down,
             sum(loss * samples) / sum(samples) as loss, sum(samples) as samples, count(*) as steps,
             avg(density) as density, avg(grad_norm) as norm from steps group by epoch)
         select count(*) from epochs left join kept using (epoch)
         where epochs.steps is not kept.steps or epochs.samples is not kept.samples
         or not abs(up / bytes_up - 1) < 1e-12 or not abs(down / bytes_down - 1) < 1e-12
         or not abs(loss / train_loss - 1) < 1e-12 or not abs(norm / epochs.grad_norm - 1) < 1e-12
         or not abs(kept.density / epochs.density - 1) < 1e-12'
    fact "the last is that of the epoch" answer 0 "${name}1.db" \
        'select count(*) from epochs join steps on steps.epoch = epochs.epoch
         and step = (select max(step) from steps as s where s.epoch = epochs.epoch)
         where steps.lr <> epochs.lr or not abs(steps.bytes_up / bytes_up_step - 1) < 1e-12'
}
check none
check topk --compressor topk:ratio=0.05 --encoding runs16 --group 1
check dgc --compressor dgc --ratio 0.02 --warmup 0.5,0.25 --warmup-steps 3 --workers 3 --batch 2
check segments --sharding segments --workers 4 --batch 2
fact "a warm-up is seen" answer 1 dgc1.db \
    'select min(bytes_up) * 2 < max(bytes_up) from steps where step in (0, 10)'

# A run that is done.
gradpress train tiny.json --db none3.db --log-every 6 --quiet
fact "every sixth is there with every third" ends_with 0
gradpress train tiny.json --db none3.db --log-every 2 --quiet
fact "every second is not" ends_with 1
fact "which is said" err_has 'none3.db: the steps of --log-every 2 of tiny/none/k2/s1 were not kept'
gradpress train tiny.json --db none3.db --log-every 2 --quiet --again
fact "and repeated" ends_with 0
fact "in place of the others" answer "$(seq -s , 0 2 80)" none3.db \
    'select group_concat(step) from (select step from steps order by step)'

# A loss that is not finite.
gradpress train tiny.json --db far.db --lr 1e6 --weight-decay 1 --clip none --log-every 1 --quiet
fact "diverged" answer diverged far.db 'select status from runs'
fact "no step is without a loss" answer 0 far.db 'select count(*) from steps where loss is null'
fact "the first is finite, the last is not" answer '1|1' far.db 'select (select loss < 100 from steps
    where step = 0), (select loss > 1e308 from steps order by step desc limit 1)'
gradpress train tiny.json --db far.db --lr 1e6 --weight-decay 1 --clip none --log-every 1 --quiet
fact "all that it took are there" ends_with 0

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
