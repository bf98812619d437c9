#!/bin/bash
# bytes.sh PROGRAM -- bytes by every rule: the tables of papers to the printed digit, from shapes
# alone; that a run sends what was told; and what --tensors and --measure-every add to its rows.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

answer() { # answer VALUE DATABASE QUERY
    [ "$(sql "$2" "$3" 2>&1)" = "$1" ] || { echo "  $3: $(sql "$2" "$3" 2>&1), not $1" && false; }
}

# Help, misuse.
says 0 '^Usage: gradpress bytes MODEL' - bytes --help
for flag in --vocabulary --per-tensor --compressor --encoding --workers; do
    fact "help tells of $flag" out_has "^  $flag"
done
says 0 '^  gradpress bytes ' - help
says 2 - 'no model named' bytes
says 2 - "two models, 'lstm' and 'b'" bytes lstm b
says 2 - "--vocabulary: 'many' is not a whole number from 1" bytes lstm --vocabulary many
says 2 - "no such flag '--per-tenor'" bytes lstm --per-tenor
says 1 - "lstm:hiden=3: model.hiden: no such key; did you mean 'hidden'" bytes lstm:hiden=3
says 1 - "no such model 'lstmm'; did you mean 'lstm'" bytes lstmm:hidden=3
says 1 - "did you mean 'lstm-kjv'" bytes lstm-kjw
says 0 '^lstm-ptb-1500  none ' - bytes lstm-ptb-1500

# DGC, table 4: 194.68 MB, 0.42 MB, 462x; were all tensors sparse, 666.7x.
dgc=(bytes "lstm:hidden=1500,tied=1" --compressor dgc)
says 0 '^51034000 parameters in 10 tensors, 5 of them' - "${dgc[@]}"
fact "its gradient" out_has '^dense +204136000 +194\.68 '
fact "what it sends" out_has '^paper +442000 +0\.4215 +461\.8x$'
says 0 '^paper +[0-9]+ +0\.[0-9]+ +666\.7x$' - "${dgc[@]}" --compress-all
says 0 '^up +442000 +0\.4215 +461\.8x$' - "${dgc[@]}" --encoding runs16
fact "fillers may come" out_has '^up and down: about'
gradpress "${dgc[@]}"
fact "with raw indices there are none" test "$(grep -c '^up and down:' out)" -eq 0
says 0 '^lstm-ptb-1500  dgc:ratio=0.001 ' - bytes lstm-ptb-1500 --compressor dgc
fact "also by the regime's name, whatever its warm-up" out_has '^paper +442000 '

# How the first reference counts, in its own digits.
while read -r ratio topk sign ternary; do
    for method in "topk $topk" "efsigntopk $sign" "terngradtopk $ternary"; do
        gradpress bytes lstm:hidden=700 --compress-all --ratio "$ratio" --compressor "${method% *}"
        fact "${method% *} at $ratio is ${method#* }x" out_has "^paper +[0-9]+ .* ${method#* }x$"
    done
done <<'END'
0.1 5\.000 9\.697 9\.412
0.01 50\.00 96\.97 94\.12
0.001 500\.1 969\.8 941\.3
0.0001 4993 9684 9399
0.00001 49460 95922 93101
END

# Convolutional networks.  DGC's ResNet-50: 97.49 MB, 0.35 MB, 277x; PowerSGD's ResNet-18 of CIFAR-10.
says 0 '^25557032 parameters in 161 tensors, 54 of them' - bytes resnet-imagenet:depth=50 \
    --set data.name=synthetic --set data.side=224 --set data.classes=1000 --compressor dgc
fact "its gradient" out_has '^dense +102228128 +97\.49 '
fact "what it sends" out_has '^paper +369678 +0\.3526 +276\.5x$'
for row in "1 243\.3" "2 135\.8" "4 72\.1."; do
    says 0 "^paper .* ${row#* }x\$" - bytes resnet-imagenet:depth=18 --compressor "powersgd:rank=${row% *}"
done
fact "ResNet-18 of CIFAR-10" out_has '^11173962 parameters'
while read -r model parameters; do
    says 0 "^$parameters parameters" - bytes "$model"
done <<'END'
resnet:depth=44 661338
resnet:depth=110 1730714
resnet:depth=16,width=4 2777674
vgg:depth=16 14728266
lenet 62006
END

