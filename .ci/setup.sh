# setup.sh -- what quickstart, tests/run and .ci/run share: packages, the build, counting.  They
# source it; it goes to the root of the sources.
# shellcheck shell=bash
# shellcheck disable=SC2034 # for those who source it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Two spinning threads a program on a busy machine of two cores: 8 times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive}

build=build
packages=(gcc libc6-dev meson ninja-build pkg-config libcjson-dev libsqlite3-dev libmd-dev zlib1g-dev
    sqlite3 bible-kjv bible-kjv-text)
optional=(libdnnl-dev curl) # the program is slower without; fetches no data
test_packages=(libcmocka-dev)
check_packages=(clang clang-tidy clang-format "libclang-rt-14-dev|libclang-rt-dev"
    "libomp-14-dev|libomp-dev" git python3-numpy shellcheck)

title() {
    if [ -t 1 ]; then
        printf '\n\033[1m%s\033[0m\n' "$*"
    else
        printf '\n== %s\n' "$*"
    fi
}

# As the last command of a function: false.
complain() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    return 1
}

die() {
    complain "$@" || exit 1
}

# quietly COMMAND... -- what it prints is shown only if it fails.
quietly() {
    local output status=0

    output=$("$@" 2>&1 </dev/null) || status=$?
    [ "$status" -eq 0 ] || printf '%s\n' "$output" >&2
    return "$status"
}

is_installed() {
    local status

    status=$(dpkg-query -W -f='${Status}\n' "$1" 2>/dev/null) && grep -q ' installed$' <<<"$status"
}

can_be_installed() {
    grep -q 'Candidate: [^(]' <<<"$(apt-cache policy "$1" 2>/dev/null)"
}

# missing PACKAGE... -- those that are not installed, one a line; "A|B": either will do.
missing() {
    local package name

    for package in "$@"; do
        for name in ${package//|/ }; do
            is_installed "$name" && continue 2
        done
        echo "$package"
    done
}

apt() {
    local as_root=()

    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=2 \
        -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

twice() {
    "$@" || { echo "once more: $*" >&2 && sleep 5 && "$@"; }
}

# install PACKAGE... -- what is missing of them and of the optional ones.  Where there is no apt it
# names them and goes on: the tools may be there anyway, and the build says so if they are not.
install() {
    local package name choice=() lacking=()

    if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
        echo "This is neither Debian nor Ubuntu.  Needed are what these packages of Debian have:"
        echo "  ${*//|*/} ${optional[*]} (optional)"
        echo "Going on, in case they are here."
        return 0
    fi
    mapfile -t lacking < <(missing "$@" "${optional[@]}")
    if [ "${#lacking[@]}" -eq 0 ]; then
        echo "All packages are here."
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
        echo "Neither root nor sudo: going on without ${lacking[*]}"
        return 0
    fi
    quietly twice apt update || echo "apt-get update failed: going on with the lists that are here."
    for package in "${lacking[@]}"; do
        name=$package
        for name in ${package//|/ }; do
            can_be_installed "$name" && break
        done
        if can_be_installed "$name"; then
            choice+=("$name")
        elif [[ " ${optional[*]} " == *" $package "* ]]; then
            echo "There is no package $package in this release: going on without."
        else
            complain "there is no package ${package//|/ nor } in this release" || return
        fi
    done
    [ "${#choice[@]}" -gt 0 ] || return 0
    echo "Installing ${choice[*]}"
    quietly twice apt install -y --no-install-recommends "${choice[@]}" ||
        complain "apt-get install failed"
}

# configure FOLDER [OPTION...] -- where it is configured already, nothing.
configure() {
    [ -f "$1/build.ninja" ] || quietly meson setup "$@" ||
        complain "meson cannot configure $1: see above"
}

# How meson's tests went, added up.
passed=0 failed=0 skipped=0

# test_in FOLDER [ARGUMENT of meson test...] -- builds what they need, runs them, counts them.
test_in() {
    local folder=$1 log=$1/meson-logs/testlog.json status=0 ok bad skip
    shift

    rm -f "$log"
    meson test -C "$folder" --print-errorlogs "$@" </dev/null || status=$?
    ok=$(results "$log" 'OK|EXPECTEDFAIL')
    skip=$(results "$log" 'SKIP')
    bad=$(($(results "$log" '[A-Z]+') - ok - skip))
    # It failed otherwise, say to compile; or nothing ran.
    if [ "$bad" -eq 0 ] && { [ "$status" -ne 0 ] || [ "$ok" -eq 0 ]; }; then
        bad=1
    fi
    passed=$((passed + ok))
    failed=$((failed + bad))
    skipped=$((skipped + skip))
    [ "$bad" -eq 0 ]
}

# A quote inside of a test's output has a backslash, so this finds meson's own words alone.
results() {
    { grep -oE "\"result\": \"($2)\"" "$1" 2>/dev/null || true; } | wc -l
}

# The line that whoever ran it reads; false if anything failed.
closing_line() {
    echo "$passed passed, $failed failed, $skipped skipped"
    [ "$failed" -eq 0 ]
}
