#!/bin/bash
# layering.sh -- that the sources keep their own rules: who includes whom, exact arithmetic where
# CPU and GPU must agree to the bit, nothing left to do, nobody's machine.
set -u
export LC_ALL=C
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# A file may include files of its own level and of those above it in this table.  A header may
# stand higher than its source: interfaces are known before those who implement them.  The first
# pattern that fits counts.
levels=(
    'sim/base.* sim/version.h results/schema.h'
    'sim/kernel.h sim/rng.h sim/exactmath.h sim/step.h sim/tree.* sim/safetensors.* sim/gradients.* sim/words.* sim/progress.* data/text.* data/dataset.* data/fetch.* data/images.h data/images_read.c'
    'sim/device.* sim/device_*.* data/stream.* data/images.c data/source*.*'
    'sim/optimizer_rule.* compressors/codes.h compressors/compressor.* compressors/method.h compressors/memory.* models/model.h'
    'sim/config*.*'
    'sim/layout.* sim/graph.* sim/layers_*.c sim/wire*.* sim/weights.*'
    'compressors/*.* models/*.* sim/server.*'
    'sim/worker.*'
    'sim/exchange.* sim/optimizer.*'
    'sim/plan.* sim/dump.* sim/step_log.* sim/account.* sim/measure.*'
    'sim/train.*'
    'results/*.*'
    'sim/rows.*'
    'sim/run.* sim/show.* sim/bench.* sim/bytes.* sim/eval.* sim/compress.* sim/data.*'
    'sim/main.c'
    'tests/*.*'
)

# Whoever includes what fits the first word is one of the files behind it.
doors=(
    '<sqlite3\.h>             results/store.c results/query.c tests/test_store.c'
    '<(cjson/)?cJSON\.h>      sim/tree.c'
    '<(cu[a-z_]*|cub/.*|nv.*)\.(h|cuh|hpp)>   sim/device_cuda.cu'
    '<.*dnnl.*>               sim/device_cpu_convolve.c sim/device_cpu.c'
    '<zlib\.h>                data/images_read.c tests/test_sources.c'
    '"results/[a-z_]*\.h"     sim/run.* sim/rows.* sim/main.c results/* tests/*'
    '"tests/.*"               tests/*'
)

# Results and data know little of the others.
modest=(
    'results/*     sim/base.h results/*'
    'data/text.*   sim/base.h sim/rng.h data/*'
    'data/dataset.*  sim/base.h data/*'
    'data/fetch.*  sim/base.h data/*'
    'data/images*  sim/base.h sim/kernel.h sim/rng.h sim/step.h sim/device.h data/*'
    'data/source*  sim/base.h sim/device.h data/*'
    'data/stream.* sim/base.h sim/kernel.h sim/step.h sim/device.h data/*'
)

