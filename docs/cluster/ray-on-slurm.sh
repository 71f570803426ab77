#!/bin/bash
# One job: Ray on every node, the driver on the first. RECIPE has [cluster] engine = "ray".
#
#   sbatch --nodes 10 docs/cluster/ray-on-slurm.sh recipe.toml
#
# The run directory, the models and this folder lie on a disk that all nodes see. When the job is
# stopped or runs out of time, submit it again: the run goes on.
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

recipe=${1:?usage: sbatch ray-on-slurm.sh recipe.toml}
# Others' jobs may share the node.
port=$((20000 + SLURM_JOB_ID % 12000))
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" bash -c 'hostname -i; hostname -I; true' |
    tr ' ' '\n' | awk '/^[0-9.]+$/ && !/^127\./ && !n++')
[ "$address" ] || { echo "$head has no IPv4 address" >&2; exit 1; }

# --block: Ray's daemons end with the job's step, and the other way round.
srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
    ray start --head --block --node-ip-address="$address" --port="$port" &
ray=$!
export RAY_ADDRESS="$address:$port"
until ray status >/dev/null 2>&1; do
    kill -0 "$ray" 2>/dev/null || { echo "Ray did not start on $head ($address)" >&2; exit 1; }
    sleep 2
done
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --ntasks-per-node=1 \
        ray start --block --address="$address:$port" &
fi
sleep 15

# In the background, so that SIGTERM reaches this script, which hands it on: the step is finished and saved.
feldspar run "$recipe" &
driver=$!
trap 'kill -TERM "$driver"' TERM
# The first wait ends with the signal, the second with the run.
wait "$driver" || wait "$driver"
