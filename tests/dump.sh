#!/bin/bash
# dump.sh PROGRAM -- what --dump writes is what a step is: tests/golden/check_dump.py computes it again,
# for every method and memory there is, and finds the faults that are planted.  Skips without NumPy.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

golden=$(dirname "$GRADPRESS_REGIMES")/tests/golden
export PYTHONDONTWRITEBYTECODE=1
for python in python3 /usr/bin/python3 ''; do
    [ -n "$python" ] || { echo "no NumPy: skipped" && exit 77; }
    "$python" -c 'import numpy' 2>/dev/null && break
done

# Tensors of several tiles; three groups where a method lets them; the last segment is shorter.
cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 16, "layers": 1, "dropout": 0.2},
 "data": {"name": "text", "path": "$work", "bptt": 20}, "evaluate": {"batch": 4, "bptt": 20},
 "workers": 3, "batch": 2, "epochs": 1, "seed": 4294967301, "ratio": 0.05,
 "schedule": {"0": {"lr": 0.5, "momentum": 0.9, "weight_decay": 0.001}}}
EOF

# dump NAME ARGUMENT...
dump() {
    local name=$1
    shift
    gradpress train tiny.json --quiet --again --db runs.db --group 1 --dump 4 "$name" "$@"
}
dumped() {
    dump "$@"
    fact "a dump of $*" ends_with 0
}
names() { "$program" list "$1" | grep -oE '^[a-z0-9-]+'; }

# All that there is; a composition may be refused.
for part in $(names compressors) $(names quantisers); do
    dumped "of-$part" --compressor "$part"
done
for quantiser in $(names quantisers); do
    dump "of-topk+$quantiser" --compressor "topk+$quantiser"
    [ "$code" -eq 0 ] || fact "topk+$quantiser, or why not" err_has 'compressor\.quantiser'
done
for memory in $(names memories); do
    dumped "of-topk-$memory" --compressor topk --memory "$memory"
done
set -- of-*
fact "one for each" test $# -gt 20
"$python" "$golden/check_dump.py" "$@" >out 2>err
code=$?
fact "all are right" ends_with 0
fact "each" test "$(grep -c '^ok: 4 steps of 3 workers, ' out)" -eq $#
"$python" "$golden/plant_faults.py" "$@" >out 2>err
code=$?
fact "faults are found" ends_with 0
fact "some of each" test "$(sed -n 's/^\([0-9]*\) faults, 0 not found$/\1/p' out)" -gt $((6 * $#))

# Settings.
dumped is-clipped --clip 0.05 --clip-mode local-sqrt-k --weight-decay-at local --nesterov
dumped is-clipped-all --clip 0.05 --clip-mode global --compressor gradient-dropping --compress-all
dumped is-reference --clip 0.01 --clip-mode reference --sharding segments --compressor efsignsgd
dumped is-dgc --compressor dgc --nesterov --warmup 0.5,0.25 --warmup-steps 1 --set dense_every=3
dumped is-dgc-plain --compressor dgc --set memory.correction=0
dumped is-dgc-open --compressor gtopk --memory dgc --set memory.masking=0
dumped is-fading --compressor topk --memory residual:beta=0.5,gamma=2,lr_inside=1 --set lr_rule=linear
dumped is-led --compressor clt-k:ratio=0.3+terngrad:shared=1,clip=1 --compress-all
dumped is-lost --compressor gtopk:original=1 --workers 5
dumped is-low-pass --compressor clt-k --memory low-pass:beta=0.25
dumped is-halves --compressor bf16 --memory residual
dumped is-shared --compressor qsgd:shared=1,levels=127,bucket=256 --compress-all
dumped is-norm --compressor topk:ratio=0.5+qsgd:norm2=1,bucket=512
dumped is-norm-of-all --compressor qsgd:norm2=1,bucket=0,levels=1
dumped is-natural --compressor threshold:tau=0.002,values=1+natural:original=1 --compress-all
dumped is-low-rank --compressor powersgd:rank=3,rate=1 --clip 0.05 --clip-mode global
dumped is-own-rank --compressor powersgd:rank=20,rate=0,mean=0 --memory dgc --compress-all
dumped is-random --compressor randomk:ratio=0.3 --compress-all
dumped is-random-kept --compressor randomk+qsgd --memory residual
dumped is-random-plain --compressor randomk:scale=0 --memory momentum
dumped is-slice --compressor slice:ratio=0.4 --warmup 0.9,0.6 --warmup-steps 1 --compress-all
dumped is-large --compressor threshold:tau=0.001+efsignsgd --memory dgc
dumped is-large-values --compressor threshold:tau=0.002,values=1 --compress-all
dumped is-large-shared --compressor threshold:tau=0.002,values=1+qsgd:shared=1,bucket=256
dumped is-large-norm --compressor threshold:tau=0.002,values=1+qsgd:shared=1,bucket=0
dumped is-large-signs --compressor threshold:tau=0.002,values=1+terngrad:shared=1
dumped is-lifted --compressor adacomp:bin=50,c=2 --weight-decay-at local --compress-all
dumped is-lifted-values --compressor adacomp:quantise=0,bin=300,sigmas=2+fp16 --memory dgc
dumped is-lifted-whole --compressor adacomp:bin=0,sigmas=1+efsignsgd --clip 0.05 --clip-mode local
dumped is-lifted-once --compressor adacomp:original=1,sigmas=60
dumped is-steady --compressor variance:alpha=0.5,zeta=0.5 --clip 0.05 --clip-mode local
dumped is-steady-alone --compressor variance:micro=1+fp16 --weight-decay-at local --compress-all
dumped is-walking --compressor variance:original=1,batch=2 --memory residual
set -- is-*
"$python" "$golden/check_dump.py" "$@" >out 2>err
code=$?
fact "all are right" ends_with 0
fact "each" test "$(grep -c '^ok: 4 steps of [35] workers, ' out)" -eq $#

# What is no dump.
mkdir empty
for folder in empty absent; do
    "$python" "$golden/check_dump.py" $folder >out 2>err
    code=$?
    fact "no dump" ends_with 1
    fact "which is said" err_has "^$folder: no step-"
done

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
