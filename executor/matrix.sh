#!/bin/sh
# Runs the executor's tests on every Airflow that it supports, each in an environment of its own; minutes each.
#   matrix.sh [VERSION]...
# Prints a line for each version; ends with 1 if the tests of one failed.
set -eu
cd "$(dirname "$0")/.."
executor/venv.sh 3
uv=.venv-uv/bin/uv
failed=0
for version in "${@:-}"; do
    [ -n "$version" ] || continue
    venv=.venv-matrix/$version
    mkdir -p .venv-matrix
    [ -x "$venv/bin/python" ] || "$uv" venv --quiet --python 3.11 "$venv"
    # The newest providers that go with that Airflow.
    "$uv" pip install --quiet --python "$venv/bin/python" "apache-airflow==$version" apache-airflow-providers-amazon \
        pytest cryptography --editable executor
    case $version in
    2.*) tests=tests/airflow/airflow2 ;;
    *) tests=tests/airflow/unit ;;
    esac
    if "$venv/bin/python" -m pytest -q "$tests" > ".venv-matrix/$version.log" 2>&1; then
        echo "Airflow $version: $(tail -n 1 ".venv-matrix/$version.log")"
    else
        echo "Airflow $version: FAILED, see .venv-matrix/$version.log: $(tail -n 1 ".venv-matrix/$version.log")"
        failed=1
    fi
done
exit $failed
