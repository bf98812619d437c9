#!/bin/bash
# compress.sh PROGRAM -- what compress makes of gradients in a file: hand-computed steps, the bytes of
# messages, that it does what train does with the gradients of a dump, and what is refused.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"
golden=$(dirname "$GRADPRESS_REGIMES")/tests/golden
export PYTHONDONTWRITEBYTECODE=1

tensors() {
    python3 "$golden/tensors.py" "$@" 2>&1
}

# Help, misuse.
says 0 '^Usage: gradpress compress SPEC IN' - compress --help
for flag in -o --message --memory --ratio --encoding --seed --clip --momentum --device; do
    fact "help tells of $flag" out_has "^  .*$flag"
done
fact "but not of a run's" test "$(grep -cE -- '--(db|epochs|hidden|save) ' out)" -eq 0
says 0 '^  gradpress compress ' - help
says 2 - 'no compressor named' compress
says 2 - 'no file of gradients named' compress topk
says 2 - "no such flag '--epochs'" compress topk in --epochs 3
says 2 - '--out needs a value' compress topk in -o

# Two steps of 8 entries, by hand.
g1='[.50,-.11,.31,-.83,.07,.02,-.23,.42]' g2='[-.13,.19,.36,.12,-.05,.61,-.27,.03]'
tensors write two.safetensors "step-1.v=[$g1]" "step-2.v=[$g2]"

# by_hand NAME=VALUES... -- with the arguments of compress in `with`
by_hand() {
    rm -f out.safetensors
    gradpress compress "${with[@]}" two.safetensors --compress-all -o out.safetensors
    fact "it ends well" ends_with 0
    fact "as computed by hand" tensors near out.safetensors "$@"
}

with=(topk:ratio=0.25)
by_hand step-1.grad.0.v="$g1" step-1.wanted.0.v="$g1" step-1.sent.0.v='[.5,0,0,-.83,0,0,0,0]' \
    step-1.residual.0.v='[0,-.11,.31,0,.07,.02,-.23,.42]' \
    step-2.wanted.0.v='[-.13,.08,.67,.12,.02,.63,-.5,.45]' step-2.sent.0.v='[0,0,.67,0,0,.63,0,0]' \
    step-2.delivered.v='[0,0,.67,0,0,.63,0,0]' step-2.residual.0.v='[-.13,.08,0,.12,.02,0,-.5,.45]'
fact "the mean of two steps" out_has '^8 elements in 1 tensors, 1 of them compressed; 2 steps'
fact "two values, two indices" out_has '^up +16 '
with=(topk:ratio=0.25 --memory none)
by_hand step-2.sent.0.v='[0,0,.36,0,0,.61,0,0]'
with=(efsignsgd)
by_hand step-1.sent.0.v='[.31125,-.31125,.31125,-.31125,.31125,.31125,-.31125,.31125]' \
    step-1.residual.0.v='[.18875,.20125,-.00125,-.51875,-.24125,-.29125,.08125,.10875]' \
    step-2.sent.0.v='[.268125,.268125,.268125,-.268125,-.268125,.268125,-.268125,.268125]' \
    step-2.residual.0.v='[-.209375,.123125,.090625,-.130625,-.023125,.050625,.079375,-.129375]'
with=(efsigntopk:ratio=0.25)
by_hand step-1.sent.0.v='[.665,0,0,-.665,0,0,0,0]' \
    step-1.residual.0.v='[-.165,-.11,.31,-.165,.07,.02,-.23,.42]' \
    step-2.sent.0.v='[0,0,.65,0,0,.65,0,0]' \
    step-2.residual.0.v='[-.295,.08,.02,-.045,.02,-.02,-.5,.45]'
with=(adacomp:original=1)
by_hand step-1.sent.0.v='[1,0,0,-1.66,0,0,0,.84]' \
    step-1.residual.0.v='[-.5,-.11,.31,.83,.07,.02,-.23,-.42]' \
    step-2.sent.0.v='[0,0,1.03,1.07,0,1.24,0,0]' \
    step-2.residual.0.v='[-.63,.08,-.36,-.12,.02,-.61,-.5,-.39]'
with=('adacomp:bin=0,quantise=0')
by_hand step-1.sent.0.v='[.5,0,0,-.83,0,0,0,.42]' step-2.sent.0.v='[0,0,.67,0,0,.63,-.5,0]' \
    step-2.residual.0.v='[-.13,.08,0,.12,.02,0,0,.03]'
with=(efsignadacomp)
by_hand step-2.sent.0.v='[-1.0655556,0,1.0655556,0,0,1.0655556,0,0]' \
    step-2.residual.0.v='[.2688889,.08,-.3955556,.4566667,.02,-.4355556,-.5,-.7166667]'
