#!/bin/sh
# cuda_symbols.sh MODULE -- whether the CUDA module exports a launcher for every kernel in the
# sources, so that a missing one is found where there is no GPU.
set -eu
LC_ALL=C
export LC_ALL

[ $# -eq 1 ] || { echo "usage: cuda_symbols.sh MODULE" >&2; exit 2; }
case $1 in
/*) module=$1 ;;
*) module=$PWD/$1 ;;
esac
cd "$(dirname "$0")/.."

exported=$(nm -D --defined-only "$module" | awk '{print $NF}')
kernels=$(sed -nE 's/^(ROW_|SUM_|TILE_)?KERNEL\(([A-Za-z0-9_]+)\).*/\2/p' \
    sim/*.c compressors/*.c models/*.c data/*.c | sort)
[ -n "$kernels" ] || { echo "cuda_symbols.sh: no kernels in $PWD" >&2; exit 1; }

missing=
for name in gradpress $kernels; do
    echo "$exported" | grep -qx "${name}_cuda" || missing="$missing $name"
done
twice=$(echo "$kernels" | uniq -d | tr '\n' ' ')

[ -z "$twice" ] || { echo "cuda_symbols.sh: two kernels have one name: $twice" >&2; exit 1; }
[ -z "$missing" ] || { echo "cuda_symbols.sh: $1 lacks the launchers of:$missing" >&2; exit 1; }
echo "$(echo "$kernels" | wc -l) kernels, all in $1"
