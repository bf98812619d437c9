#!/bin/bash
# cli.sh PROGRAM -- what gradpress says, where it says it and how it ends: help, misuse, faults,
# runs on a tiny text, and what becomes of them when they are stopped, killed or many.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

lines() { [ "$(wc -l <"$1")" -eq "$2" ]; }

# Exit code, and what the one stream says; the other one is silent.  In place of that of facts.sh.
says() { # says CODE PATTERN ARGUMENT...
    local expected=$1 pattern=$2
    shift 2
    gradpress "$@"
    fact "exit code $expected" ends_with "$expected"
    if [ "$expected" -eq 0 ]; then
        fact "stdout has: $pattern" out_has "$pattern"
        fact "nothing on stderr" is_empty err
    else
        fact "stderr has: $pattern" err_has "$pattern"
        fact "nothing on stdout" is_empty out
    fi
}

is() { # is VALUE DATABASE QUERY
    [ "$(sql "$2" "$3" 2>&1)" = "$1" ] || { echo "  $3: $(sql "$2" "$3" 2>&1), not $1" && false; }
}

cat >tiny.json <<END
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 1, "dropout": 0},
 "data": {"name": "text", "path": "$work", "bptt": 5}, "evaluate": {"batch": 4, "bptt": 5},
 "workers": 2, "total_batch": 8, "epochs": 1, "seed": 1,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2}}}
END

# Help, tables.
says 0 'gradpress train' --help
cp out help
says 0 'gradpress train' help
fact "help and --help are one" cmp -s out help
says 0 'gradpress train' -h
says 0 '^Usage: gradpress train REGIME' train --help
for flag in --workers --compressor --db --json --set --compress-all; do
    fact "help tells of $flag" out_has "$flag|${flag/--/--\\[no-\\]}"
done
says 0 'Usage: gradpress list TABLE' list --help
says 0 '^lstm ' list models
says 0 '^topk ' list compressors
for name in none dgc gradient-dropping; do
    fact "$name is listed" out_has "^$name "