# Equal to the bit on every device: of libm only sqrt and floor.  Their host parts are free, and
# so are files without a kernel.
exact=(compressors/*.[ch] sim/wire*.[ch] sim/exchange.[ch] sim/optimizer*.[ch] sim/layout.[ch] sim/server.[ch]
    sim/worker.[ch] sim/measure.[ch] sim/rng.h sim/exactmath.h)

mapfile -t sources < <(find sim models compressors data results tests \
    -name '*.c' -o -name '*.h' -o -name '*.cu' | sort)
mapfile -t texts < <(find . -path ./.git -prune -o -path './build*' -prune -o -path ./carried -prune \
    -o -path ./.venv -prune -o -type f ! -name '*.db*' -print | sed 's,^\./,,' | sort)

breaches=0
breach() {
    breaches=$((breaches + 1))
    echo "$1"
}

# fits FILE PATTERN...
fits() {
    local file=$1 pattern
    shift
    for pattern in "$@"; do
        # shellcheck disable=SC2053 # a pattern
        [[ $file == $pattern ]] && return
    done
    return 1
}

set -f # the tables hold patterns

# Sets level: the row of the table, or nothing.
level_of() {
    for level in "${!levels[@]}"; do
        # shellcheck disable=SC2086 # words
        fits "$1" ${levels[level]} && return
    done
    level=''
    return 1
}

includes=0
while IFS=: read -r file line text; do
    includes=$((includes + 1))
    [[ $text =~ (\<[^>]*\>|\"[^\"]*\") ]] && what=${BASH_REMATCH[1]}
    for door in "${doors[@]}"; do
        read -r pattern allowed <<<"$door"
        # shellcheck disable=SC2086
        if [[ $what =~ ^$pattern$ ]] && ! fits "$file" $allowed; then
            breach "$file:$line: $what is for $allowed"
        fi
    done
    [[ $what == \"* ]] || continue
    what=${what//\"/}
    level_of "$file" || breach "$file:$line: the file has no level in the table of tests/layering.sh"
    own=$level
    level_of "$what" || breach "$file:$line: $what has no level in the table of tests/layering.sh"
    if [ -n "$own" ] && [ -n "$level" ] && [ "$level" -gt "$own" ]; then
        breach "$file:$line: includes $what, which stands above it (level $level above $own)"
    fi
    for rule in "${modest[@]}"; do
        read -r pattern allowed <<<"$rule"
        # shellcheck disable=SC2086
        if fits "$file" $pattern && ! fits "$what" $allowed; then
            breach "$file:$line: includes $what; $pattern may include $allowed"
        fi
    done
done < <(grep -nE '^[ \t]*#[ \t]*include[ \t]*[<"]' "${sources[@]}")
set +f

# Calls of libm in FILE, outside of comments, strings and what nvcc does not see.
libm() {
    awk '
    function strip(text,    start, end, rest) {
        gsub(/"([^"\\]|\\.)*"/, "\"\"", text)
        for (;;) {
            if (inside) {
                end = index(text, "*/")
                if (!end) return rest
                text = substr(text, end + 2)
                inside = 0
            }
            start = index(text, "/*")
            if (index(text, "//") && (!start || index(text, "//") < start))
                return rest substr(text, 1, index(text, "//") - 1)
            if (!start) return rest text
            rest = rest substr(text, 1, start - 1)
            text = substr(text, start + 2)
            inside = 1
        }
    }
    BEGIN {
        split("acos asin atan atan2 cbrt ceil copysign cos cosh erf erfc exp exp2 exp10 expm1 fabs " \
              "fdim fma fmax fmin fmod frexp hypot ldexp lgamma log log10 log1p log2 logb lrint " \
              "llrint lround llround modf nearbyint nextafter pow powi remainder rint round scalbn " \
              "sin sincos sinh tan tanh tgamma trunc rsqrt rcbrt __expf __logf __powf __fdividef " \
              "__sinf __cosf", names)
        for (i in names)
            banned[names[i]] = banned[names[i] "f"] = banned[names[i] "l"] = 1
    }
    {
        line = strip($0)
        if (line ~ /^[ \t]*#[ \t]*if/) {
            depth++
            if (!host && line ~ /^[ \t]*#[ \t]*(ifndef[ \t]+__CUDACC__|if[ \t]+!defined[ (]+__CUDACC__)/)
                host = depth
        } else if (line ~ /^[ \t]*#[ \t]*el/ && host == depth) {
            host = 0
        } else if (line ~ /^[ \t]*#[ \t]*endif/) {
            if (host == depth)
                host = 0
            depth--
        }
        while (match(line, /[A-Za-z_][A-Za-z_0-9]*[ \t]*\(/)) {
            name = substr(line, RSTART, RLENGTH - 1)
            sub(/[ \t]+$/, "", name)
            if (name in banned && !host)
                print FILENAME ":" FNR ": " name "() is not exact: + - * / sqrt floor alone, or exactmath.h"
            line = substr(line, RSTART + RLENGTH)
        }
    }' "$1"
}

files=0
for file in "${exact[@]}"; do
    grep -q 'KERNEL' "$file" || continue
    files=$((files + 1))
    while read -r found; do
        breach "$found"
    done < <(libm "$file")
done

# The brackets keep these lines themselves out of it.
while IFS= read -r found; do
    breach "$found: do it, or file an issue"
done < <(grep -nIoE '\b(TO[D]O|FIX[M]E|XX[X])\b' /dev/null "${texts[@]}")
while IFS= read -r found; do
    breach "$found: somebody's machine, or a person"
done < <(grep -nIoE '(^|[^A-Za-z0-9_.-])/(wor[k]|roo[t]|hom[e]/[a-z]|User[s]/)[A-Za-z0-9_./-]*|[A-Za-z0-9._-]+[@][A-Za-z0-9-]+\.(com|org|net|io|de|edu)\b' \
    /dev/null "${texts[@]}")

echo "$includes includes in ${#sources[@]} sources: levels, doors;" \
    "libm in $files exact files; ${#texts[@]} files: nothing to do, nobody's path; $breaches breaches"
[ "$breaches" -eq 0 ]
