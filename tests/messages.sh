#!/bin/bash
# messages.sh PROGRAM -- every encoding in a run: its bytes hold, are those of the files that --dump
# writes, and a reader that knows sim/WIRE.md alone finds in them what was sent.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"
reader=$GRADPRESS_REGIMES/../tests/golden/read_message.py

cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 8, "layers": 1, "dropout": 0},
 "data": {"name": "text", "path": "$work", "bptt": 5}, "evaluate": {"batch": 4, "bptt": 5},
 "workers": 2, "total_batch": 8, "epochs": 1, "seed": 1, "compress_all": true,
 "schedule": {"0": {"optimizer": "sgd", "lr": 2}}}
EOF

is_read() { # is_read FOLDER MESSAGES
    [ "$(python3 "$reader" "$1" 2>&1 | tee read)" = "ok: $2 messages" ] || { cat read && false; }
}

check() { # check NAME ARGUMENT...
    local name=$1 steps sent
    shift
    gradpress train tiny.json "$@" --db "$name.db" --verify-wire --dump 100 "$name" --quiet
    fact "the run ends with 0" ends_with 0
    steps=$(sql "$name.db" 'select steps from epochs')
    fact "each worker's message of each step is there" test \
        "$(find "$name" -name '*.message' | wc -l)" -eq $((2 * steps))
    sent=$(find "$name" -name '*.message' -exec cat {} + | wc -c)
    fact "and as long as was counted" test \
        "$(sql "$name.db" 'select cast(2 * bytes_up as integer) from epochs')" -eq "$sent"
    fact "and says what was sent" is_read "$name" $((2 * steps))
}
for encoding in raw runs16 bitmap varint gamma delta rice best; do
    check $encoding --compressor topk:ratio=0.1 --encoding $encoding
    [ $encoding = runs16 ] || check $encoding-signs --compressor topk:ratio=0.1+efsignsgd --encoding $encoding
done
check none-best --compressor none --encoding best
check qsgd-delta --compressor topk:ratio=0.3+qsgd:bucket=256 --encoding delta
check fp16-rice --compressor dgc:ratio=0.05+fp16 --encoding rice --warmup 0.5,0.25 --warmup-steps 3
check bf16-best --compressor bf16 --encoding best

# A message that was touched.
printf '\377' | dd of="$work/rice/step-0000.worker-0.message" bs=1 seek=1 conv=notrunc 2>dd.err
fact "the reader sees it" test "$(python3 "$reader" rice >out 2>err; echo $?)" -eq 1

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