with=(variance:micro=1)
by_hand step-1.sent.0.v='[0,0,0,0,0,0,0,0]' step-2.sent.0.v='[0,0,.67,0,0,.63,-.5,.45]'
with=(dgc:ratio=0.25)
by_hand step-1.sent.0.v='[.5,0,0,-.83,0,0,0,0]' step-2.sent.0.v='[0,0,.949,0,0,0,0,.828]' \
    step-2.velocity.0.v='[-.13,-.019,0,.12,.083,.648,-.707,0]' \
    step-2.momentum.0.v='[-.13,.091,0,.12,.013,.628,-.477,0]'
with=(dgc:ratio=0.25 --nesterov)
by_hand step-1.sent.0.v='[.95,0,0,-1.577,0,0,0,0]' step-2.sent.0.v='[0,0,1.5241,0,0,1.2132,0,0]' \
    step-2.momentum.0.v='[-.117,.0819,0,.108,.0117,0,-.4293,.3672]' \
    step-2.velocity.0.v='[-.247,.0629,0,.228,.0947,0,-1.1363,1.1952]'
with=(dgc:ratio=0.25 --momentum 0)
by_hand step-2.sent.0.v='[0,0,.67,0,0,.63,0,0]'

# Two workers, a matrix and a vector: what everybody gets, and the very bytes.
tensors write both.safetensors 'w=[[[0,3,0],[1,-2,0]],[[0,1,0],[0,0,-4]]]' 'b=[[1,2],[3,5]]'
gradpress compress topk:ratio=0.34 both.safetensors -o out.safetensors --message bytes --json
fact "it is in order" ends_with 0
fact "the mean" tensors near out.safetensors 'delivered.w=[0,2,0,0,-1,-2]' 'delivered.b=[2,3.5]' \
    'sent.0.w=[0,3,0,0,-2,0]' 'sent.1.w=[0,1,0,0,0,-4]' 'sent.1.b=[3,5]' \
    'residual.0.w=[0,0,0,1,0,0]' 'residual.1.w=[0,0,0,0,0,0]' 'scale.1=1'
fact "no prefix for one step" test "$(grep -c 'step-0' out.safetensors)" -eq 0
for what in 'workers 2' 'elements 8' 'bytes.dense 32' 'bytes.up 24' 'bytes.down 24' 'bytes.paper 24' \
    'steps[0].step 0' 'steps[0].bytes.up 24' 'steps[0].entries 4'; do
    fact "${what% *} is ${what#* }" is "${what#* }" "$.${what% *}"
done
message() { od -An -v -tx1 "$1" | tr -d ' \n'; }
fact "worker 0's bytes" test "$(message bytes/step-0000.worker-0.message)" = 010000000400000000004040000000c0
fact "worker 1's" test "$(message bytes/step-0000.worker-1.message)" = 01000000050000000000803f000080c0
mv out.safetensors bytes/step-0000.safetensors
fact "a reader finds in them what was sent" test \
    "$(python3 "$golden/read_message.py" bytes 2>&1)" = "ok: 2 messages"
gradpress compress topk:ratio=0.34 both.safetensors --encoding bitmap --json
fact "in another encoding" is 17 '$.bytes.up'
fact "nothing is written unless asked" test "$(find . -name 'out*.safetensors')" = ''
gradpress compress powersgd both.safetensors --seed 3 -o out.safetensors
fact "rows and columns are a matrix's" tensors near out.safetensors 'sent.0.b=[1,2]'

# Gradients too large are clipped; those of a square, for variance.
gradpress compress none both.safetensors --clip 1 -o out.safetensors
fact "clipped" tensors near out.safetensors 'scale.1=.1400280'
tensors write micro.safetensors 'w=[[.5,-.5]]' 'square.w=[[.2,.3]]'
gradpress compress variance micro.safetensors --compress-all -o out.safetensors
fact "squares count" tensors near out.safetensors 'sent.0.w=[.5,0]' 'variance.0.w=[0,.2997]'
tensors write micro.safetensors 'w=[[.5,-.5]]' 'square.w=[[.2]]'
says 1 - "'square.w' is of shape \[1, 1\], not of shape \[1, 2\]" compress variance micro.safetensors --compress-all
says 1 - "has no squares of 'v' in step 1" compress variance two.safetensors --compress-all

# What train makes of the gradients of a dump.
cat >tiny.json <<EOF
{"about": "tiny", "model": {"name": "lstm", "hidden": 16, "layers": 1, "dropout": 0.2},
 "data": {"name": "text", "path": "$work", "bptt": 20}, "evaluate": {"batch": 4, "bptt": 20},
 "workers": 3, "batch": 2, "epochs": 1, "seed": 7, "schedule": {"0": {"lr": 0.5, "momentum": 0.9}}}
