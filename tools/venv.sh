#!/bin/sh
# Makes the environments that the tests of client, callers and executor, the executor's bench, and `make airflow` run in:
#   .venv-airflow   Airflow 3.3, the Amazon provider, this package and the client (editable)
#   .venv-airflow2  Airflow 2.11, likewise
#   .venv-callers   Prefect, Dagster and the client (editable)
#   .venv-airflow-bench  Airflow 3.3 with what EcsRunTaskOperator needs in a triggerer
# Needs Python 3.11 and PyPI; uv is installed into the checkout. Does nothing where they are up to date.
#   venv.sh [3|2|callers|bench]...
set -eu
cd "$(dirname "$0")/.."

uv=.venv-uv/bin/uv
if [ ! -x "$uv" ]; then
    python3.11 -m venv .venv-uv
    .venv-uv/bin/pip install --quiet --disable-pip-version-check uv
fi

for version in "${@:-3}"; do
    case $version in
    3) venv=.venv-airflow requirements=tests/airflow/requirements-3.txt packages="python/ecs_bridge python/airflow_ecs_bridge" ;;
    2) venv=.venv-airflow2 requirements=tests/airflow/requirements-2.txt packages="python/ecs_bridge python/airflow_ecs_bridge" ;;
    callers) venv=.venv-callers requirements=tests/python/callers/requirements.txt packages=python/ecs_bridge ;;
    bench) venv=.venv-airflow-bench requirements=benches/executor/requirements.txt packages="python/ecs_bridge python/airflow_ecs_bridge" ;;
    *) echo "usage: venv.sh [3|2|callers|bench]..." >&2; exit 2 ;;
    esac
    stamp=$venv/.stamp
    editable='' want=$requirements
    for package in $packages; do
        editable="$editable --editable $package"
        want="$want $package/pyproject.toml $(echo "$package"/src/*/__init__.py)"
    done
    # shellcheck disable=SC2086
    want=$(cat $want | cksum)
    if [ "$(cat "$stamp" 2>/dev/null || true)" = "$want" ]; then
        continue
    fi
    echo "preparing $venv" >&2
    [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python 3.11 "$venv"
    # shellcheck disable=SC2086
    "$uv" pip install --quiet --python "$venv/bin/python" -r "$requirements" $editable
    echo "$want" > "$stamp"
done
