#!/bin/bash
# Two nodes with two processes each: sbatch docs/cluster/slurm.sh
#SBATCH --job-name=gansmith
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=2
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# TERM reaches every process two minutes before the time is over: the run saves, the job queues itself again, and then
# continues it. RUN and the data cache lie where all nodes see them.
set -euo pipefail

RUN=${RUN:-$SLURM_SUBMIT_DIR/runs/cifar10}
export GANSMITH_CACHE=${GANSMITH_CACHE:-$SLURM_SUBMIT_DIR/cache}
export GANSMITH_TIMEOUT=600
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=100 # seconds that torchrun gives the processes to save
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
before=$(cat "$RUN/run.json" 2>/dev/null || true)
code=0

# Since Slurm 22.05, srun does not take this number from the job by itself.
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" \
  --nproc-per-node=2 \
  --rdzv-id="$SLURM_JOB_ID" \
  --rdzv-backend=c10d \
  --rdzv-endpoint="$head:29500" \
  --max-restarts=3 \
  -m gansmith train default --data cifar10 --batch-size 256 --images 20M --out "$RUN" --progress plain || code=$?

# torchrun ends with 1 after TERM as after any failure; run.json says that the run was stopped, and differs if by this job.
now=$(cat "$RUN/run.json" 2>/dev/null || true)
if [[ $code -ne 0 && $now != "$before" && $now == *'"status": "stopped"'* ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
