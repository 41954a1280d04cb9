#!/bin/sh
# Stop the Slurm that start.sh began in a directory, with its jobs: stop.sh DIRECTORY
set -u
dir=$1
SLURM_CONF=$dir/slurm.conf
export SLURM_CONF
scancel --user="$(id -un)" 2>/dev/null
seconds=15
while [ -n "$(squeue --noheader 2>/dev/null)" ] && [ "$seconds" -gt 0 ]; do
    seconds=$((seconds - 1))
    sleep 1
done
for file in "$dir/slurmd.pid" "$dir/slurmctld.pid" "$dir/munge/pid"; do
    [ -f "$file" ] || continue
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null
    # It writes its state to the directory until it ends; a process that nobody waits for stays as a zombie.
    seconds=10
    while [ "$seconds" -gt 0 ] && [ -d "/proc/$pid" ] && ! grep -q "^State:.Z" "/proc/$pid/status"; do
        seconds=$((seconds - 1))
        sleep 1
    done
done
