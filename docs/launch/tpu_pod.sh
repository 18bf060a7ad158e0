#!/usr/bin/env bash
# Trains on a TPU slice of Google Cloud, from creating it to taking it down.
#
#     export TPU=learner ZONE=us-west4-a TYPE=v5litepod-256 VERSION=v2-alpha-tpuv5-lite
#     export REPOSITORY=https://github.com/you/token_learner REVISION=main SPOT=true
#     docs/launch/tpu_pod.sh create
#     docs/launch/tpu_pod.sh install
#     docs/launch/tpu_pod.sh start configs/imagenet_finetune.py:model=L/16-16at12,res=512 \
#         /mnt/shared/run --config.init_from.path=/mnt/shared/jft --config.dataset.data_dir=/mnt/shared/sets
#     docs/launch/tpu_pod.sh watch /mnt/shared/run      # what the first worker prints
#     docs/launch/tpu_pod.sh resume configs/... /mnt/shared/run ...   # after a preemption
#     docs/launch/tpu_pod.sh stop                       # saves; `start` goes on
#     docs/launch/tpu_pod.sh delete
#
# The image must have Python 3.11 or 3.12 with venv; PYTHON names it (python3.11).
# The workdir lies on a file system that every worker mounts at the same place, such as Filestore
# (set NFS=ADDRESS:/SHARE and `install` mounts it at /mnt/shared).
set -euo pipefail

: "${TPU:?name of the TPU}" "${ZONE:?zone of the TPU}"

on_all_workers() {
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all --command="$1"
}

create() {
    : "${TYPE:?accelerator type, such as v5litepod-256}" "${VERSION:?runtime version}"
    local options=()
    if [ "${SPOT:-false}" = true ]; then options+=(--spot); fi
    gcloud compute tpus tpu-vm create "$TPU" --zone="$ZONE" \
        --accelerator-type="$TYPE" --version="$VERSION" ${options[@]+"${options[@]}"}
}

install() {
    : "${REPOSITORY:?where the code is}"
    if [ -n "${NFS:-}" ]; then
        on_all_workers "sudo apt-get install -y -q nfs-common && sudo mkdir -p /mnt/shared &&
            (mountpoint -q /mnt/shared || sudo mount $NFS /mnt/shared) &&
            sudo chmod a+rwx /mnt/shared"
    fi
    on_all_workers "test -d token_learner || git clone -q $REPOSITORY token_learner
        cd token_learner && git fetch -q origin ${REVISION:-main} && git checkout -q FETCH_HEAD &&
        ${PYTHON:-python3.11} -m venv .venv && .venv/bin/pip install -q --require-hashes -r requirements.lock"
}

# Starts main.py on every worker; they find each other. Workers that are gone are an error.
start() {
    local config=$1 workdir=$2
    shift 2
    local flags folder
    folder=$(printf %q "$workdir")
    flags=$(printf '%q ' "--config=$config" "--workdir=$workdir" \
        "--compilation_cache=$workdir/compiled" "$@")
    on_all_workers "cd token_learner && mkdir -p $folder && {
        nohup .venv/bin/python main.py $flags >> $folder/worker_\$(hostname).log 2>&1 < /dev/null &
    }"
}

# A slice that was preempted is taken down and made anew; the run goes on from its checkpoint.
resume() {
    delete || true
    until create; do sleep 60; done
    install
    start "$@"
}

watch() {
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=0 \
        --command="tail -n 20 -f $(printf %q "$1")/worker_\$(hostname).log"
}

# SIGTERM to one worker is enough: all agree on a step and save it.
stop() {
    gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=0 \
        --command="pkill -TERM -f '[m]ain.py'"
}

delete() {
    gcloud compute tpus tpu-vm delete "$TPU" --zone="$ZONE" --quiet
}

case "${1:-}" in
    create | install | stop | delete) "$1" ;;
    start | resume)
        if [ $# -lt 3 ]; then
            echo "usage: $0 $1 CONFIG WORKDIR [FLAG...]" >&2
            exit 2
        fi
        "$@"
        ;;
    watch) watch "${2:?usage: $0 watch WORKDIR}" ;;
    *)
        echo "usage: $0 create | install | start | watch | stop | resume | delete" >&2
        exit 2
        ;;
esac
