#!/bin/bash
# show.sh PROGRAM -- what `gradpress show` and `gradpress runs` say of a regime and of a database, and
# that it is so: a run has the steps and sends the bytes that were told before it.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

export HOME=$work XDG_CACHE_HOME=$work

cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 1, "dropout": 0},
 "data": {"name": "text", "path": "$work", "bptt": 5}, "evaluate": {"batch": 4, "bptt": 5},
 "workers": 2, "total_batch": 8, "epochs": 1, "seed": 1,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2}, "9": {"lr": 1}},
 "tuned": {"topk": {"data.bptt": 4}}}
EOF
echo '{"epochs": 2}' >more.json

# Help, misuse.
says 0 '^Usage: gradpress show REGIME' - show --help
fact "with its own flags" out_has '^  --memory +without a SPEC'
fact "and those of train" out_has '^  --workers N'
says 0 '^Usage: gradpress runs' - runs --help
for flag in --db --where --json; do
    fact "help tells of $flag" out_has "^  $flag"
done
says 0 '^  gradpress show .*REGIME' - help
fact "and runs" out_has '^  gradpress runs'
says 2 - "did you mean 'show'" shwo
says 2 - 'no regime' show
says 2 - "did you mean '--workers'.*" show tiny.json --wrokers 3
says 2 - "did you mean '--where'" runs --wheer true
says 2 - '--db needs a value' runs --db
says 2 - '--where needs a value' runs --where
says 2 - 'no arguments' runs all
says 1 - "did you mean 'lstm-kjv'" show lstm-kjw
says 1 - 'hiden' show tiny.json --set model.hiden=3

# Every key, its value, who said it.
says 0 '^about +tiny +tiny\.json$' - show tiny.json --with more.json --compressor topk --seed 7
fact "the regime" out_has '^model\.hidden +8 +tiny\.json$'
fact "a default" out_has '^model\.tied +0 +default$'
fact "a batch comes from the total" out_has '^batch +4 +tiny\.json$'
fact "the tuned table" out_has '^data\.bptt +4 +tuned topk$'
fact "a file" out_has '^epochs +2 +--with more\.json$'
fact "a flag" out_has '^seed +7 +--seed 7$'
fact "a memory comes with its compressor" out_has '^memory\.name +residual +--compressor topk$'
fact "a phase keeps what it leaves out" out_has '^schedule\.9\.momentum +0 +default$'
fact "the name" out_has '^name +tiny/topk-0.001/k2/s7/x[0-9a-f]{6}$'
fact "the batch in total" out_has '^batch +4 a worker, 8 in total$'
fact "words" out_has '^words +[12][0-9]$'
fact "no parts of the memory" test "$(grep -c '^  ' out)" -eq 0
order='about model\.name data\.name evaluate\.batch workers batch epochs seed schedule\.0\.lr lr_rule\.name clip weight_decay_at compressor\.name memory\.name ratio warmup compress_all encoding key'
# shellcheck disable=SC2086 # words
fact "in the order of regimes/README.md" test \
    "$(printf '%s\n' $order | while read -r key; do grep -nE "^$key " out | head -1 | cut -d: -f1; done | sort -nc 2>&1 | wc -l)" -eq 0
says 0 '^  gradient slab ' - show tiny.json --memory
for part in parameters "workers' memory" evaluation data activations messages scratch; do
    fact "the part: $part" out_has "^  $part +[0-9.]+ [MG]iB"
done
says 0 '^memory\.name +none +--memory none' - show tiny.json --compressor topk --memory none
fact "a memory that is named is the method's" test "$(grep -c '^  ' out)" -eq 0
says 0 '^  messages ' - show tiny.json --memory --workers 3 --batch 2
fact "nothing is made" test "$(find . -name '*.db*' | wc -l)" -eq 0

