#!/bin/bash
# faults.sh PROGRAM -- wrong input.  Each line is an exit code, what the sentence says, and the command:
# 1 for a fault, told in one line on stderr; 2 for a wrong command line, which a second line helps with;
# nothing on stdout, and no file made or changed.
# shellcheck source=tests/facts.sh
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

export HOME=$work XDG_CACHE_HOME=$work
real=$program

is_refused() { # is_refused CODE PATTERN
    local -a said
    mapfile -t said <err
    [ "$code" -eq "$1" ] && [ "${#said[@]}" -eq "$1" ] && [[ ${said[0]} =~ ^gradpress:\ .*$2 ]] &&
        [ ! -s out ] && [ -z "$(changed)" ]
}
changed() { find . -newer stamp \( -type f -o -type d -empty \) ! -name out ! -name err 2>/dev/null; }

bad() { # bad CODE PATTERN ARGUMENT...
    local expected=$1 pattern=$2
    shift 2
    : >stamp
    gradpress "$@"
    fact "$expected, one sentence, nothing written: $pattern" is_refused "$expected" "$pattern"
}

# What stands around the program from here on: under 'ulimit -f 8'; under '' for nothing.
under() { # under COMMANDS [PREFIX]
    printf '#!/bin/bash\n%s\nexec %s "%s" "$@"\n' "$1" "${2:-}" "$real" >wrapper
    chmod +x wrapper
    program=$work/wrapper
}

begins() { gradpress version && ends_with 0; }

# A regime of these keys, and of those that it cannot do without.
regime() { # regime KEYS
    local keys=$1
    [[ $keys == *'"model"'* ]] || keys+=', "model": {"name": "lstm", "hidden": 8, "layers": 1}'
    [[ $keys == *'"data"'* ]] || keys+=", \"data\": {\"name\": \"text\", \"path\": \"$work\", \"bptt\": 5}"
    [[ $keys == *'"schedule"'* ]] || keys+=', "schedule": {"0": {"lr": 2}}'
    echo "{${keys#, }, \"evaluate\": {\"batch\": 4, \"bptt\": 5}}"
}
bad_regime() { # bad_regime PATTERN KEYS
    regime "$2" >bad.json
    bad 1 "bad\.json: $1" train bad.json
}
bad_json() { # bad_json PATTERN TEXT
    printf '%s' "$2" >bad.json
    bad 1 "bad\.json: $1" train bad.json
}
long() { printf "%$1s" '' | tr ' ' x; }

regime '"workers": 2, "batch": 4, "seed": 1' >tiny.json
run() { gradpress train tiny.json --quiet "$@"; }
run --save good.st --db good.db
fact "what is right is done" ends_with 0
mkdir folder
mkfifo pipe
ln -s nowhere dangling
ln -s loop loop
ln -s absent/x astray
: >empty

# The command line.
bad 2 "no such command ''" ''
bad 2 "no such command 'trian'; did you mean 'train'" trian
bad 2 "no such command 'a\?b'" $'a\nb'
bad 2 "no such command 'x+\.\.\.x+'" "$(long 5000)"
bad 2 "no such command '--'" --
bad 2 'no regime named' train
bad 2 'no regime named' show --json
bad 2 'an empty word, where a regime is expected' train ''
bad 2 'an empty word, where a file is expected' eval ''
bad 2 "two regimes, 'tiny.json' and 'extra'" train tiny.json extra
bad 2 "two regimes, 'tiny.json' and '—workers'" train tiny.json '—workers' 2
bad 2 "two files, 'a' and 'b'" eval a b
bad 2 "no such flag '--'" train -- tiny.json
bad 2 "no such flag '-x'" train tiny.json -x
bad 2 "no such flag '--worker'; did you mean '--workers'" train tiny.json --worker=2
bad 2 "no such flag '--no-workers'" train tiny.json --no-workers
bad 2 "no such flag '--split'" train tiny.json --split test
bad 2 "no such flag '--workers'" eval good.st --workers 2
bad 2 '--workers needs a value' train tiny.json --workers
bad 2 '--workers needs a value' train tiny.json --workers --quiet
bad 2 '--with needs a value: --with FILE' train tiny.json --with ''
bad 2 '--regime needs a value: --regime REGIME' eval good.st --regime ''
bad 2 '--dump needs a value: --dump STEPS DIR' train tiny.json --dump 1 --quiet
bad 2 '--json takes no value' train tiny.json --json=1
bad 2 '--no-tuned takes no value' train tiny.json --no-tuned=1
bad 2 '--set nothing: not of the form PATH=VALUE' train tiny.json --set nothing
bad 2 '--set =3: not of the form PATH=VALUE' train tiny.json --set =3
bad 2 '--batch 2 and --total-batch 4 exclude each other' train tiny.json --batch 2 --total-batch 4
bad 2 '--warmup-steps 3 and --warmup-epochs 2 exclude' train tiny.json --warmup-steps 3 --warmup-epochs 2
bad 2 "and 'x' is none" runs x
bad 2 '--json takes no value' runs --json=1
bad 2 '--db needs a value' runs --db=
bad 2 '--where needs a value' runs --where
bad 2 "no such table 'modles'; there are models, compressors" list modles
bad 2 'list wants the name of a table, one of models' list models extra
bad 2 'devices takes no arguments' devices cpu
bad 2 'version takes no arguments' version ''
bad 2 "--steps: '1e3' is not a whole number from 1" bench tiny.json --steps 1e3
bad 2 "--vocabulary: '0' is not" bench tiny.json --vocabulary=0

