#!/bin/sh
# kjv.sh [FOLDER] -- the demo corpus: the King James Bible, from Debian's packages bible-kjv and
# bible-kjv-text, as train.txt, valid.txt and test.txt in FOLDER (without one: in the cache).
#
# A verse a line, lower case, words and punctuation apart; an apostrophe stays inside a word
# (god's), not at its end (sons ').  Of every 20 chapters, counted through the whole book, the
# 10th is for validation and the 20th for test: the end of the book is another genre.
set -eu
LC_ALL=C
export LC_ALL

die() {
    echo "kjv.sh: $1" >&2
    exit 1
}

if [ $# -gt 1 ]; then
    echo "usage: kjv.sh [FOLDER]" >&2
    exit 2
fi
if [ $# -eq 1 ]; then
    folder=$1
else
    [ -n "${XDG_CACHE_HOME:-}${HOME:-}" ] || die "neither XDG_CACHE_HOME nor HOME is set: name a folder"
    folder=${XDG_CACHE_HOME:-$HOME/.cache}/gradpress/kjv
fi
[ -n "$folder" ] || die "the folder has an empty name"
case $folder in
/*) ;;
*) folder=./$folder ;; # not an option, nor an assignment of awk's
esac

if [ -f "$folder/train.txt" ] && [ -f "$folder/valid.txt" ] && [ -f "$folder/test.txt" ]; then
    exit 0
fi
command -v bible >/dev/null ||
    die "there is no program 'bible': install Debian's packages bible-kjv and bible-kjv-text"

mkdir -p "$folder"
trap 'rm -f "$folder"/.*."$$"' EXIT
trap 'exit 1' HUP INT TERM

bible -f gen1:1-rev22:21 >"$folder/.verses.$$" </dev/null || die "'bible' failed"
FOLDER=$folder PROCESS=$$ awk '
function name(part) {
    return ENVIRON["FOLDER"] "/." part "." ENVIRON["PROCESS"]
}
{
    split($1, reference, ":")
    if (reference[1] != chapter) {
        chapter = reference[1]
        chapters++
    }
    $1 = ""
    $0 = tolower($0) " "
    gsub(/[^a-z\047 ]/, " & ")
    gsub(/ \047/, " \047 ")
    gsub(/\047 /, " \047 ")
    $1 = $1
    turn = chapters % 20
    print >name(turn == 10 ? "valid" : turn == 0 ? "test" : "train")
}
END {
    exit NR != 31102
}' "$folder/.verses.$$" || die "'bible' did not print the 31,102 verses of the King James Bible"

# train.txt comes last: where it is, all are.
for part in valid test train; do
    mv "$folder/.$part.$$" "$folder/$part.txt"
done
