#!/bin/sh
# Runs CubeCL's tests natively and through Pontoon, and names every test that ends differently.
# Usage: compare.sh ADDRESS [LOG_FOLDER], where ADDRESS is a PONTOON_HOST such as unix:/tmp/p/pontoon.sock
set -eu

address=${1:?"usage: compare.sh ADDRESS [LOG_FOLDER]"}
logs=${2:-$(mktemp -d)}
mkdir -p "$logs"
logs=$(cd "$logs" && pwd)
cd "$(dirname "$0")"

# Drivers crash on this one (Mesa's llvmpipe on LLVM 15 does): it gets a process, and a session, of its own.
alone=wgsl::i64_ty::unary_int::test_reverse_bits

# A test of GPU timings can fail on a busy machine, natively too: who fails may try twice more, alone.
passes_alone() {
    for _ in 1 2 3; do
        cargo test --test runtime -- --exact "$1" >>"$logs/again.log" 2>&1 && return
    done
    return 1
}

run() {
    cargo test --no-fail-fast -- --test-threads=1 --skip "$alone" >"$logs/$1.log" 2>"$logs/$1.err" || true
    sed -n 's/^test \(.*\) \.\.\. ok$/\1/p' "$logs/$1.log" >"$logs/$1.passed"
    : >"$logs/$1.failed"
    for name in $(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$logs/$1.log") "$alone"; do
        if passes_alone "$name"; then
            echo "$name" >>"$logs/$1.passed"
            [ "$name" = "$alone" ] || echo "$1: $name passed on another try"
        else
            echo "$name" >>"$logs/$1.failed"
            echo "$1: $name failed"
        fi
    done
    sort -o "$logs/$1.passed" "$logs/$1.passed"
    echo "$1: $(wc -l <"$logs/$1.passed") passed, $(wc -l <"$logs/$1.failed") failed ($logs/$1.log)"
}

cargo test --no-run
(unset PONTOON_HOST && run native)
(export PONTOON_HOST="$address" && run bridge)
# Nothing passed at all where the build or the host is at fault.
[ -s "$logs/native.passed" ] && diff "$logs/native.passed" "$logs/bridge.passed"
echo "every test ends the same way"
