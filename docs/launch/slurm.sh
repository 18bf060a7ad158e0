#!/usr/bin/env bash
# Trains on several GPU nodes under SLURM, a process a GPU. The limits below are the example's.
#
#     sbatch --nodes=4 docs/launch/slurm.sh configs/imagenet_finetune.py:model=L/16-16at12,res=512 \
#         /shared/runs/l16 [FLAG...]
#
#SBATCH --job-name=token_learner
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
# SIGTERM to the processes two minutes before the end: they save, and exit with 143.
#SBATCH --signal=TERM@120
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch $0 CONFIG WORKDIR [FLAG...]" >&2
    exit 2
fi
config=$1 workdir=$2
shift 2

cd "${SLURM_SUBMIT_DIR:?start it with sbatch}"
status=0
# The processes find each other through SLURM's variables. --kill-on-bad-exit ends the step when
# one of them fails, and a restart goes on from the newest checkpoint.
srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" main.py \
    --config="$config" \
    --workdir="$workdir" \
    --compilation_cache="$workdir/compiled" \
    "$@" || status=$?

# Stopped by SIGTERM after a checkpoint (143), or ended because another process did (75, or 134 of
# jax): the job goes on from the newest checkpoint. 1 would only come again.
case $status in
    75 | 134 | 143) scontrol requeue "$SLURM_JOB_ID" ;;
esac
exit "$status"