# Numbers.
for ratio in 0 -0 1.5 -1 abc nan inf 1e999 1e-999 0x1 0,5 '' ' ' '0.5 x' 1e; do
    bad 1 "--ratio .*: not a number in \(0, 1]" train tiny.json --compressor topk --ratio "$ratio"
done
for ratio in 0 1.5 abc 1e-999 true '[]'; do
    bad 1 "compressor\.ratio: .* is not a number in [[(]0, 1]" train tiny.json --compressor "topk:ratio=$ratio"
done
for workers in 0 -1 2.5 1e9 nan 4097 99999999999999999999 '' ٣; do
    bad 1 '--workers .*: not a whole number in \[1, 4096]' train tiny.json --workers "$workers"
done
bad 1 '--workers x: not a whole number' train tiny.json -Kx
bad 1 '--exchange server: not auto, as a tree of workers wants it, in which gtopk merges' train tiny.json --compressor gtopk --exchange server
bad 1 "--exchange srever: not one of auto, server" train tiny.json --exchange srever
bad 1 '--nodes 3: not a divisor of the 2 workers' train tiny.json --nodes 3
bad 1 'the number of workers, as sharding segments' train tiny.json --nodes 1 --sharding segments
bad 1 '--nodes -1: not a whole number' train tiny.json --nodes -1
bad 1 'too few for 4096 columns of at least 2; fewer --workers or a smaller --batch would do' \
    train tiny.json --workers 4096 --batch 1
bad 1 'too few for 1073741824 columns' train tiny.json --workers 4096 --batch 262144
bad 1 'the valid text has 180 tokens, too few for 1000 columns.* a smaller evaluate\.batch' \
    train tiny.json --set evaluate.batch=1000
bad 1 '--total-batch 7: not a multiple of the 2 workers' train tiny.json --total-batch 7
bad 1 '--epochs 0: not a whole number in \[1, ' train tiny.json --epochs 0
bad 1 '--seed 9007199254740992: not a whole number in \[0, 9007199254740991]' train tiny.json --seed 9007199254740992
bad 1 '--lr 1e7: not a number in \[0, 1000000]' train tiny.json --lr 1e7
bad 1 '--momentum 1: not a number in \[0, 1\)' train tiny.json --momentum 1
bad 1 '--clip -1: not a number in \(0, 1e\+30]' train tiny.json --clip -1
bad 1 "clip: 'norm' is missing" train tiny.json --clip-mode local
bad 1 '--dropout 1: not a number in \[0, 0\.999]' train tiny.json --dropout 1
bad 1 '--hidden 1e9: not a whole number in \[1, 65536]' train tiny.json --hidden 1e9
bad 1 '--warmup 0\.5,,: not a number in \(0, 1]' train tiny.json --compressor topk --warmup 0.5,,
bad 1 "--warmup-steps 3: warmup: 'ratios' is missing" train tiny.json --compressor topk --warmup-steps 3
bad 1 "--log-every '': not a whole number" train tiny.json --log-every ''
bad 1 '--dump 0: not a whole number in \[1, ' train tiny.json --dump 0 dumped
bad 1 '--threads 1000000: not a whole number in \[0, 4096]' train tiny.json --threads 1000000
bad 1 '--set workers=9+: not a whole number' train tiny.json --set "workers=$(long 3000 | tr x 9)"

