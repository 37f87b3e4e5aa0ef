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

# One thread: the session's and the machine's load is one test's, which the tests of GPU timings want.
run() {
    cargo test --no-fail-fast -- --test-threads=1 --skip "$alone" >"$logs/$1.log" 2>"$logs/$1.err" || true
    cargo test --test runtime -- --exact "$alone" >>"$logs/$1.log" 2>>"$logs/$1.err" ||
        echo "test $alone ... FAILED" >>"$logs/$1.log"
    sed -n 's/^test \(.*\) \.\.\. \(ok\|FAILED\)$/\1 \2/p' "$logs/$1.log" | sort -u >"$logs/$1.txt"
    passed=$(grep -c ' ok$' "$logs/$1.txt" || true)
    failed=$(grep -c ' FAILED$' "$logs/$1.txt" || true)
    echo "$1: $passed passed, $failed failed ($logs/$1.log)"
}

cargo test --no-run
(unset PONTOON_HOST && run native)
(export PONTOON_HOST="$address" && run bridge)
diff "$logs/native.txt" "$logs/bridge.txt"
echo "every test ends the same way"