done
says 0 '^residual ' list memories
says 0 '^text ' list datasets
says 0 '^lstm-kjv ' list regimes
for file in "$GRADPRESS_REGIMES"/*.json; do
    fact "$file is listed" out_has "^$(basename "$file" .json) "
done
says 0 '^gradpress [0-9]+\.[0-9]+\.[0-9]+ ' version
says 0 '^gradpress [0-9]+\.[0-9]+\.[0-9]+ ' --version
says 0 '^cpu  .*threads' devices
fact "devices tells of cuda" out_has '^cuda  '

# Misuse is 2, a fault is 1; the nearest name stands there.
says 2 '^  gradpress train'
says 2 "no such command 'trian'; did you mean 'train'" trian
says 2 'no such table' list modles
says 2 'wants the name of a table' list
says 2 'takes no arguments' version now
says 2 'takes no arguments' devices cpu
says 2 'no regime' train
says 2 "two regimes, 'a' and 'b'" train a b
says 2 "no such flag '--wrokers'; did you mean '--workers'" train tiny.json --wrokers 3
says 2 '--workers needs a value' train tiny.json --workers
says 2 'PATH=VALUE' train tiny.json --set nothing
says 2 'exclude each other' train tiny.json --batch 2 --total-batch 4
fact "misuse tells of --help" err_has '--help'
says 1 "did you mean 'lstm-kjv'" train lstm-kjw
says 1 "hidden" train tiny.json --set model.hiden=3
says 1 '--workers' train tiny.json --workers 0
says 1 '--workers' train tiny.json --workers many
says 1 "there are .*topk" train tiny.json --compressor dcg
says 1 'absent.json' train absent.json
echo '{"model": {"name": "lstm"},, }' >broken.json
says 1 'broken.json' train broken.json
echo '{"about": "x", "wokers": 3}' >unknown.json
says 1 "unknown.json.*workers" train unknown.json
says 1 'lstm|folder|not in' train lstm-ptb --data "$work/absent" --db absent/x.db
says 1 'absent/x.db' train tiny.json --db absent/x.db
echo 'not a database, but long enough to be read as one: a hundred bytes of header are wanted here, and more' >junk.db
says 1 'junk.db' train tiny.json --db junk.db
mkdir empty
says 1 'empty' train tiny.json --set "data.path=$work/empty"
fact "a fault of the input leaves no database" test ! -e gradpress.db

# A run: one line on stdout, all else on stderr.
gradpress train tiny.json --db a.db
fact "a run ends with 0" ends_with 0
fact "one line on stdout" lines out 1
fact "which tells name, status and metrics" out_has \
    '^tiny/none/k2/s1 done key [0-9a-f]{12} epochs 1 perplexity [0-9.]+ test [0-9.]+'
fact "progress on stderr" err_has '^epoch 1 of 1 '
fact "and plainly, for it is no terminal" test "$(tr -cd '\r\033' <err | wc -c)" -eq 0
fact "the row is there" is '1|done|1' a.db \
    "select count(*), status, (select count(*) from epochs) from runs"
cp out first
gradpress train tiny.json --db a.db
fact "again: done" ends_with 0
fact "and the same line" cmp -s out first
fact "without an epoch" test "$(grep -c '^epoch' err)" -eq 0
gradpress train tiny.json --db a.db --again --quiet
fact "--again ends with 0" ends_with 0
fact "--quiet is quiet" is_empty err
fact "and replaces the run" is '1|1' a.db "select count(*), (select count(*) from epochs) from runs"
gradpress train tiny.json --db a.db --json --quiet
fact "--json is JSON" is 1 :memory: "select json_valid(readfile('out'))"
fact "that tells the status" is "done" :memory: "select json_extract(readfile('out'), '\$.status')"
gradpress train tiny.json --db a.db --compressor topk:ratio=0.05 --verify-wire --quiet
fact "another method is another run" is 2 a.db "select count(*) from runs where status = 'done'"
fact "and sends less" is 1 a.db "select compression > 5 from summary where memory = 'residual'"
gradpress train tiny.json --db a.db --compressor threshold:tau=0.1 --compress-all --verify-wire --quiet
fact "the paper's bytes are of what was sent" is 1 a.db "select 2 * bytes_paper = bytes_up - 4 * 7 * steps
    from epochs join runs on runs.id = run_id where compressor = 'threshold'"
says 1 'schedule.0.lr: 2 there, 1 here' train tiny.json --db a.db --lr 1 --name tiny/none/k2/s1
GRADPRESS_DB=b.db gradpress train tiny.json --quiet
fact "\$GRADPRESS_DB is used" is 1 b.db "select count(*) from runs"

# Bench: no data, no database; the products are counted. Of 2 x 4 columns and 5 steps, a model of 8
# units and 100 words: the layer's input with its spare row, its history, the logits.
bench=(bench tiny.json --steps 3 --vocabulary 100 --set "data.path=$work/absent" --db absent/x.db)
measured() { is "$1" :memory: "select $2 from (select readfile('out') as j)"; }
gradpress "${bench[@]}" --compressor topk:ratio=0.05 --json
fact "bench ends with 0" ends_with 0
fact "nothing on stderr" is_empty err
fact "it times so many steps" measured 3 "json_array_length(j, '\$.seconds_per_step')"
fact "its forward products are counted" measured $((2 * (48 * 32 * 8 + 40 * 32 * 8 + 40 * 100 * 8))) \
    "cast(j ->> '\$.stages.forward.flop' as integer)"
fact "every stage takes time, and all of them about a step" measured 1 \
    "(select min(value ->> 'seconds') > 0 and sum(value ->> 'seconds') <
      10 * (j ->> '\$.seconds_per_step_median') from json_each(j, '\$.stages'))"
fact "the machine is measured" measured 1 "j ->> '\$.machine.flop_per_second' > 1e8 and
    j ->> '\$.machine.copy_bytes_per_second' > 1e8 and j ->> '\$.pass.seconds' > 0"
gradpress "${bench[@]}"
fact "as a table too" out_has '^compensate .* passes$'
small=(bench compressors --hidden 8 --layers 1 --vocabulary 100 --workers 3 --group 2 --steps 1)
gradpress "${small[@]}" --json
fact "bench compressors ends with 0" ends_with 0
for method in $("$program" list compressors | grep -oE '^[a-z0-9-]+') \
    $("$program" list quantisers | grep -oE '^[a-z0-9-]+'); do
    fact "it has a row for $method" measured 1 "(select count(*) from json_each(j, '\$.methods')
        where value ->> 'method' in ('$method', '$method:ratio=0.001'))"
done
fact "and for methods of both" measured 1 "(select count(*) > 3 from json_each(j, '\$.methods')
    where value ->> 'method' like '%+%')"
fact "all take time, which is that of their stages" measured 1 "(select min(value ->> 'bytes_per_second') > 0
    and max(abs((select sum(value) from json_each(m.value, '\$.passes') where key <> 'sum') -
    (m.value ->> '\$.passes.sum'))) < 1e-6 from json_each(j, '\$.methods') as m)"
gradpress "${small[@]}" --compressor topk:ratio=0.5
fact "one alone, as a table" out_has '^topk:ratio=0.5 +residual +([0-9.]+ +){5}[0-9.]+$'
fact "and no other" lines out 4
says 2 "no such flag '--stpes'" bench compressors --stpes 3
says 1 "there are .*topk" bench compressors --compressor dcg
says 2 "--steps: 'abc' is not a whole number from 1" bench tiny.json --steps abc
says 2 "--vocabulary: '0' is not" bench tiny.json --vocabulary 0
says 2 "--steps: '' is not" bench tiny.json --steps

# A loss that is not finite is a result.
gradpress train tiny.json --db a.db --lr 1e6 --clip none --weight-decay 1 --epochs 3 --json --quiet
fact "diverged ends with 0" ends_with 0
fact "its JSON is valid" is 1 :memory: "select json_valid(readfile('out'))"
fact "and says so" is diverged :memory: "select json_extract(readfile('out'), '\$.status')"
gradpress train tiny.json --db a.db --lr 1e6 --clip none --weight-decay 1 --epochs 3 --again \
    --fail-on-divergence
fact "--fail-on-divergence ends with 3" ends_with 3

# In the background, until it has an epoch.
begin() { # begin DATABASE ARGUMENT...
    local db=$1
    shift
    "$program" train tiny.json --db "$db" --epochs 60 --quiet "$@" >/dev/null 2>&1 </dev/null &
    pid=$!
}
await_epoch() {
    for _ in $(seq 300); do
        [ "$(sql "$1" 'select count(*) > 0 from epochs' 2>/dev/null)" = 1 ] && return
        sleep 0.05
    done
    return 1
}

# Elsewhere; stopped by a signal.
for signal in INT TERM; do
    begin "$signal.db" --epochs 1000000
    fact "an epoch is there while it runs" await_epoch "$signal.db"
    gradpress train tiny.json --db "$signal.db" --epochs 1000000
    fact "running elsewhere ends with 4" ends_with 4
    fact "and says so" err_has 'another process is at this run'
    kill -s $signal "$pid"
    wait "$pid" 2>/dev/null
    fact "it dies of SIG$signal" test $? -eq $((128 + $(kill -l $signal)))
    fact "and is stopped, with its epochs" is 'stopped|1' "$signal.db" \
        "select status, (select count(*) > 0 from epochs) from runs"
done

# Killed, at any moment: the database is whole, a copy of the one file too; the same command goes on.
gradpress train tiny.json --db k.db --seed 9
fact "a run that is never killed is done" ends_with 0
for moment in 1 2 3 4 5; do
    begin k.db
    sleep "0.$((RANDOM % 60 + 20))"
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    cp k.db copy.db
    fact "after kill -9 ($moment) it is whole" is ok k.db 'pragma integrity_check'
    fact "and so is a copy of it" is ok copy.db 'pragma integrity_check'
    fact "with all but the last epoch" test \
        "$(sql copy.db 'select count(*) from epochs')" -ge "$(sql k.db 'select count(*) - 1 from epochs')"
done
gradpress train tiny.json --db k.db --epochs 60 --quiet
fact "the same command takes over" ends_with 0
fact "and leaves one run, done, beside the one before" is '2|2|61' k.db \
    "select count(*), sum(status = 'done'), (select count(*) from epochs) from runs"

# Many at once, into a database that none of them has made.
pids=()
for seed in 1 2 3 4 5 6 7 8; do
    begin m.db --seed $seed --epochs 5
    pids+=("$pid")
done
for pid in "${pids[@]}"; do
    wait "$pid"
    fact "each of 8 at once ends with 0" test $? -eq 0
done
fact "and none has lost a row" is '8|40|8' m.db \
    "select count(*), (select count(*) from epochs), (select count(*) from tests where which = 'last')
     from runs where status = 'done'"
fact "the database is whole" is ok m.db 'pragma integrity_check'

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