# Words.
bad 1 "--set model\.hiden=3: no such key; did you mean 'hidden'" train tiny.json --set model.hiden=3
bad 1 '--set a\..*: no such key' train tiny.json --set a.b.c.d.e.f.g.h.i.j.k=1
bad 1 '--set workers\.x=3: not a whole number' train tiny.json --set workers.x=3
bad 1 '--set schedule\.x=1: .* is not an epoch' train tiny.json --set schedule.x=1
bad 1 "--set tuned=.*: only a regime has a table 'tuned'" train tiny.json --set 'tuned={}'
bad 1 '--set wor\?kers=1: no such key' train tiny.json --set $'wor\nkers=1'
bad 1 "--compressor dcg: no such compressor; there are .*topk" train tiny.json --compressor dcg
bad 1 "--compressor '': no such compressor" train tiny.json --compressor ''
bad 1 'topk:ratio=0\.1,: not of the form NAME' train tiny.json --compressor topk:ratio=0.1,
bad 1 'topk:ratio=1,ratio=1: not of the form' train tiny.json --compressor topk:ratio=1,ratio=1
bad 1 "compressor\.rato: no such key; did you mean 'ratio'" train tiny.json --compressor topk:rato=1
bad 1 "compressor\.quantiser: no such quantiser 'topk'" train tiny.json --compressor topk+topk
bad 1 'qsgd is a quantiser, so none can stand' train tiny.json --compressor qsgd+terngrad
bad 1 'compressor\.quantiser\.levels: 0 is not' train tiny.json --compressor qsgd:levels=0
bad 1 '--encoding runs16: not an encoding for the codes' train tiny.json --compressor qsgd --encoding runs16
bad 1 "--memory nope: no such memory; did you mean 'none'" train tiny.json --memory nope
bad 1 '--sharding x: not one of columns, segments' train tiny.json --sharding x
bad 1 "--split tset: not one of train, valid, test" eval good.st --split tset
bad 1 "no such device 'gpu'; there are auto, cpu" train tiny.json --device gpu
bad 1 "no such device 'cuda:-1'" train tiny.json --device cuda:-1
bad 1 'CUDA|cuda' train tiny.json --device cuda:99
bad 1 "--name '': not a text of at least 1 byte" train tiny.json --name ''
bad 1 '--name .*: not a text of at most 255 bytes' train tiny.json --name "$(long 256)"
for name in $'a\nb' $'a\033[31mb' $'a\xffb' $'a\x7fb' $'a\342\200\250b' $'a\302\205b'; do
    bad 1 '--name a.*b: not a line of UTF-8 without control characters' train tiny.json --name "$name"
    bad 1 '--experiment a.*b: not a line of UTF-8' train tiny.json --experiment "$name"
done

# A regime that is no file, or none of JSON.
bad 1 'absent\.json: cannot open it: No such file' train absent.json
bad 1 "no regime 'lstm-kjw'; did you mean 'lstm-kjv'" show lstm-kjw
bad 1 'folder/: cannot read it: Is a directory' train folder/
bad 1 './pipe: empty' train ./pipe
bad 1 './dangling: cannot open it: No such file' train ./dangling
bad 1 './loop: cannot open it: Too many levels' bench ./loop
bad 1 '/dev/null: empty, where JSON is expected' train /dev/null
bad 1 '/dev/zero: larger than 64 KiB, so hardly a regime' train /dev/zero
bad 1 'good\.st: not a text: there is a byte 0 in it' train ./good.st
bad 1 'x+\.\.\.x+\.json: cannot open it: File name too long' train "$(long 5000).json"
bad 1 'a\?b\.json: cannot open it' train $'a\nb.json'
bad 1 'empty: empty, where JSON is expected' train tiny.json --with empty
bad 1 'pipe: empty, where JSON is expected' train tiny.json --with pipe
bad 1 'folder: cannot read it: Is a directory' train tiny.json --with folder
bad_json 'empty, where JSON is expected' ''
bad_json 'empty, where JSON is expected' $' \n\t'
bad_json 'line 1: the JSON breaks off' '{"model": {"name": "lst'
bad_json 'line 2: the JSON breaks off' $'{"model":\n {"tied": tru'
bad_json 'line 2: no JSON: lr: 3}' $'{\n lr: 3}'
bad_json 'line 1: no JSON: \{\} x' '{} x'
bad_json "line 1: no JSON: \{'model" "{'model': 1}"
bad_json 'line 1: no JSON: \{"lr": NaN}' '{"lr": NaN}'
bad_json 'line 1: no JSON: // ' '// a comment {}'
bad_json 'line 2: not UTF-8' $'{"about":\n "\xe9"}'
bad_json 'not an object' '[1, 2]'
bad_json 'not an object' '"lstm-kjv"'
bad_json 'line 1: no JSON: \[{40}' "$(long 60000 | tr x '[')"
bad_json 'a: no such key' "$(printf '{"a":%.0s' {1..900})1$(long 900 | tr x '}')"
bad_json "the key 'seed' is there twice" '{"seed": 1, "seed": 2}'
printf '\377\376{\0}\0' >bad.json
bad 1 'bad\.json: not a text: there is a byte 0 in it' train bad.json
cp tiny.json $'new\nline.json'
bad 1 'new\?line\.json: the name of a regime is a line' train $'new\nline.json'