# What is told before a run is what it does.
check() { # check NAME ARGUMENT...
    local db=$1.db
    shift
    gradpress show tiny.json "$@" --json --memory
    fact "show ends with 0" ends_with 0
    fact "one line of JSON" test "$(sqlite3 :memory: "select json_valid(readfile('out'))")" = 1
    cp out told
    gradpress train tiny.json "$@" --db "$db" --quiet
    fact "the run ends with 0" ends_with 0
    cp told out
    fact "the key" is "$(sql "$db" 'select key from runs')" '$.key'
    fact "the name" is "$(sql "$db" 'select name from runs')" '$.name'
    fact "the text" is "$(sql "$db" 'select data_sha256 from runs')" '$.data.sha256'
    fact "the steps" is "$(sql "$db" 'select steps from epochs where epoch = 0')" '$.steps.epoch'
    fact "all steps" is "$(sql "$db" 'select sum(steps) from epochs')" '$.steps.run'
    fact "the parameters" is "$(sql "$db" 'select cast(bytes_dense / steps as integer) from epochs limit 1')" \
        '$.parameters.bytes'
    fact "the message" is "$(sql "$db" 'select cast(bytes_up_step as integer) from epochs order by epoch desc limit 1')" \
        '$.message.bytes'
    fact "the group" is "$(sql "$db" 'select group_size from runs')" '$.group'
    fact "the streams" is "$(sql "$db" 'select streams from runs')" '$.streams'
}
check none
check bits --compressor topk:ratio=0.05 --encoding bitmap
check topk --compressor topk:ratio=0.05 --epochs 2
check all --compressor topk:ratio=0.05 --compress-all --encoding runs16 --workers 3 --batch 2
check dgc --compressor dgc --warmup 0.5,0.25 --warmup-steps 3 --ratio 0.02
check warm --compressor dgc --warmup 0.5,0.25 --warmup-steps 1000
check randomk --compressor randomk --ratio 0.05
check slice --compressor slice+fp16 --ratio 0.05
check segments --sharding segments
check groups --group 1
says 0 'message +at least [0-9]+ bytes a worker and step, the data say how many;' - show tiny.json --compressor adacomp

# Where places decide, it is about as told.
for encoding in varint gamma delta rice best; do
    says 0 '^message +about [0-9]+ bytes a worker and step, at ratio 0.1, entries at random places;' - \
        show tiny.json --compressor topk:ratio=0.1 --encoding $encoding
    gradpress show tiny.json --compressor topk:ratio=0.1 --encoding $encoding --json
    fact "JSON says so too" is 0 '$.message.exact'
    told=$(json '$.message.bytes')
    gradpress train tiny.json --compressor topk:ratio=0.1 --encoding $encoding --db $encoding.db --quiet
    sent=$(sql $encoding.db 'select cast(bytes_up_step as integer) from epochs')
    fact "$encoding: $told were told, $sent sent" test $((100 * sent / told)) -ge 95 -a $((100 * sent / told)) -le 105
done
says 0 '^message +[0-9]+ bytes' - show tiny.json --compressor topk:ratio=1 --encoding rice
says 0 '^message +[0-9]+ bytes' - show tiny.json --compressor fp16 --encoding best
gradpress show tiny.json --json --memory
fact "the parts are the whole" test "$(sqlite3 :memory: "select json_extract(j, '\$.memory.bytes') = json_extract(j, '\$.memory.parameters') +
    json_extract(j, '\$.memory.workers') + json_extract(j, '\$.memory.evaluation') + json_extract(j, '\$.memory.data') +
    json_extract(j, '\$.streams') * (json_extract(j, '\$.memory.lane.slab') + json_extract(j, '\$.memory.lane.activations') +
    json_extract(j, '\$.memory.lane.messages') + json_extract(j, '\$.memory.lane.scratch')) from (select readfile('out') as j)")" = 1
gradpress show tiny.json --json --seed 5
fact "JSON tells the source" is flag '$.settings.seed.from'
fact "and the place" is '--seed 5' '$.settings.seed.place'
fact "and a value of its own kind" is 5 '$.settings.seed.value'

