#!/usr/bin/env bash
# A recipe from images to report on several machines. On each of them, with the variables of node.sh beside it:
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PROCESSES=8 STAGES="shard train evaluate report" cloud/stages.sh RECIPE
#
# Machine 0 writes the shards, all of them train, machine 0 evaluates and reports; what is done is skipped. SHARDS names the
# folders of shards, parted by colons: the other machines wait for them.
set -uo pipefail

if (($# != 1)); then
    echo "usage: NODES=2 NODE_RANK=0 MASTER_ADDR=HOST PROCESSES=8 cloud/stages.sh RECIPE" >&2
    exit 2
fi
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

first() { ((${NODE_RANK:-0} == 0)); }
wanted() { [[ " ${STAGES:-shard train evaluate report} " == *" $1 "* ]]; }
# An operator's RANK and WORLD_SIZE count machines; a stage of one process is to see none.
alone() { env -u RANK -u WORLD_SIZE "${ADVGEN:-advgen}" run "$recipe" --only "$1"; }

recipe=$1
if first; then
    if wanted shard; then alone shard || exit; fi
else
    IFS=: read -ra folders <<<"${SHARDS:-}"
    for folder in ${folders[@]+"${folders[@]}"}; do
        until [[ -e $folder/manifest.json ]]; do sleep 5; done
    done
fi

if wanted train; then
    "$here/node.sh" "$recipe" &
    training=$!
    signalled=0
    trap 'signalled=1; kill -TERM "$training" 2>/dev/null' TERM INT USR1
    code=0
    while true; do # as in node.sh
        signalled=0
        wait "$training"
        status=$?
        ((status == 127)) || code=$status
        ((signalled)) || break
    done
    trap - TERM INT USR1
    ((code == 0)) || exit "$code"
fi

if first; then
    for stage in evaluate report; do
        if wanted "$stage"; then alone "$stage" || exit; fi
    done
fi