EOF
like_train() { # like_train SPEC KINDS ARGUMENT...
    local spec=$1 kinds=$2 step
    shift 2
    rm -rf dump out.safetensors messages
    gradpress train tiny.json --compressor "$spec" "$@" --quiet --again --db runs.db --dump 4 dump
    fact "train $spec" ends_with 0
    gradpress compress "$spec" dump/*.safetensors "$@" --seed 7 -o out.safetensors --message messages
    fact "compress $spec" ends_with 0
    # shellcheck disable=SC2086 # words
    fact "$spec is the same to the bit" \
        tensors same out.safetensors dump wanted. sent. delivered. scale. $kinds
    for step in dump/*.message; do
        fact "and its messages" cmp "$step" "messages/${step#dump/}"
    done
}
like_train topk:ratio=0.05 residual.
like_train dgc:ratio=0.05 'velocity. momentum.' --clip 0.05 --clip-mode local-sqrt-k --encoding best --compress-all
like_train powersgd:rank=3,rate=1 'common. first. residual.'
like_train clt-k:ratio=0.3+terngrad:shared=1 residual. --warmup 0.9,0.6 --warmup-steps 1
like_train variance 'accumulated. variance.'
like_train gtopk:ratio=0.05 residual. --encoding rice
like_train randomk:ratio=0.3 grad.
like_train signum mean.
like_train qsgd:shared=1 grad. --dense-every 0
gradpress compress topk dump/step-0002.safetensors --json
fact "a dump tells its step" is 2 '$.steps[0].step'
gradpress compress topk out.safetensors --json
fact "what compress wrote can be read again" is 3 '$.steps[3].step'

# What is wrong.
refused() { # refused WHY NAME=LIST...
    local why=$1
    shift
    tensors write bad.safetensors "$@"
    says 1 - "$why" compress topk bad.safetensors --compress-all
}
says 1 - 'absent: cannot open it' compress topk absent
says 1 - "no such compressor 'topkk'; did you mean 'topk'" compress topkk both.safetensors
says 1 - 'topk:ratio=2: .*ratio' compress topk:ratio=2 both.safetensors
says 1 - 'tiny.json: ' compress topk tiny.json
says 1 - 'both.safetensors: is a file of gradients' compress topk both.safetensors -o ./both.safetensors
says 1 - 'clip-mode global' compress topk both.safetensors --clip 1 --clip-mode global
says 1 - 'workers: 3, where the gradients are of 2' compress topk both.safetensors --set workers=3
says 1 - 'weight decay wants parameters' compress topk both.safetensors --set schedule.0.weight_decay=1
says 1 - '(CUDA|cuda)' compress topk both.safetensors --device cuda:77
says 1 - 'tiny.json: .*safetensors' compress topk both.safetensors -o tiny.json
says 1 - 'absent/out' compress topk both.safetensors -o absent/out
says 1 - 'tiny.json/a: cannot make the folder' compress topk both.safetensors --message tiny.json/a
refused 'has a tensor without a name' '=[[1,2]]'
refused 'has no gradients' '@step=1'
refused "'w' of shape \[\] has no gradient of a worker" 'w=1'
refused "'w' of shape \[0\] has no gradient of a worker" 'w=[]'
refused "'w' of shape \[1, 1, 1, 1, 1, 1\] has more than 4 dimensions" 'w=[[[[[[1]]]]]]'
refused "'v' of shape \[1, 1\] is of 1 workers, 'w' of 2" 'w=[[1],[2]]' 'v=[[1]]'
refused "'step-2.w' is of shape \[1, 2\], not of shape \[1, 1\] as the gradient in step 1" 'step-1.w=[[1]]' 'step-2.w=[[1,2]]'
refused "has no gradient of 'w' of worker 0 in step 2" 'step-1.w=[[1]]' 'step-2.v=[[1]]'
refused "step 2 has 2 tensors, step 1 has 1" 'step-1.w=[[1]]' 'step-2.w=[[1]]' 'step-2.v=[[1]]'
refused "has gradients of step 1, and so has" 'step-1.w=[[1]]' 'step-01.w=[[1]]'
refused "'w': value 1 is NaN, not a finite number" 'w:bits=[[0,0x7fc00000]]'
refused "'w': value 1 is infinite" 'w=[[1,-1e999]]'
refused "'w' is I32; F32, F64, F16 and BF16 can be read" 'w:I32=[[1]]'
refused "has no gradient of 'w' of worker 1 in step 0" 'grad.0.v=[1]' 'grad.1.v=[1]' 'grad.0.w=[1]'
refused "a name of more than 63 bytes" "$(printf 'w%.0s' $(seq 64))=[[1]]"
tensors write one.safetensors 'w=[[1]]'
tensors write other.safetensors 'w=[[1]]' '@step=0'
says 1 - 'has gradients of step 0, and so has' compress topk one.safetensors other.safetensors
says 1 - "a worker's tensors are vectors, .* --compress-all" compress topk one.safetensors
fact "what was refused is not written" test ! -e absent

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