# A regime whose keys are wrong.
bad_json "'model' is missing" '{}'
bad_regime "wokers: no such key; did you mean 'workers'" '"wokers": 3'
bad_regime 'wor\?kers: no such key' '"wor\nkers": 3'
bad_regime 'x{64}: no such key' "\"$(long 3000)\": 3"
bad_regime 'workers: "two" is not a whole number' '"workers": "two"'
bad_regime 'workers: null is not a whole number' '"workers": null'
bad_regime 'workers: inf is not a whole number' "\"workers\": $(long 400 | tr x 9)"
bad_regime 'ratio: 0 is not a number in \(0, 1]' '"compressor": "topk", "ratio": 0'
bad_regime 'ratio: 1\.5 is not' '"compressor": "topk", "ratio": 1.5'
bad_regime 'ratio: "abc" is not' '"compressor": "topk", "ratio": "abc"'
bad_regime 'ratio\.2: 0 is not' '"compressor": "topk", "ratio": {"0": 1, "2": 0}'
bad_regime 'ratio: does not begin at epoch 0' '"compressor": "topk", "ratio": {"1": 1}'
bad_regime 'compressor\.ratio: 0 is not a number in \(0, 1]' '"compressor": {"name": "topk", "ratio": 0}'
bad_regime 'compressor: qsgd is a quantiser' '"compressor": {"name": "qsgd", "quantiser": "terngrad"}'
bad_regime 'batch and total_batch exclude each other' '"batch": 1, "total_batch": 2'
bad_regime "model: no such model 'gru'; there are lenet, lstm, resnet" '"model": "gru"'
bad_regime 'model: 7 is not an object or a name' '"model": 7'
bad_regime "model: 'name' is missing" '"model": {"hidden": 8}'
bad_regime "data: no such data set 'imagenet'" '"data": "imagenet"'
bad_regime 'data\.path: "x+\.\.\. is not a text of at most 1023 bytes' \
    "\"data\": {\"name\": \"text\", \"path\": \"$(long 2000)\"}"
bad_regime 'schedule: does not begin at epoch 0' '"schedule": {"1": {"lr": 1}}'
bad_regime "schedule: '-1' is not an epoch" '"schedule": {"-1": {"lr": 1}}'
bad_regime "schedule: '00' is not an epoch" '"schedule": {"00": {"lr": 1}}'
bad_regime "schedule\.0: 'lr' is missing" '"schedule": {"0": {"momentum": 0}}'
bad_regime 'schedule\.5\.lr: "x" is not a number' '"schedule": {"0": {"lr": 1}, "5": {"lr": "x"}}'
bad_regime 'schedule\.0\.lr: inf is not a number' '"schedule": {"0": {"lr": 1e999}}'
bad_regime "schedule\.0\.optimizer: no such optimizer 'adma'; did you mean 'adam'" '"schedule": {"0": {"lr": 1, "optimizer": "adma"}}'
bad_regime 'clip: 5 is not null or an object' '"clip": 5'
bad_regime 'clip\.norm: -1 is not' '"clip": {"norm": -1}'
bad_regime 'warmup\.ratios: \[] is not a list' '"compressor": "topk", "warmup": {"ratios": []}'
bad_regime "tuned\.topc: no such compressor 'topc'" '"tuned": {"topc": {}}'
bad_regime 'tuned\.topk: schedule\.0\.lr: "x" is not' '"tuned": {"topk": {"lr": "x"}}'
bad_regime 'about: "a.*" is not a line of UTF-8' '"about": "a\nb"'
bad_regime 'init: begins with weights of SHA-256 0{12}' "\"init\": \"$(long 64 | tr x 0)\""
mkdir spoilt
echo '{' >spoilt/cut.json
GRADPRESS_REGIMES=spoilt bad 1 'spoilt/cut\.json: line 2: the JSON breaks off' list regimes

