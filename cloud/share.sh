#!/usr/bin/env bash
# Mounts a folder of another machine over SSH, and prints where:
#
#   cloud/share.sh HOST FOLDER MOUNTPOINT
#
# For machines that have no file system in common but reach one another by SSH (SSH_PORT, SSH_KEY where they are not those of
# ~/.ssh). The folder is made if it is not there. Nothing is kept of what was read: another machine's files are seen at once.
set -euo pipefail

if (($# != 3)); then
    echo "usage: cloud/share.sh HOST FOLDER MOUNTPOINT" >&2
    exit 2
fi
host=$1 folder=$2 mountpoint=$3

# SkyPilot gives all machines of a job one key.
key=${SSH_KEY:-}
[[ -z $key && -f ~/.ssh/sky-cluster-key ]] && key=~/.ssh/sky-cluster-key
options=(-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ServerAliveInterval=15)
[[ -n $key ]] && options+=(-o "IdentityFile=$key")
[[ -n ${SSH_PORT:-} ]] && options+=(-o "Port=$SSH_PORT")

mkdir -p -- "$mountpoint"
if ! mountpoint --quiet -- "$mountpoint"; then
    for pause in 1 2 4 8 16 32 0; do # the other machine may be a little later
        # shellcheck disable=SC2029 # the folder's name is to be quoted here
        ssh "${options[@]}" "$host" "mkdir -p -- ${folder@Q}" && break
        ((pause)) || exit 1
        sleep "$pause"
    done
    sshfs "${options[@]}" -o reconnect -o dir_cache=no -o attr_timeout=0 -o entry_timeout=0 -o negative_timeout=0 \
        "$host:$folder" "$mountpoint"
fi
printf '%s\n' "$mountpoint"
