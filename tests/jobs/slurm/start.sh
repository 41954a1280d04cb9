#!/bin/sh
# A Slurm of one node in one directory, for the tests: start.sh DIRECTORY
#
# Needs Debian's slurmctld, slurmd, slurm-client and munge; neither systemd nor cgroups, nor root. All state is in the
# directory and the ports are free ones, so that nothing else on the machine is touched. Returns when the node is up;
# then `SLURM_CONF=DIRECTORY/slurm.conf sbatch …`. Stop it with stop.sh DIRECTORY.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
PATH=$PATH:/usr/sbin:/sbin

mkdir -p "$dir/munge" "$dir/state" "$dir/spool"
chmod 700 "$dir/munge"
dd if=/dev/urandom of="$dir/munge/key" bs=128 count=1 2>/dev/null
chmod 400 "$dir/munge/key"
# --force: munged wants a socket that every user can reach, but there is one user here.
munged --force --key-file="$dir/munge/key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" 2>"$dir/munge/errors"

ports=$(python3 - <<'PYTHON'
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets:
    s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)
sed -e "s|@DIR@|$dir|g" -e "s|@HOST@|$(hostname -s)|g" -e "s|@USER@|$(id -un)|g" -e "s|@CPUS@|$(nproc)|g" \
    -e "s|@CONTROLLER_PORT@|${ports% *}|g" -e "s|@NODE_PORT@|${ports#* }|g" \
    "$here/slurm.conf.in" >"$dir/slurm.conf"
# slurmd loads a cgroup plugin even where nothing uses one, as here; that of v1 does not look for its mount then.
printf "CgroupPlugin=cgroup/v1\nCgroupMountpoint=%s/cgroup\n" "$dir" >"$dir/cgroup.conf"

SLURM_CONF=$dir/slurm.conf
export SLURM_CONF
slurmctld -f "$SLURM_CONF" >"$dir/slurmctld.out" 2>&1
slurmd -f "$SLURM_CONF" >"$dir/slurmd.out" 2>&1

seconds=30
until scontrol show node 2>/dev/null | grep -q "SlurmdStartTime=[0-9]"; do
    seconds=$((seconds - 1))
    if [ "$seconds" -eq 0 ]; then
        echo "The node did not come up. The ends of the logs in $dir:" >&2
        tail -n 5 "$dir"/slurmctld.out "$dir"/slurmd.out "$dir"/*.log "$dir/munge/log" >&2
        exit 1
    fi
    sleep 1
done
