#!/bin/bash
# Runs its arguments. As `migrate COMMAND...` it first brings the database up to date and creates the user "admin".
#
# It stands in for the entry point of apache/airflow, which runs every command but bash and python as a command of
# airflow, so that a pool's `ecs-bridge-runner` fails, and which looks for a database, which a task does not have.
set -euo pipefail

# As there: files on a shared volume can be written by any user of the group.
umask 0002
unset PIP_USER

if [[ "${1:-}" == migrate ]]; then
    shift
    : "${AIRFLOW_ADMIN_PASSWORD:?is not set}"
    # Several may do this at once: Airflow takes a lock in the database.
    airflow db migrate
    # Does nothing where the user exists; its password is then whatever it was changed to.
    airflow users create --username admin --role Admin --firstname Airflow --lastname Admin \
        --email "${AIRFLOW_ADMIN_EMAIL:-admin@example.com}" --password "$AIRFLOW_ADMIN_PASSWORD"
    unset AIRFLOW_ADMIN_PASSWORD
fi

exec "$@"
