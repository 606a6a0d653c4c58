#!/bin/bash
# sbatch examples/label/slurm.sh BUNDLE INPUT --out DIR [other options of samdeploy label]
#
# DIR is a folder that all nodes see.  Submitted again, only the parts that are not there are made; a task that was
# preempted is requeued and does the same.
#SBATCH --job-name=label
#SBATCH --array=0-63
#SBATCH --cpus-per-task=8
#SBATCH --mem-per-cpu=1G
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --output=label-%A-%a.log
set -euo pipefail

shards=${SHARDS:-64} # as many as the array has tasks
exec samdeploy label "$@" --shard "$((SLURM_ARRAY_TASK_ID + 1))/$shards" --threads "${SLURM_CPUS_PER_TASK:-8}"
