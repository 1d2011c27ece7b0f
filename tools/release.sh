#!/usr/bin/env bash
# Creates a release in dist/. It contains the functions for every architecture that the toolchain supports, templates,
# the CLI and the runner for the architecture of this machine, wheels, SBOMs and checksums.
# Needs cargo-lambda, cargo-cyclonedx and cargo-deny on the PATH. `make release` installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

case "$(uname -m)" in
  x86_64) architecture=x86_64 ;;
  aarch64) architecture=arm64 ;;
  *) echo "unsupported architecture: $(uname -m); Lambda supports x86_64 and aarch64" >&2; exit 1 ;;
esac
dist=dist
python=${PYTHON:-python3}

version=$(cargo metadata --no-deps --format-version 1 |
  "$python" -c 'import json, sys; print({p["version"] for p in json.load(sys.stdin)["packages"] if p["name"] == "ecs-bridge-cli"}.pop())')
grep -q "^## \[$version\]" CHANGELOG.md || { echo "missing changelog entry: CHANGELOG.md must contain the heading '## [$version]'" >&2; exit 1; }
for package in python/ecs_bridge/src/ecs_bridge python/airflow_ecs_bridge/src/airflow_ecs_bridge; do
  grep -q "^__version__ = \"$version\"" "$package/__init__.py" || { echo "wrong version of $package: set __version__ to $version" >&2; exit 1; }
done
grep -q "\"ecs-bridge==$version\"" python/airflow_ecs_bridge/pyproject.toml || { echo "wrong client version: python/airflow_ecs_bridge/pyproject.toml must require ecs-bridge==$version" >&2; exit 1; }

# Checks licenses and sources. `make audit` also checks the advisories, which are in a database on GitHub.
cargo deny --locked check licenses bans sources

rm -rf "$dist" && mkdir "$dist"

# Panic messages contain the place in the source, without the path on this machine.
export RUSTFLAGS="--remap-path-prefix=$PWD=ecs-bridge --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo ${RUSTFLAGS:-}"

architectures=$(PYTHON=$python tools/build_functions.sh "$dist")
for each in $architectures; do
  "$python" tools/release_template.py "$each" < template.yaml > "$dist/template-$each.yaml"
  # For Regions without function URLs, and for a private network without function URLs.
  "$python" tools/release_template.py --no-urls "$each" < template.yaml > "$dist/template-$each-no-urls.yaml"
  sed "s#TemplateURL: ../template.yaml#TemplateURL: template-$each-no-urls.yaml#" infra/private.yaml > "$dist/private-$each.yaml"
done
# shellcheck disable=SC2086
"$python" tools/release_template.py --packaged $architectures < template.yaml > "$dist/packaged.yaml"
# shellcheck disable=SC2086
"$python" tools/release_template.py --no-urls --packaged $architectures < template.yaml > "$dist/packaged-no-urls.yaml"

cargo build --locked --release --package ecs-bridge-cli
cp target/release/ecs-bridge "$dist/ecs-bridge-$version-$architecture-linux"

# The runner as a wheel, and as the binary from the wheel.
make --no-print-directory runner-wheel
cp "target/$(uname -m)-unknown-linux-gnu/release/ecs-bridge-runner" "$dist/ecs-bridge-runner-$version-$architecture-linux"

"$python" -m pip wheel --quiet --no-deps --wheel-dir "$dist" ./python/ecs_bridge ./python/airflow_ecs_bridge

# cargo-cyclonedx writes one SBOM next to every Cargo.toml of the workspace, and the file contains the path of this folder.
cargo cyclonedx --quiet --format json --no-build-deps --override-filename sbom.cdx
for program in functions/submit functions/task-state functions/reconcile functions/runner-api cli runner; do
  sed "s#path+file://$PWD/#path+file:///#g" "$program/sbom.cdx.json" > "$dist/$(basename "$program").cdx.json"
done
find . -name sbom.cdx.json -not -path './target/*' -delete

cp LICENSE CHANGELOG.md infra/key.yaml infra/example.yaml infra/iam-policies.yaml "$dist/"
cp -r infra/terraform "$dist/"
(cd "$dist" && find . -type f -not -name SHA256SUMS -printf '%P\0' | sort -z | xargs -0 sha256sum -- > SHA256SUMS)
ls -lR "$dist"
