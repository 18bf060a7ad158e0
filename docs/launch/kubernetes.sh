#!/usr/bin/env bash
# Writes an indexed Kubernetes Job that trains on several GPU nodes, a pod a node.
#
#     IMAGE=registry/token_learner:1 CLAIM=shared NODES=4 GPUS=8 \
#         docs/launch/kubernetes.sh configs/imagenet_finetune.py:model=L/16-16at12,res=512 \
#         /shared/runs/l16 | kubectl apply -f -
#
# The image holds a checkout in /token_learner with its .venv; the volume claim is mounted at
# /shared by all pods. A pod that is evicted gets SIGTERM, upon which all of them save and exit
# with 143; a pod that dies makes the others exit with 75. New pods go on from the checkpoint. Exit
# status 1, an error that would only come again, ends the Job.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: IMAGE=... CLAIM=... NODES=... GPUS=... $0 CONFIG WORKDIR [FLAG...]" >&2
    exit 2
fi
: "${IMAGE:?the image to run}" "${CLAIM:?the volume claim}" "${NODES:?pods}" "${GPUS:?GPUs a pod}"
name=${NAME:-token-learner}
config=$1 workdir=$2
shift 2

arguments=''
for flag in "--config=$config" "--workdir=$workdir" "--compilation_cache=$workdir/compiled" "$@"; do
    arguments+="
            - '${flag//\'/\'\'}'"
done

cat <<YAML
apiVersion: v1
kind: Service
metadata:
  name: $name
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    job-name: $name
---
apiVersion: batch/v1
kind: Job
metadata:
  name: $name
spec:
  completionMode: Indexed
  completions: $NODES
  parallelism: $NODES
  backoffLimit: 1000
  podFailurePolicy:
    rules:
      - action: FailJob
        onExitCodes:
          containerName: train
          operator: In
          values: [1]
  template:
    spec:
      subdomain: $name
      restartPolicy: Never
      terminationGracePeriodSeconds: 300
      containers:
        - name: train
          image: $IMAGE
          workingDir: /token_learner
          command:
            - .venv/bin/python
            - main.py
            - '--coordinator_address=$name-0.$name:12345'
            - '--num_processes=$NODES'
            - '--process_id=\$(JOB_COMPLETION_INDEX)'
          args:$arguments
          resources:
            limits:
              nvidia.com/gpu: $GPUS
          volumeMounts:
            - name: shared
              mountPath: /shared
            - name: memory
              mountPath: /dev/shm
      volumes:
        - name: shared
          persistentVolumeClaim:
            claimName: $CLAIM
        - name: memory
          emptyDir:
            medium: Memory
YAML
