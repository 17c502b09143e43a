#!/bin/sh
# Builds the library and everything written in C against it, checks what the library exports, and
# runs the tests under the sanitizers. Set OTTLA_KAFKA_BOOTSTRAP to test against real Kafka as well.
# Programs are left in target/c.
set -eu

cd "$(dirname "$0")/../../.."
profile=${PROFILE:-dev}
cargo build -p ottla-c --features test-broker --profile "$profile"
cargo run -q -p ottla-c --features header,test-broker --profile "$profile" --bin ottla-header -- --check
target=${CARGO_TARGET_DIR:-target}
case $profile in dev) built=$target/debug ;; *) built=$target/$profile ;; esac

exported=$(nm -D --defined-only "$built/libottla_c.so" | sed -n 's/.* [TDBR] //p' | sort)
if [ "$exported" != "$(cat c-api/symbols.txt)" ]; then
  echo "the library does not export what c-api/symbols.txt lists:" >&2
  echo "$exported" | diff c-api/symbols.txt - >&2 || true
  exit 1
fi
echo "exports are those of c-api/symbols.txt"

out=$target/c
mkdir -p "$out"
flags="-std=c11 -Wall -Wextra -Wpedantic -Werror -g -Ic-api/include"
sanitize="-fsanitize=address,undefined -fno-sanitize-recover=undefined"
libraries="$built/libottla_c.a -lpthread -ldl -lm"
compile() {
  # shellcheck disable=SC2086 # the flags are words
  ${CC:-cc} $flags "$@" $libraries
}
# shellcheck disable=SC2086
compile $sanitize c-api/tests/c/test_ottla.c -o "$out/test_ottla"
# shellcheck disable=SC2086
compile $sanitize c-api/tests/c/test_cluster.c -o "$out/test_cluster"
# shellcheck disable=SC2086
compile $sanitize c-api/tests/c/test_settings.c -o "$out/test_settings"
# shellcheck disable=SC2086
compile $sanitize c-api/tests/c/real_kafka.c -o "$out/real_kafka"
# shellcheck disable=SC2086
compile $sanitize c-api/tests/c/interop.c -o "$out/interop-sanitized"
compile -O2 c-api/tests/c/interop.c -o "$out/interop"
compile -O2 examples/c/quickstart.c -o "$out/quickstart"
# The header alone, as C++ and in the newest C.
for standard in c99 c11 c2x; do
  ${CC:-cc} -std=$standard -Wall -Wextra -Wpedantic -Werror -fsyntax-only -x c c-api/include/ottla.h
done
if command -v "${CXX:-c++}" > /dev/null; then
  ${CXX:-c++} -std=c++17 -Wall -Wextra -Werror -fsyntax-only -x c++ c-api/include/ottla.h
fi

export ASAN_OPTIONS=detect_leaks=1
"$out/test_ottla"
"$out/test_cluster"
"$out/test_settings"
if [ -n "${OTTLA_KAFKA_BOOTSTRAP:-}" ]; then
  "$out/real_kafka"
else
  echo "real Kafka: not tested, OTTLA_KAFKA_BOOTSTRAP is not set"
fi