# A text.
text() { # text NAME: a folder with the three files, which is then spoilt
    mkdir "$1"
    cp train.txt valid.txt test.txt "$1"
}
bad_text() { # bad_text PATTERN NAME
    bad 1 "$1" train tiny.json --set "data.path=$2"
}
bad_text 'absent: No such file or directory' absent
bad_text 'train\.txt: Not a directory' train.txt
bad_text 'folder: holds neither train\.txt nor a PREFIX\.train\.txt' folder
text word && echo word >word/train.txt
bad_text 'the train text has 2 tokens, too few for 8 columns' word
text blank && printf '\n \n\t\n' >blank/valid.txt
bad_text 'blank/valid\.txt: holds no word' blank
text mark && printf '\357\273\277' >mark/train.txt
bad_text 'mark/train\.txt: holds no word' mark
text latin && printf 'caf\351\n' >>latin/test.txt
bad_text 'latin/test\.txt:21: not UTF-8' latin
text nul && printf 'a\0b\n' >>nul/train.txt
bad_text 'nul/train\.txt:121: a NUL byte, so this is no text' nul
text lost && rm lost/valid.txt
bad_text 'lost/valid\.txt: No such file or directory' lost
text deep && rm deep/valid.txt && mkdir deep/valid.txt
bad_text 'deep/valid\.txt: not a regular file' deep
text piped && rm piped/valid.txt && mkfifo piped/valid.txt
bad_text 'piped/valid\.txt: not a regular file' piped
text endless && ln -sf /dev/zero endless/train.txt
bad_text 'endless/train\.txt: not a regular file' endless
text two && mv two/train.txt two/a.train.txt && cp train.txt two/b.train.txt
bad_text 'two: holds both a\.train\.txt and b\.train\.txt' two
text huge && truncate -s 8T huge/train.txt
bad_text 'huge/train\.txt: its [0-9]+ bytes do not fit in memory' huge
bad_text 'x+\.\.\.x+: File name too long' "$(long 1000)"
bad 1 "data set 'ptb' is not in absent/ptb, absent.*name it with --data" train lstm-ptb --data absent
bad 1 "--data '': not a text of at least 1 byte" train lstm-ptb --data ''
for word in long ends; do text $word; done
(long 1000000 && echo && cat train.txt) >long/train.txt
printf '%s' "$(cat train.txt)" >ends/train.txt
run --set data.path=long --db some.db
fact "a word of 1 MB is a word" ends_with 0
run --set data.path=ends --db some.db
fact "the last line may lack its end" ends_with 0