# PowerSGD's row of WikiText-2: 310x, 203x, 120x.
wikitext=(bytes "lstm:hidden=650,layers=3,tied=1" --vocabulary 28869)
says 0 '^28949319 parameters in 14 tensors, 7 of them' - "${wikitext[@]}"
gradpress list compressors
if out_has '^powersgd '; then
    says 0 '^paper .* 309\.7x$' - "${wikitext[@]}" --compressor powersgd:rank=1
    says 0 '^paper .* 203\.1x$' - "${wikitext[@]}" --compressor powersgd:rank=2
    says 0 '^paper .* 120\.3x$' - "${wikitext[@]}" --compressor powersgd:rank=4
fi

# GRACE's bytes: a byte for a sign, 4 for an index.
says 0 '^framework +21861244 ' - bytes lstm:hidden=700 --compress-all --compressor efsignsgd
says 0 '^framework +1748896 ' - bytes lstm:hidden=700 --compress-all --compressor topk:ratio=0.01

# Down: what the others send; a sum is as large as one's own.
for k in 1 4 32; do
    gradpress bytes lstm:hidden=650 --compressor topk --compress-all --workers $k --json
    fact "$k workers gather" is $(((k - 1) * $(json '$.bytes.up'))) '$.bytes.down'
    gradpress bytes lstm:hidden=650 --workers $k --json
    fact "$k workers sum up" is "$(json '$.bytes.dense')" '$.bytes.down'
done

# JSON, per tensor.
gradpress "${dgc[@]}" --per-tensor
fact "a line each" out_has '^encoder\.weight +15000000 +15000 +120000 +0 +90000 +120000 +81[0-9]{3}$'
gradpress "${dgc[@]}" --per-tensor --json --workers 4
fact "one line of JSON" test "$(sqlite3 :memory: "select json_valid(readfile('out'))")" = 1
fact "of exact bytes" is 1 '$.exact'
for key in elements entries bytes.dense bytes.up bytes.down bytes.paper bytes.framework bytes.bound; do
    fact "its tensors add up to its $key" test "$(sqlite3 :memory: "select abs(sum(value ->> '\$.$key')
        / (j ->> '\$.$key') - 1) < 1e-12 from (select readfile('out') as j), json_each(j, '\$.tensors')")" = 1
done
gradpress "${dgc[@]}" --json --encoding runs16
fact "or not" is 0 '$.exact'
fact "without tensors unless asked" is '' '$.tensors'
fact "nothing is made" test "$(find . -name '*.db*' | wc -l)" -eq 0

# A run: 40 steps an epoch, the last one shorter.
cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 1, "dropout": 0.1},
 "data": {"name": "text", "path": "$work", "bptt": 3}, "evaluate": {"batch": 4, "bptt": 5},
 "workers": 3, "batch": 3, "epochs": 3, "seed": 1,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2, "momentum": 0.5}}, "lr_rule": "linear"}
EOF
# All that a run stores but names, times and what is asked about here.
results="select epoch, train_loss, valid_loss, density, bytes_up, bytes_down, bytes_paper,
    bytes_framework, bytes_bound, grad_norm, residual_norm from epochs
    union all select which, loss, scored, null, null, null, null, null, null, null, null from tests
    union all select key, null, null, null, null, null, null, null, null, null, null from runs"
gradpress show tiny.json --json
words=$(json '$.data.words')

# What bytes tells is what the run in a database sends, in its last epoch, when a warm-up is over.
check_told() { # check_told DATABASE ARGUMENT...
    local db=$1 column steps
    shift
    gradpress bytes tiny.json "$@" --json --vocabulary "$words" --per-tensor
    steps=$(sql "$db" 'select steps from epochs where epoch = 2')
    for column in dense up down paper framework bound; do
        fact "bytes_$column is as told" answer 1 "$db" \
            "select abs(bytes_$column / $steps / $(json "\$.bytes.$column") - 1) < 1e-12
             from epochs where epoch = 2"
    done
    fact "of each tensor, too" answer 0 "$db" \
        "select count(*) from tensors left join json_each(readfile('out'), '\$.tensors')
         on value ->> '\$.tensor' = tensor where epoch = 2
         and (value is null or elements <> value ->> '\$.elements'
         or abs(entries / $steps - (value ->> '\$.entries')) > 1e-9
         or abs(bytes_up / $steps - (value ->> '\$.bytes.up')) > 1e-9
         or abs(bytes_down / $steps - (value ->> '\$.bytes.down')) > 1e-9
         or abs(bytes_paper / $steps - (value ->> '\$.bytes.paper')) > 1e-9
         or abs(bytes_framework / $steps - (value ->> '\$.bytes.framework')) > 1e-9
         or abs(bytes_bound / $steps - (value ->> '\$.bytes.bound')) > 1e-9)"
}