# Without data, too few, no device, no room.
says 0 '^model\.hidden ' 'data set .ptb. is not in' show lstm-ptb --data "$work/absent"
fact "what follows from the regime alone" out_has '^batch +32 a worker, 128 in total'
fact "and no more" test "$(grep -cE '^(words|steps|parameters|memory needed)' out)" -eq 0
gradpress show lstm-ptb --json
fact "in JSON too" is 32 '$.batch.worker'
fact "with exit code 0" ends_with 0
says 0 '^batch +4 a worker' 'absent' show tiny.json --set "data.path=$work/absent"
says 1 '^words ' 'tokens, too few' show tiny.json --workers 4000 --batch 1
says 1 '^words ' 'cuda|CUDA' show tiny.json --device cuda:99
says 1 '^memory needed ' 'GiB are free; fewer --workers' show tiny.json --workers 500 --batch 1 \
    --group 500 --hidden 40000

# Runs.
says 1 - 'there is no database' runs
fact "and none is made" test ! -e gradpress.db
says 1 - 'absent/x.db: there is no database' runs --db absent/x.db
says 1 - 'tiny.json: .*not a database' runs --db tiny.json
: >empty.db
says 1 - 'empty.db: not a database of gradpress' runs --db empty.db
sqlite3 other.db 'create table runs (name)'
says 1 - 'other.db: not a database of gradpress' runs --db other.db
says 1 - 'not a file' runs --db .
for seed in 3 1 2; do
    gradpress train tiny.json --db r.db --seed $seed --quiet
done
gradpress train tiny.json --db r.db --seed 4 --quiet --compressor topk:ratio=0.05 --name "a name, é"
gradpress train tiny.json --db r.db --lr 1e6 --weight-decay 1 --epochs 3 --quiet --name diverging
says 0 '^name +status +epochs +perplexity +test +top1 +ratio +seconds +age$' - runs --db r.db
fact "a line a run" test "$(wc -l <out)" -eq 6
fact "the newest last" test "$(sed -n '2,4s,^tiny/none/k2/s\([0-9]\) .*,\1,p' out | tr -d '\n')" = 312
fact "its numbers" out_has '^a name, é +done +1 +[0-9]+\.[0-9]{2} +[0-9]+\.[0-9]{2} +- +[0-9]+\.[0-9] +[0-9]+\.[0-9] +[0-9]+ (s|min)$'
fact "a perplexity that is none" out_has '^diverging +diverged +[0-9]+ +inf +(-|[0-9.]+|inf) +- '
fact "in columns" test "$(sed 's/é/e/' out | awk '{ print length($0) }' | sort -u | wc -l)" -eq 1
cp r.db old.db
sqlite3 old.db 'pragma user_version = 1'
says 1 - 'old\.db: written by an older gradpress: version 1 of the schema, not 2' runs --db old.db
rm old.db
fact "nothing stays beside the database" test "$(find . -name 'r.db-*' | wc -l)" -eq 0
GRADPRESS_DB=r.db gradpress runs --where 'seed = 2'
fact "\$GRADPRESS_DB and --where" test "$(sed 1d out | wc -l)" -eq 1
fact "that run" out_has '^tiny/none/k2/s2 '
says 0 '^a name' - runs --db=r.db "--where=method like 'topk%' -- a comment"
says 0 '^name ' - runs --db r.db --where 'workers > 100'
fact "none" test "$(wc -l <out)" -eq 1
says 1 - 'r.db: --where: no such column: sed' runs --db r.db --where 'sed = 2'
says 1 - 'r.db: --where: .*syntax error' runs --db r.db --where ''
says 1 - 'more than a condition' runs --db r.db --where 'true); delete from runs; --'
fact "no run was lost" test "$(sql r.db 'select count(*) from runs')" -eq 5
gradpress runs --db r.db --json
fact "--json is JSON" test "$(sqlite3 :memory: "select json_valid(readfile('out'))")" = 1
fact "a list" is 5 '$[#-1].id'
fact "of objects" is 'a name, é' '$[3].name'
fact "without infinity" is '' '$[4].perplexity'
gradpress runs --db r.db --json --where false
fact "an empty list" test "$(cat out)" = '[]'

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