# Weights.
bad_weights() { # bad_weights PATTERN FILE
    bad 1 "$2: .*$1" train tiny.json --init "$2"
    bad 1 "$2: .*$1" eval "$2" --regime tiny.json --quiet
}
safetensors() { # safetensors HEADER LENGTH
    printf '%b' "$(printf '\\x%02x\\x%02x\\0\\0\\0\\0\\0\\0' $(($2 % 256)) $(($2 / 256 % 256)))"
    printf '%s' "$1"
}
header=$(head -c 8 good.st | od -An -td8)
bad_weights 'no safetensors file: a header of [0-9]+ bytes' tiny.json
bad_weights '0 bytes are no safetensors file' empty
bad_weights 'not a regular file' folder
bad_weights 'not a regular file' pipe
bad_weights 'there is no such file|No such file' dangling
safetensors '{"a":{"dtype"' 60000 >lies.st
bad_weights 'cut off: a header of 60000 bytes in a file of 21' lies.st
safetensors '{"a":{"dtype"' 13 >lies.st
bad_weights 'line 1: the JSON breaks off' lies.st
safetensors '{"a":1,"a":1}' 13 >lies.st
bad_weights "the key 'a' is there twice" lies.st
safetensors '[]' 2 >lies.st
bad_weights "no safetensors file: the header does not begin with '\{'" lies.st
head -c -10 good.st >lies.st
bad_weights 'ends at byte [0-9]+ of the data, of which there are [0-9]+: cut off' lies.st
(cat good.st && echo) >lies.st
bad_weights '1 bytes past the last tensor' lies.st
sed 's/"shape":\[19, 8\]/"shape":[99, 8]/' good.st >lies.st
bad_weights '608 bytes between its data_offsets, but F32 of shape \[99, 8] has 3168' lies.st
sed 's/"shape":\[19, 8\]/"shape":[-9, 8]/' good.st >lies.st
bad_weights 'its shape is not made of whole numbers' lies.st
sed 's/"data_offsets":\[0,608\]/"data_offsets":[9,608]/' good.st >lies.st
bad_weights '599 bytes between its data_offsets' lies.st
sed 's/"F32"/"F16"/' good.st >lies.st
bad_weights '608 bytes between its data_offsets, but F16' lies.st
sed 's/"F32"/"I32"/' good.st >lies.st
bad_weights "tensor '.*' is I32; F32, F64, F16 and BF16 can be read" lies.st
sed 's/"F32"/"Q32"/' good.st >lies.st
bad_weights "no such dtype 'Q32'" lies.st
(head -c $((8 + header)) good.st && tail -c +$((9 + header)) good.st | tr '\0-\377' '[\377*]') >lies.st
bad_weights "tensor 'encoder\.weight': value 0 is NaN, not a finite number" lies.st
bad 1 "is of shape \[19, 8], in the model of shape \[19, 9]" train tiny.json --init good.st --hidden 9
bad 1 "tensor 'rnn\.weight_ih_l0' .*is not in the model|has no tensor" train tiny.json --init good.st --layers 2
bad 1 "--init '': not a text of at least 1 byte" train tiny.json --init ''
sed 's/"config":"{/"config":"[/' good.st >lies.st
bad 1 'lies\.st: config: line 1: no JSON' eval lies.st

# What is written.
for flag in --save --db; do
    bad 1 "folder: not a regular file|folder: a folder" train tiny.json $flag folder
    bad 1 "absent/x: .*No such file or directory" train tiny.json $flag absent/x
    bad 1 "tiny\.json/x: .*Not a directory" train tiny.json $flag tiny.json/x
    bad 1 "pipe: not a regular file" train tiny.json $flag pipe
    bad 1 'astray: .*(nowhere|No such file)' train tiny.json $flag astray
    bad 1 "/dev/full: not a regular file" train tiny.json $flag /dev/full
    bad 1 "'': not a text of at least 1 byte" train tiny.json $flag ''
    bad 1 'not a text of at most 1023 bytes' train tiny.json $flag "$(long 1500)"
    bad 1 'x+\.\.\.x+: .*File name too long' train tiny.json $flag "$(long 900)"
    bad 1 "train\.txt: (is there, and no safetensors file|file is not a database)" train tiny.json $flag train.txt
    bad 1 "tiny\.json: (is there, and no safetensors file|[0-9]+ bytes are no database)" train tiny.json $flag tiny.json
done
bad 1 'good\.db: is there, and no safetensors file: it is not replaced' train tiny.json --save good.db
bad 1 'both\.db: both --save and --db' train tiny.json --save both.db --db ./both.db
bad 1 'tiny\.json/step-0000\.safetensors: cannot write it: Not a directory' train tiny.json --dump 1 tiny.json
bad 1 'absent/x: cannot make the folder: No such file' train tiny.json --dump 1 absent/x
cp train.txt folder/step-0000.safetensors
bad 1 'folder/step-0000\.safetensors: is there, and no safetensors file' train tiny.json --dump 1 folder
cp good.st replaced.st
ln -s replaced.st link.st
run --save link.st --db some.db --seed 5
fact "a link leads to the file that is replaced" test -L link.st -a "$(cmp -s replaced.st good.st; echo $?)" -eq 1
for seed in 1 2 3; do
    "$program" train tiny.json --quiet --db some.db --save one.st --seed $seed >/dev/null 2>err$seed &
done
wait
fact "of some at once that save to one file none disturbs another" test ! -s err1 -a ! -s err2 -a ! -s err3
says 0 '^one\.st test loss ' - eval one.st --quiet
fact "nothing is left beside it" test "$(find . -name '*.part' | wc -l)" -eq 0
for db in :memory: 'file:x?mode=memory'; do
    run --db "$db"
    fact "$db is a file like others" test -s "$db"
    says 0 '^tiny/' - runs --db "$db"
