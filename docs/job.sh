#!/bin/bash
#SBATCH --job-name=dynamic-training
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:SIGUSR1@90

trap 'scontrol requeue "$SLURM_JOB_ID"' SIGUSR1 # the signal comes to this script, 90 s before the time is over

srun spktrain experiment=dt_egnn_paper data=trajectory data.datapath="$PWD/my_aimd.db" run.id=first +seed=0 \
    trainer=ddp_trainer trainer.accelerator=gpu trainer.devices=4 trainer.num_nodes=2 &
wait
