#!/usr/bin/env bash
# Trains on this machine: its CPU, its GPUs or its TPU. The same command goes on where it stopped.
#
#     docs/launch/single_machine.sh configs/digits.py:model=mini/4-8at2 /tmp/digits [FLAG...]
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG WORKDIR [FLAG...]" >&2
    exit 2
fi
config=$1 workdir=$2
shift 2

cd "$(dirname "$0")/../.."
exec "${PYTHON:-.venv/bin/python}" main.py \
    --config="$config" \
    --workdir="$workdir" \
    --compilation_cache="${CACHE:-$HOME/.cache/token_learner}" \
    "$@"