done

# A database.
bad_database() { # bad_database PATTERN FILE: to write, and to read
    bad 1 "$2: $1" train tiny.json --db "$2" --seed 7
    bad 1 "$2: $1" runs --db "$2"
}
copy() { # copy SQL: of a database that is right, and was then changed
    cp good.db x.db
    sqlite3 x.db "$1"
}
bad 1 'absent\.db: there is no database' runs --db absent.db
GRADPRESS_DB=folder bad 1 'folder: not a file' runs
GRADPRESS_DB=folder bad 1 'folder: a folder' train tiny.json
bad_database 'file is not a database' train.txt
bad_database 'file is not a database' good.st
bad_database 'not a' /dev/null
printf hello >short.db
bad_database '5 bytes are no database|file is not a database' short.db
copy 'pragma application_id = 5'
bad_database 'a database of another program|not a database of gradpress' x.db
copy 'pragma user_version = 99'
bad 1 'x\.db: written by a newer gradpress: version 99 of the schema' train tiny.json --db x.db
for version in 0 -1; do
    copy "pragma user_version = $version"
    bad 1 "x\.db: damaged: version $version of the schema" train tiny.json --db x.db
done
for table in runs epochs tests; do
    copy "drop table $table"
    bad_database "no such table: (main\.)?$table" x.db
done
for table in settings steps; do
    copy "drop table $table"
    bad 1 "x\.db: no such table: $table" train tiny.json --db x.db
done
copy 'drop view summary'
bad_database 'no such table: summary' x.db
copy 'alter table runs rename column name to nome'
bad_database '.*no such column: name' x.db
head -c 10000 good.db >x.db
bad_database 'database disk image is malformed' x.db
(head -c 4096 good.db && long 40960) >x.db
bad_database 'database disk image is malformed' x.db
copy "update runs set status = 'running', pid = $$, pid_started = 0"
bad_elsewhere() { [ "$code" -eq 4 ] && err_has 'another process is at this run'; }
gradpress train tiny.json --db x.db
fact "a run of another process is left alone" bad_elsewhere
bad 1 'the name of a run with other settings: seed: 1 there, 7 here' \
    train tiny.json --db good.db --name tiny/none/k2/s1 --seed 7

# Conditions: one, that only reads.
for where in '1); delete from runs; --' 'seed = (delete from runs)' '1) union select 1,2,3,4,5,6,7,8 --' \
    "load_extension('x')" "writefile('x', 'y')" "1); attach 'new.db' as x; --" \
    "(select * from pragma_journal_mode('delete'))" "'" '"' '(' 'seed = ?' 'seed = :x' 'nope = 1' '1 /*' '' \
    'abs(-9223372036854775808)' 'randomblob(2000000000)' "$(long 5000 | tr x '(')" "$(long 5000)"; do
    bad 1 'good\.db: ' runs --db good.db --where "$where"
done
bad 1 '--where: no such column: nope' runs --db good.db --where 'nope = 1'
bad 1 "--where: ':x' has no value" runs --db good.db --where 'seed = :x'
bad 1 '--where: more than a condition' runs --db good.db --where '1); delete from runs; --'
fact "no run was lost" test "$(sql good.db 'select count(*) from runs')" -eq 1

# No memory.
bad 1 'the run needs [0-9.]+ GiB of the .*memory.* GiB are free; fewer --workers, or a smaller model' \
    train tiny.json --hidden 65536 --layers 16
bad 1 'the run needs .* a smaller --group' bench tiny.json --workers 4096 --hidden 3000 --batch 1 --group 4096
bad 1 'the run needs [0-9]{7}\.[0-9]+ GiB' bench tiny.json --workers 4096 --batch 262144 --bptt 65536
bad 1 'the evaluation needs [0-9.]+ GiB' eval good.st --set evaluate.bptt=65536 --set evaluate.batch=90 \
    --set model.hidden=60000 --quiet
under 'ulimit -v 400000'
if begins 2>/dev/null; then
    bad 1 'the run needs [0-9.]+ MiB .* MiB are free' train tiny.json --hidden 2000 --threads 1
else
    echo "skipped: this build does not begin in 400 MB of addresses"
fi

