#!/bin/bash
# eval.sh PROGRAM -- what `gradpress eval` says of weights in a file: to the bit what the run that
# wrote them stored; and what it says where they are nobody's, of other data, or not there.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

export HOME=$work XDG_CACHE_HOME=$work

# The loss in JSON on stdout is one in the database: the double itself, not a text of it.
is_stored() { # is_stored DATABASE QUERY
    local loss mantissa exponent
    loss=$(sed -n 's/.*"loss":\([^,]*\),.*/\1/p' out)
    IFS='|' read -r mantissa exponent < <(sql "$1" \
        "select ieee754_mantissa(loss), ieee754_exponent(loss) from ($2)")
    awk -v loss="$loss" -v mantissa="$mantissa" -v exponent="$exponent" \
        'BEGIN { exit !(loss + 0 > 0 && mantissa * 2 ^ exponent == loss + 0) }' ||
        { echo "  loss $loss, not $mantissa * 2 ^ $exponent" && false; }
}

cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 2, "dropout": 0.2},
 "data": {"name": "text", "path": "$work", "bptt": 5}, "evaluate": {"batch": 4, "bptt": 3},
 "workers": 2, "total_batch": 8, "epochs": 2, "seed": 1,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2}}}
EOF
last="select loss from tests where which = 'last'"

# Help, misuse.
says 0 '^Usage: gradpress eval FILE' - eval --help
for flag in --split --regime --set --data --device --threads --json; do
    fact "help tells of $flag" out_has "^  ($flag|--\\[no-\\]${flag#--}) "
done
fact "and not of what only train takes" test "$(grep -cE -- '--(workers|compressor|db|again) ' out)" -eq 0
says 0 '^  gradpress eval ' - help
gradpress train --help
fact "train has no --split" test "$(grep -c -- '--split' out)" -eq 0
says 2 - 'no file named' eval
says 2 - "two files, 'a' and 'b'" eval a b
says 2 - "no such flag '--workers'" eval a --workers 3
says 2 - "no such flag '-K3'" eval a -K3
says 2 - "did you mean '--split'" eval a --splti test
says 2 - '--regime needs a value: --regime REGIME' eval a --regime
says 2 - "no such flag '--split'" train tiny.json --split test

# The last weights, to the bit.
check() { # check NAME ARGUMENT...
    local name=$1
    shift
    gradpress train tiny.json "$@" --db "$name.db" --save "$name.st" --quiet
    fact "the run ends with 0" ends_with 0
    says 0 '"split":"test"' - eval "$name.st" --json --quiet
    fact "its test" is_stored "$name.db" "$last"
    fact "of as many tokens" is "$(sql "$name.db" "select scored from tests where which = 'last'")" '$.scored'
    says 0 '"split":"valid"' - eval "$name.st" --split valid --json --quiet
    fact "its validation" is_stored "$name.db" \
        'select valid_loss as loss from epochs order by epoch desc limit 1'
    fact "of as many tokens too" is "$(sql "$name.db" 'select scored from epochs limit 1')" '$.scored'
}
check plain
check sparse --compressor dgc --warmup none --compress-all --workers 3 --batch 2 --hidden 20
check tied --tied --set data.min_count=50 --set evaluate.batch=7
check again --init plain.st --seed 3
says 0 '^plain\.st test loss [0-9]+\.[0-9]{6} perplexity [0-9]+\.[0-9]{2} scored [0-9]+$' \
    '^plain\.st: tiny/none/k2/s1 after epoch 1$' eval plain.st
fact "one line" test "$(wc -l <out)" -eq 1
fact "stderr tells of part and device" err_has '^the test part of text  on '
says 0 '^plain\.st train loss ' - eval plain.st --split=train --quiet
says 0 '^plain\.st test loss ' - eval plain.st --quiet --device cpu --threads 1 --set evaluate.batch=2
gradpress eval plain.st --json --quiet
fact "one line of JSON" test "$(wc -l <out)|$(sqlite3 :memory: "select json_valid(readfile('out'))")" = '1|1'
fact "the file" is plain.st '$.file'
fact "perplexity is the exponential of the loss" test "$(sqlite3 :memory: \
    "select abs(ln(json_extract(j, '\$.perplexity')) - json_extract(j, '\$.loss')) < 1e-12
     from (select readfile('out') as j)")" = 1
fact "nothing is made" test "$(find . -name 'gradpress.db*' | wc -l)" -eq 0

# Past what a double holds.
gradpress train tiny.json --lr 1e4 --epochs 1 --db far.db --save far.st --quiet
says 0 '"perplexity":null' - eval far.st --json --quiet
fact "it is valid JSON" test "$(sqlite3 :memory: "select json_valid(readfile('out'))")" = 1
fact "with the loss that was stored" is_stored far.db "$last"
says 0 ' perplexity Infinity scored ' - eval far.st --quiet

# Where the file does not say what it is of, or says what cannot be.
sed 's/"config":/"KONFIG":/' plain.st >foreign.st
says 1 - 'foreign.st: does not say which regime it is of, .*--regime REGIME' eval foreign.st
says 0 '^foreign\.st test ' - eval foreign.st --regime tiny.json --quiet
gradpress eval foreign.st --regime tiny.json --json --quiet
fact "the same to the bit" is_stored plain.db "$last"
sed 's/"config":"{/"config":"[/' plain.st >broken.st
says 1 - '^gradpress: broken.st: config' eval broken.st
says 1 - "plain.st: tensor '[a-z_0-9.]+' is of shape .*in the model of shape" \
    eval plain.st --set model.hidden=9 --quiet
says 1 - "plain.st: tensor '.*' .*is not in the model" eval plain.st --set model.layers=1 --quiet
says 1 - "did you mean 'lstm-kjv'" eval plain.st --regime lstm-kjw

# What is no file, and what no weights.
says 1 - '^gradpress: tiny/none/k2/s1: there is no such file; eval needs a weights file: train --save FILE' \
    eval tiny/none/k2/s1
says 1 - 'absent: there is no such file' eval absent --regime tiny.json
says 1 - 'tiny.json: no safetensors file' eval tiny.json
says 1 - 'plain.db: no safetensors file' eval plain.db
says 1 - 'not a regular file' eval .
says 1 - '--split tset: not one of train, valid, test' eval plain.st --split tset
says 1 - '--threads many' eval plain.st --threads many
says 1 - 'tokens, too few for 1000 columns.*evaluate.batch' \
    eval plain.st --set evaluate.batch=1000 --quiet
says 1 - 'cuda|CUDA' eval plain.st --device cuda:99 --quiet
says 1 - 'the evaluation needs [0-9]{4}[0-9.]+ GiB' eval plain.st --set model.hidden=65536 \
    --set model.layers=16 --quiet

# Other data of the same vocabulary.
mkdir other
cp train.txt test.txt other
cat valid.txt valid.txt >other/valid.txt
says 1 - "plain.st: of a run over other data of the name 'text': .* --regime REGIME" \
    eval plain.st --set "data.path=$work/other"
says 0 '^plain\.st valid ' '^plain\.st: of a run over other data than these$' \
    eval plain.st --regime tiny.json --split valid --set "data.path=$work/other"
says 1 - 'absent' eval plain.st --set "data.path=$work/absent"

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
