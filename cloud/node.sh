#!/usr/bin/env bash
# The ranks of one machine under torchrun, started again as long as they ask for it. On each of the machines:
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 PROCESSES=8 cloud/node.sh RECIPE [--flag value ...]
#
# NODES machines, of which this is NODE_RANK (from 0); machine 0 has the address MASTER_ADDR and the free port MASTER_PORT
# (29500). PROCESSES ranks here, one a GPU. All machines see one run folder; ADVGEN_RUN names it, so that a restart that
# trained nothing is told from others. ADVGEN is the command (advgen).
#
# Ranks that stopped with a checkpoint (exit code 85) or lost another machine (71, 75, and 134 where NCCL aborts them) are started again, but no more than
# MAX_FRUITLESS (5) times in a row without a newer checkpoint. On SIGTERM, SIGINT and SIGUSR1 all ranks of all machines write
# one and leave; this machine then ends with 143, and the others wait for it. Any other code is the ranks' own, as 2 for
# bad input.
set -uo pipefail

if (($# == 0)); then
    echo "usage: NODES=2 NODE_RANK=0 MASTER_ADDR=HOST PROCESSES=8 cloud/node.sh RECIPE [--flag value ...]" >&2
    exit 2
fi

# A signal interrupts wait; the process is not done because of it. A second wait for what has ended says 127.
await() {
    local status
    code=0
    while true; do
        signalled=0
        wait "$1"
        status=$?
        ((status == 127)) || code=$status
        ((signalled)) || break
    done
}

# torchrun ends with 1 whatever a rank's code was, and on a SIGTERM of its own leaves the ranks 30 seconds. So it starts this
# script for each rank, which notes the process and its exit code in a folder, and signals go to the processes.
if [[ -n ${ADVGEN_RANKS:-} ]]; then
    trap 'signalled=1' TERM INT USR1 # torchrun signals whole groups; the shell is to outlive the rank
    [[ -e $ADVGEN_RANKS/stop ]] && exit 143
    "${ADVGEN:-advgen}" train "$@" &
    echo "$!" >"$ADVGEN_RANKS/$LOCAL_RANK.pid"
    await "$!"
    echo "$code" >"$ADVGEN_RANKS/$LOCAL_RANK.code"
    exit "$code"
fi

ADVGEN_RANKS=$(mktemp -d)
export ADVGEN_RANKS
trap 'rm -rf -- "$ADVGEN_RANKS"' EXIT

# shellcheck disable=SC2329 # called by the trap
stop() {
    local file
    signalled=1
    : >"$ADVGEN_RANKS/stop"
    for file in "$ADVGEN_RANKS"/*.pid; do
        [[ -e $file ]] && kill -USR1 "$(<"$file")" 2>/dev/null
    done
}
trap stop TERM INT USR1

ended_with() { grep -qsxE "$1" "$ADVGEN_RANKS"/*.code; }
newest() { [[ -n ${ADVGEN_RUN:-} ]] && cat -- "$ADVGEN_RUN/checkpoints/latest" 2>/dev/null; }

restarts=0 fruitless=0
while [[ ! -e $ADVGEN_RANKS/stop ]]; do
    rm -f -- "$ADVGEN_RANKS"/*.pid "$ADVGEN_RANKS"/*.code
    before=$(newest)
    # A session of its own, out of reach of the terminal's Ctrl-C.
    setsid torchrun --nnodes "${NODES:-1}" --node-rank "${NODE_RANK:-0}" --nproc-per-node "${PROCESSES:-1}" \
        --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "${MASTER_PORT:-29500}" --no-python "$0" "$@" &
    await "$!"
    ((code == 0)) && exit 0
    # A rank that failed by itself comes first: those that were stopped because of it have codes of their own.
    own=$(grep -hvxE '71|75|85|130|134|138|143' "$ADVGEN_RANKS"/*.code 2>/dev/null | head -n 1)
    [[ -n $own ]] && exit "$own"
    if [[ $(newest) != "$before" ]]; then fruitless=0; else ((++fruitless)); fi
    ((fruitless <= ${MAX_FRUITLESS:-5})) || break
    if [[ ! -e $ADVGEN_RANKS/stop ]]; then
        echo "cloud/node.sh: restart $((++restarts)), $fruitless in a row without a newer checkpoint" >&2
        ended_with 85 || sleep "${PAUSE_SECONDS:-10}" # time for what was lost to come back
    fi
done
[[ -e $ADVGEN_RANKS/stop ]] && exit 143
ended_with 85 && exit 85
exit 75
