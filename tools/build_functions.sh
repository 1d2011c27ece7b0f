#!/usr/bin/env bash
# Builds the functions for every Lambda architecture that this toolchain supports: DIST/x86_64/*.zip, DIST/arm64/*.zip.
# Needs cargo-lambda on the PATH. Prints the architectures that it built.
#   tools/build_functions.sh dist
set -euo pipefail
cd "$(dirname "$0")/.."

dist=$1
functions=(submit task-state reconcile runner-api)
built=${CARGO_TARGET_DIR:-target}/lambda

for pair in x86_64:x86_64-unknown-linux-gnu:--x86-64 arm64:aarch64-unknown-linux-gnu:--arm64; do
  IFS=: read -r architecture target flag <<< "$pair"
  # The folder of the target's standard library exists if the target is installed.
  if [[ ! -d $(rustc --print target-libdir --target "$target") ]]; then
    echo "skipped $architecture: the Rust target $target is missing; run: rustup target add $target" >&2
    continue
  fi
  mkdir -p "$dist/$architecture"
  # zig is the linker, as in a SAM build, so that the binary uses Lambda's glibc and not the glibc of this machine.
  for function in "${functions[@]}"; do
    cargo lambda build --locked --release "$flag" --output-format zip --bin "$function" >&2
    cp "$built/$function/bootstrap.zip" "$dist/$architecture/$function.zip"
  done
  "${PYTHON:-python3}" tools/elf.py "$architecture" "$dist/$architecture"/*.zip >&2
  echo "$architecture"
done
