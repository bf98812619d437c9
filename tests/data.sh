#!/bin/bash
# data.sh PROGRAM -- data sets are fetched whole or not at all, and checked.  What is downloaded is
# Penn Treebank from a folder beside the sources, where there is one.
# shellcheck source=tests/facts.sh
ptb=$(realpath -m "$(dirname "${BASH_SOURCE[0]}")/../../shared/data/ptb")
. "$(dirname "${BASH_SOURCE[0]}")/facts.sh" "$1"

export HOME=$work
unset XDG_CACHE_HOME
cache=$work/.cache/gradpress

# Help, misuse.
says 0 '^Usage: gradpress data fetch\|check NAME' - data --help
fact "help tells which sets there are" out_has '^  mnist '
fact "and not those that nobody has" test "$(grep -c '^  kjv ' out)" -eq 0
says 0 '^  gradpress data ' - help
says 2 - 'data wants fetch or check' data
says 2 - 'data wants fetch or check' data fetchh mnist
says 2 - 'data fetch wants the name of a data set' data fetch
says 2 - "no such data set 'mnits'; did you mean 'mnist'" data fetch mnits
says 2 - "two data sets, 'mnist' and 'ptb'" data check mnist ptb
says 2 - "no such flag '--into' of data check" data check mnist --into x
says 2 - "no such flag '--from' of data fetch, or its value is missing" data fetch mnist --from

# What cannot be had.
says 1 - 'kjv has no public place to fetch it from: data/kjv.sh makes it' data fetch kjv
says 1 - "file://$work/nowhere/train-images-idx3-ubyte.gz: curl does not get it" \
    data fetch mnist --from "file://$work/nowhere" --quiet
mkdir lies
head -c 9912422 /dev/zero >lies/train-images-idx3-ubyte.gz
says 1 - 'train-images-idx3-ubyte.gz: 9912422 bytes that are not those published' \
    data fetch mnist --from "file://$work/lies" --quiet
fact "a sentence, no more" test "$(wc -l <err)" -eq 1
fact "they are not kept" test -z "$(ls "$cache/mnist")"
mkdir bare
for tool in timeout grep sed; do ln -s "$(command -v $tool)" bare; done
PATH=$work/bare says 1 - 'curl is not installed, which data fetch needs' data fetch mnist --quiet
touch plain
says 1 - "plain/mnist: Not a directory|plain: Not a directory" data fetch mnist --into plain/mnist
HOME='' says 1 - 'there is no cache' data fetch mnist

# A copy, and what is wrong with it.
says 1 - 'train-images-idx3-ubyte' data check mnist --data lies
mkdir text
cp train.txt valid.txt test.txt text
says 0 '^ptb  19 words  1080 train  180 valid  180 test' - data check ptb --data text
: >text/valid.txt
says 1 - 'valid.txt' data check ptb --data text
says 0 '^synthetic  ' - data check synthetic

# Whole, cut off, whole again.
if [ -r "$ptb/ptb.train.txt" ]; then
    says 0 '^ptb  10000 words  929589 train  73760 valid  82430 test' \
        '^fetching ptb.train.txt' data fetch ptb --from "file://$ptb"
    fact "the same bytes" cmp -s "$ptb/ptb.train.txt" "$cache/ptb/ptb.train.txt"
    says 0 '^ptb  10000 words' '^here already: .*ptb.train.txt' data fetch ptb --from "file://$work"
    mv "$cache/ptb/ptb.train.txt" whole
    head -c 1000000 whole >"$cache/ptb/ptb.train.txt.part"
    says 0 '^ptb  10000 words' - data fetch ptb --from "file://$ptb" --quiet
    fact "what was cut off is gone on with" cmp -s whole "$cache/ptb/ptb.train.txt"
    fact "and nothing else is left" test "$(ls "$cache/ptb")" = "$(ls "$ptb")"
    head -c 1000000 /dev/zero >"$cache/ptb/ptb.valid.txt"
    says 0 '^ptb  10000 words' - data fetch ptb --from "file://$ptb" --quiet
    fact "a file that is not whole comes anew" cmp -s "$ptb/ptb.valid.txt" "$cache/ptb/ptb.valid.txt"
    says 0 '^ptb  10000 words' - data check ptb
fi

echo "$facts facts, $wrong wrong"
[ "$wrong" -eq 0 ]
