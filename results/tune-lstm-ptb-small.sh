#!/bin/bash
# tune-lstm-ptb-small.sh [EPOCHS [WORKERS]] -- the search behind the "tuned" table of
# regimes/lstm-ptb-small.json: every method with some learning rates and ways of clipping, one epoch
# of 8 workers each at a ratio of 1 %.  Then results/queries/methods.sql reads the best of each:
#
#     results/tune-lstm-ptb-small.sh
#     sqlite3 -box tune.db <results/queries/methods.sql
#
# What it has found so far stands in results/tune-lstm-ptb-small.csv.  It may be stopped and started
# again, and run in several terminals at once: what is done or running is left alone.  A trial takes
# 3 to 6 minutes of two cores.
epochs=${1:-1} workers=${2:-8}
gradpress=${GRADPRESS:-$(dirname "$0")/../build/gradpress}

trial() { # trial METHOD LR CLIP [FLAG...]
    local method=$1 lr=$2 clip=$3 mode=()
    shift 3
    [ "$clip" = none ] || mode=(--clip-mode "${clip%:*}")
    "$gradpress" train lstm-ptb-small --no-tuned --workers "$workers" --epochs "$epochs" \
        --compressor "$method" --ratio 0.01 --encoding best --lr "$lr" --clip "${clip#*:}" \
        "${mode[@]}" "$@" --experiment tune --db tune.db --quiet --name "$method/$lr/$clip"
    case $? in 130 | 143) exit 1 ;; esac
}

while read -r method rates clips flags; do
    [ -n "$method" ] || continue
    for clip in ${clips//,/ }; do
        for lr in ${rates//,/ }; do
            # shellcheck disable=SC2086 # flags are words
            trial "$method" "$lr" "$clip" $flags </dev/null
        done
    done
done <<'END'
none                20          global:0.25
fp16                20          global:0.25
bf16                20          global:0.25
topk                20,10       global:0.25,local:0.25,local-sqrt-k:0.25
gradient-dropping   20          global:0.25,local:0.25
dgc                 20          global:0.25,local:0.25  --warmup 0.25,0.0625,0.0156 --warmup-steps 121
gtopk               20,10       global:0.25
clt-k               20,10       global:0.25
randomk             20,5        global:0.25
slice               20,5        global:0.25
threshold:tau=0.001 20,10       global:0.25
adacomp             20,10       global:0.25
adacomp2            20,10       global:0.25
variance            20,10       global:0.25
powersgd:rank=4     20,10       global:0.25
efsignsgd           20,10       global:0.25
terngrad            20,5        global:0.25,local:0.25
qsgd                20,10       global:0.25,local:0.25
natural             20,10       global:0.25
signsgd             0.002,0.001 none
signum              0.002,0.001 none
efsigntopk          20,10       global:0.25
terngradtopk        20,10       global:0.25
efsignadacomp       20,10       global:0.25
terngradadacomp     20,10       global:0.25
END
