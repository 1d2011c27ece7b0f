#!/bin/sh
# Makes the environments that the executor's tests and bench, and `make airflow`, run in:
#   .venv-airflow   Airflow 3.3, the Amazon provider, this package (editable)
#   .venv-airflow2  Airflow 2.11, likewise
# Needs Python 3.11 and PyPI; uv is installed into the checkout. Does nothing where they are up to date.
#   venv.sh [3|2]...
set -eu
cd "$(dirname "$0")/.."

uv=.venv-uv/bin/uv
if [ ! -x "$uv" ]; then
    python3.11 -m venv .venv-uv
    .venv-uv/bin/pip install --quiet --disable-pip-version-check uv
fi

for version in "${@:-3}"; do
    case $version in
    3) venv=.venv-airflow ;;
    2) venv=.venv-airflow2 ;;
    *) echo "usage: venv.sh [3|2]..." >&2; exit 2 ;;
    esac
    requirements=tests/airflow/requirements-$version.txt
    stamp=$venv/.stamp
    want=$(cat "$requirements" executor/pyproject.toml executor/src/airflow_ecs_bridge/__init__.py | cksum)
    if [ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ]; then
        continue
    fi
    echo "preparing $venv" >&2
    [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python 3.11 "$venv"
    "$uv" pip install --quiet --python "$venv/bin/python" -r "$requirements" --editable executor
    echo "$want" > "$stamp"
done