# Tensors are their epoch's.
check_sums() { # check_sums DATABASE
    local db=$1 column
    local by_epoch="from tensors group by epoch) join epochs using (epoch)"

    fact "every tensor in every epoch" answer '21|7' "$db" \
        'select count(*), count(distinct tensor) from tensors'
    for column in bytes_up bytes_down bytes_paper bytes_framework bytes_bound; do
        fact "$column adds up" answer 3 "$db" "select count(*) from (select epoch, sum($column) as s
            $by_epoch where s = $column or abs(s / $column - 1) < 1e-12"
    done
    for column in density density_union; do
        fact "$column is their mean" answer 3 "$db" "select count(*) from (select epoch,
            sum($column * elements) / sum(elements) as s $by_epoch where abs(s / $column - 1) < 1e-12"
    done
    fact "residual_norm adds up as squares do" answer 3 "$db" "select count(*) from (select epoch,
        sum(residual_norm * residual_norm) as s $by_epoch where (s is null and residual_norm is null)
        or s = residual_norm or abs(s / residual_norm / residual_norm - 1) < 1e-12"
    fact "the error is among those of its tensors" answer 3 "$db" "select count(*) from (select epoch,
        min(compression_error) as low, max(compression_error) as high $by_epoch
        where compression_error between low - 1e-12 and high + 1e-12"
    fact "all send no less than one" answer 0 "$db" "select count(*) from tensors
        where density_union is null or density_union < density - 1e-12 or density_union > 1"
    fact "the parts of the time add up" answer 3 "$db" "select count(*) from epochs
        where abs((seconds_forward + seconds_backward + seconds_compensate + seconds_encode
        + seconds_exchange + seconds_apply) / seconds - 1) < 1e-9 and min(seconds_forward,
        seconds_backward, seconds_compensate, seconds_exchange, seconds_apply) > 0"
}

check() { # check NAME ARGUMENT...
    local db=$1.db
    shift
    rm -f plain.db
    gradpress train tiny.json "$@" --db plain.db --quiet
    fact "the run ends with 0" ends_with 0
    gradpress train tiny.json "$@" --db "$db" --quiet --tensors --measure-every 1
    fact "kept and measured: the same results" test \
        "$(sql plain.db "$results")" = "$(sql "$db" "$results")"
    fact "no tensors unless asked" answer 0 plain.db 'select count(*) from tensors'
    check_told "$db" "$@"
    check_sums "$db"
}
check none
check topk --compressor topk:ratio=0.05
check all --compressor topk:ratio=0.05 --compress-all --encoding runs16 --group 2
check dgc --compressor dgc --ratio 0.02 --warmup 0.5,0.25 --warmup-steps 3
check signs --compressor efsignsgd --memory none --clip 0.1
check both --compressor topk:ratio=0.05+terngrad --compress-all
check qsgd --compressor qsgd:bucket=0
check segments --compressor topk:ratio=0.05 --sharding segments
fact "without compression all is sent, and nothing wrong" answer '1.0|0.0' none.db \
    'select min(density_union), max(compression_error) from epochs'
fact "nor is a tensor that is sent whole" answer 0 topk.db \
    "select count(*) from tensors where tensor like '%bias%' and (density <> 1 or density_union <> 1
     or compression_error <> 0 or residual_norm <> 0 or bytes_up <> 4 * entries)"
fact "workers do not choose alike" answer 1 topk.db \
    'select min(density_union > density * 1.1) from epochs'
fact "an error is what is kept of what was wanted" answer 0 topk.db \
    'select count(*) from epochs where not compression_error between 0.1 and 1'

# Measured once an epoch unless told; NULL where an epoch ends before.
gradpress train tiny.json --compressor topk:ratio=0.05 --db once.db --quiet
fact "every epoch has them all" answer 3 once.db 'select count(*) from epochs where density_union > 0
    and compression_error > 0 and seconds_encode > 0 and bytes_bound > 0'
gradpress train tiny.json --db far.db --lr 1e6 --weight-decay 1 --tensors --quiet
fact "diverged" answer diverged far.db 'select status from runs'
fact "measured or NULL" answer 0 far.db "select count(*) from epochs
    where (density_union is null) <> (seconds_apply is null)"

# A run that is done.
gradpress train tiny.json --compressor topk:ratio=0.05 --db topk.db --tensors --quiet
fact "tensors that were kept are there" ends_with 0
gradpress train tiny.json --compressor topk:ratio=0.05 --db once.db --tensors --quiet
fact "others are not" ends_with 1
fact "which is said" err_has 'once.db: the tensors of --tensors of tiny/topk-0.05/k3/s1 were not kept, .*--again'
says 1 - '^gradpress: --measure-every -1: not a whole number' train tiny.json --measure-every -1

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
