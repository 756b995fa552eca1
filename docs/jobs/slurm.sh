#!/bin/bash
# sbatch slurm.sh: trains on two nodes; queued again after a preemption, a lost node or the end of the time, it continues.
#SBATCH --job-name=fastcls
#SBATCH --nodes=2 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=64
#SBATCH --time=4:00:00
#SBATCH --requeue --open-mode=append
#SBATCH --signal=B:USR1@120                     # two minutes before the time is up

TRAIN=(recipe imagenette-resnet18 --path s3://bucket/imagenette --bs 512)       # what to train: yours
KEPT=s3://bucket/checkpoints/$SLURM_JOB_ID                                      # or a folder that all nodes share
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HEAD KEPT

trap 'again=yes; kill -TERM $step' USR1         # save; torchrun ends with 1 then, so its exit code does not say why
srun --kill-on-bad-exit=1 bash -c 'exec torchrun --nnodes "$SLURM_NNODES" --nproc-per-node 8 \
    --node-rank "$SLURM_NODEID" --master-addr "$HEAD" --master-port 29500 \
    -m fastcls "$@" --out "runs/$SLURM_JOB_ID" --checkpoints "$KEPT" --resume auto' - "${TRAIN[@]}" &
step=$!
wait $step; code=$?
while kill -0 $step 2>/dev/null; do wait $step; code=$?; done   # the signal ended the first wait

[ -z "$again" ] || [ $code -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
exit $code
