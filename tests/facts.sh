# facts.sh PROGRAM -- sourced by the tests of the command line: a fact is a sentence and a command; an
# empty folder to work in, and a tiny text.
# shellcheck shell=bash
# shellcheck disable=SC2034 # for those who source it
set -u
export LC_ALL=C OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
program=$(realpath "$1")
GRADPRESS_REGIMES=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../regimes")
export GRADPRESS_REGIMES
unset GRADPRESS_DB GRADPRESS_DATA
work=$(mktemp -d) || exit 1
trap 'kill -9 $(jobs -p) 2>/dev/null; wait; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
cd "$work" || exit 1

facts=0 wrong=0
fact() { # fact SENTENCE COMMAND...
    local sentence=$1
    shift
    facts=$((facts + 1))
    "$@" && return
    wrong=$((wrong + 1))
    printf '%s: not so: %s\n' "${0##*/}" "$sentence"
    printf '  command: gradpress %s\n  exit code: %s\n' "${command:-}" "${code:-}"
    sed 's/^/  stdout: /' out
    sed 's/^/  stderr: /' err
}

command='' code=''
gradpress() {
    command=$*
    timeout -k 5 50 "$program" "$@" >out 2>err </dev/null
    code=$?
}

ends_with() { [ "$code" -eq "$1" ]; }
out_has() { grep -qE -- "$1" out; }
err_has() { grep -qE -- "$1" err; }
is_empty() { [ ! -s "$1" ]; }
sql() { sqlite3 -readonly -cmd '.timeout 10000' "$@"; }

# Exit code, what stdout says (- for nothing), what stderr says.
says() { # says CODE STDOUT STDERR ARGUMENT...
    local expected=$1 stdout=$2 stderr=$3
    shift 3
    gradpress "$@"
    fact "exit code $expected" ends_with "$expected"
    if [ "$stdout" = - ]; then fact "nothing on stdout" is_empty out; else fact "stdout has: $stdout" out_has "$stdout"; fi
    if [ "$stderr" = - ]; then fact "nothing on stderr" is_empty err; else fact "stderr has: $stderr" err_has "$stderr"; fi
}

# What JSON on stdout has at a path.
json() { sqlite3 :memory: "select json_extract(readfile('out'), '$1')"; }
is() { # is VALUE PATH
    [ "$(json "$2")" = "$1" ] || { echo "  $2: $(json "$2"), not $1" && false; }
}

# A text of 20 words, each of which has two that follow it.
awk 'BEGIN {
    for (part = 0; part < 3; part++)
        for (line = 0; line < (part ? 20 : 120); line++) {
            for (word = 0; word < 8; word++) {
                printf "w%d ", at >(part == 0 ? "train.txt" : part == 1 ? "valid.txt" : "test.txt")
                at = (at * 3 + 1 + (number = (number * 1103515245 + 12345) % 2147483648) % 2) % 20
            }
            print "" >(part == 0 ? "train.txt" : part == 1 ? "valid.txt" : "test.txt")
        }
}'
