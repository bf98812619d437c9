#!/bin/bash
# images.sh PROGRAM -- training on images from end to end: what the database holds of it, weights in a
# file, methods, faults of data; and that no convolution of the models here is oneDNN's slow one.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

export HOME=$work XDG_CACHE_HOME=$work

cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "resnet", "depth": 8},
 "data": {"name": "synthetic", "side": 8, "channels": 3, "classes": 6, "train": 100, "test": 30,
          "crop": 1, "flip": true},
 "evaluate": {"batch": 16}, "workers": 3, "batch": 8, "epochs": 2,
 "schedule": {"0": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9}}}
EOF

# Without a validation part nothing is chosen, and epochs tell of the test part.
says 0 '^tiny/none/k3/s1 done key [0-9a-f]{12} epochs 2 top1 [01]\.[0-9]{4} test [01]\.[0-9]{4} bytes_up' \
    'epoch 2 of 2  loss [0-9.]+  valid [0-9.]+  top1 [0-9.]+ %  .* images/s$' \
    train tiny.json --db a.db --save a.st
fact "ranks of training" test "$(sql a.db "select count(*) from epochs where train_top1 between 0 and 1
    and train_top5 between train_top1 and 1 and top5 between top1 and 1 and perplexity is null
    and scored = 30 and samples = 100")" -eq 2
fact "the last alone is tested" test \
    "$(sql a.db "select group_concat(which || selected_on) from tests")" = lastnone
fact "what the last epoch said" test "$(sql a.db "select count(*) from tests join epochs using (run_id)
    where epochs.epoch = 1 and tests.top1 = epochs.top1 and loss = valid_loss")" -eq 1

# With one, the best is chosen by it.
says 0 ' top1 .* best-test ' - train tiny.json --db b.db --set data.holdout=20 --quiet
fact "of what is held out" test "$(sql b.db "select group_concat(distinct scored) from epochs")" = 20
fact "and of the others trained" test "$(sql b.db "select group_concat(distinct samples) from epochs")" = 80
fact "both are tested" test "$(sql b.db "select group_concat(which) from tests")" = best,last
says 0 '^tiny/none/.* done +2 +- +- +[01]\.[0-9]{4} ' - runs --db b.db
says 0 '"best_top1"' - runs --db b.db --json

# Weights: statistics too, and the evaluation of the run.
says 0 '"split":"test".*"top1":.*"top5":' - eval a.st --json --quiet
fact "its test" test "$(json '$.top1')" = "$(sql a.db "select top1 from tests")"
says 0 '^a\.st test loss [0-9.]+ top1 [01]\.[0-9]{4} top5 [01]\.[0-9]{4} scored 30$' - eval a.st --quiet
says 1 - "data set 'synthetic' has no validation part, and data.holdout makes none" eval a.st --split valid
says 0 ' scored 100$' - eval a.st --split train --quiet
fact "filters as PyTorch has them" grep -qa '"layer2.0.conv1.weight":{"dtype":"F32","shape":\[32, 16, 3, 3\]' a.st
fact "running statistics" grep -qa '"layer3.0.downsample.1.running_var":{"dtype":"F32","shape":\[64\]' a.st
says 0 ' done ' - train tiny.json --db i.db --init a.st --lr 0 --epochs 1 --quiet
says 1 - "a\.st: tensor 'conv1\.weight' is of shape \[16, 3, 3, 3\], in the model of shape \[6, 3, 5, 5\]" \
    train tiny.json --set model=lenet --set data.side=16 --init a.st --db i.db

# Methods, and what a message weighs.
for method in dgc:ratio=0.01 topk:ratio=0.05+terngrad powersgd signsgd variance qsgd; do
    says 0 ' done ' - train tiny.json --db m.db --epochs 1 --compressor "$method" --quiet --verify-wire
done
for model in vgg:depth=11 resnet-imagenet:depth=18 resnet:depth=8,width=2; do
    says 0 ' done ' - train tiny.json --db m.db --epochs 1 --set "model=$model" --set data.side=32 \
        --set data.train=24 --compressor topk:ratio=0.01 --quiet
done
says 0 '^272474 parameters in 65 tensors, 22 of them compressed; classes 10$' - bytes resnet:depth=20
says 0 '"classes":10' - bytes lenet --json
says 0 '^images +100 train, 0 valid, 30 test$' - show tiny.json
says 0 ' images/s, ' - bench tiny.json --steps 2
says 0 '"images_per_step":24' - bench tiny.json --steps 2 --json

# A dump is computed again, filters in the order in which they lie.
says 0 ' done ' - train tiny.json --db d.db --compressor dgc:ratio=0.1 --dump 3 steps --quiet
if python3 -c 'import numpy' 2>err; then
    python3 "$GRADPRESS_REGIMES/../tests/golden/check_dump.py" steps >out 2>err
    fact "by NumPy too" ends_with $?
fi

# Faults.
says 1 - "data set 'cifar10' is not in .*: 'gradpress data fetch cifar10' downloads it, or put data_batch_1\.bin" train resnet20-cifar10 --db f.db
mkdir cifar
head -c 5000 /dev/zero >cifar/data_batch_1.bin
says 1 - 'cifar/data_batch_1\.bin: holds 5000 bytes, which are not records of 3073' \
    train resnet20-cifar10 --data cifar --db f.db
says 1 - "data.holdout is 100, and there are 100 images to train on" \
    train tiny.json --set data.holdout=100 --db f.db
says 1 - "model 'lenet' reads images of 12 x 12 or larger, and those of data set 'synthetic' are 8 x 8" \
    train tiny.json --set model=lenet --db f.db
says 1 - "not a model of images" train tiny.json --set model=lstm --db f.db
fact "nothing was written" test ! -e f.db

# oneDNN falls back in silence where it has nothing better.
export ONEDNN_VERBOSE=1 DNNL_VERBOSE=1
for regime in resnet20-cifar10 lenet-fashion-mnist; do
    gradpress bench $regime --workers 2 --batch 8 --steps 1 --set evaluate.batch=8
    fact "the bench runs" ends_with 0
    fact "no convolution is the reference's" test "$(grep -c '^dnnl_verbose,.*convolution,ref' out)" -eq 0
done
unset ONEDNN_VERBOSE DNNL_VERBOSE

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