# No room.
under 'ulimit -f 8'
bad 1 'w\.st: cannot write its [0-9]+ bytes: File too large' train tiny.json --hidden 64 --save w.st
bad 1 'w/step-0000\.safetensors: cannot write its [0-9]+ bytes: File too large' train tiny.json --dump 1 w
gradpress train tiny.json --db small.db
fact "a database that cannot grow is a fault" ends_with 1
fact "told in a sentence" err_has '^gradpress: small\.db: (disk I/O error|database or disk is full)'
under ''
gradpress train tiny.json --db small.db --quiet
fact "and goes on when there is room" ends_with 0
under 'ulimit -f 64'
gradpress train tiny.json --db steps.db --log-every 1 --epochs 60 --quiet
fact "a database that is full in the middle" ends_with 1
fact "keeps the epochs that it has" test "$(sql steps.db "select count(*) > 1 from epochs")|$(
    sql steps.db 'pragma integrity_check')" = '1|ok'

# Streams that take nothing.
for arguments in 'runs --db good.db' 'runs --db good.db --json' 'show tiny.json' 'show tiny.json --json' \
    'eval good.st --quiet' 'train tiny.json --db good.db --quiet' 'list models' 'list regimes' devices version \
    --help 'train --help'; do
    for stdout in 'exec >/dev/full' 'exec >&-'; do
        under "$stdout"
        # shellcheck disable=SC2086 # words
        bad 1 'stdout: the result cannot be written: ' $arguments
    done
done
under 'exec >&-'
bad 2 "no such command 'trian'" trian
under 'exec 2>/dev/full'
says 0 '^tiny/none/k2/s1 done' - train tiny.json --db some.db --again
under 'exec <&- >&- 2>&-'
run --db closed.db --save closed.st
fact "without any stream a run is whole" test "$(sql closed.db 'pragma integrity_check; select status from runs' |
    tr '\n' '|')" = 'ok|done|'
fact "and so are its weights" cmp closed.st good.st
program=$real
for arguments in 'runs --db good.db' 'train --help' 'list compressors'; do
    # shellcheck disable=SC2086 # words
    "$program" $arguments 2>err | head -1 >out
    status=("${PIPESTATUS[@]}")
    fact "a reader that leaves early is no fault to talk of" is_empty err
    fact "and gets what it wanted" test -s out -a "${status[1]}" -eq 0
done

# Places.
under 'mkdir gone && cd gone && rmdir ../gone'
bad 1 'gradpress\.db: .*No such file' train "$work/tiny.json"
bad 1 'there is no database' runs
under 'unset HOME XDG_CACHE_HOME'
bad 1 "data set 'kjv' is not in any folder that was named: data/kjv\.sh makes it" train lstm-kjv
under '' 'env LC_ALL=de_DE.UTF-8 COLUMNS=1 TERM=none'
bad 1 '--ratio 0,5: not a number' train tiny.json --compressor topk --ratio 0,5
program=$real

# No permission: as nobody, where we are root, who has every one.
mkdir shut closed open
cp train.txt valid.txt test.txt tiny.json good.db shut
cp good.st shut.st
cp good.db shut.db
cp good.db open/read.db
chmod 755 .
chmod 777 open
chmod 555 closed
chmod 444 open/read.db
chmod 000 shut shut.st shut.db
nobody=''
[ "$(id -u)" -ne 0 ] || nobody='setpriv --reuid 65534 --regid 65534 --clear-groups'
under '' "$nobody"
if begins 2>/dev/null; then
    bad 1 'shut/tiny\.json: cannot open it: Permission denied' train shut/tiny.json
    bad 1 'shut: Permission denied' train tiny.json --set data.path=shut
    bad 1 'shut\.st: cannot open it: Permission denied' train tiny.json --init shut.st
    bad 1 'shut\.st: cannot open it: Permission denied' eval shut.st
    bad 1 'closed/x: cannot write it: Permission denied' train tiny.json --save closed/x
    bad 1 'closed/x: cannot make the folder: Permission denied' train tiny.json --dump 1 closed/x
    bad 1 'closed/x: the folder of the database cannot be written: Permission denied' train tiny.json --db closed/x
    bad 1 'open/read\.db: the database cannot be written: Permission denied' train tiny.json --db open/read.db
    bad 1 'shut/good\.db: Permission denied' train tiny.json --db shut/good.db
    bad_database 'the database cannot be (read|written): Permission denied' shut.db
    says 0 '^tiny/none/k2/s1 ' - runs --db open/read.db
else
    echo "skipped: nobody may not run this program"
fi
chmod 755 shut closed

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
