"""Runs that W&B keeps, in the form of run folders; pictures and protocols of metrics are not read there.

A run folder is two runs there, its training and its evaluation (:mod:`advgen.runtime.wandb_run`): they are one again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from advgen.errors import UserError
from advgen.report.data import Curve, Metric, Run
from advgen.report.lines import as_number, as_whole
from advgen.report.run_state import RunState
from advgen.runtime.wandb_runs import RemoteRun, remote_runs

_SPEED = "speed/images_per_second"
_NO_PROTOCOL = {"protocol": "not kept by W&B"}


def read_remote(path: str, filters: str) -> list[tuple[Run, RunState | None]]:
    """The runs of a W&B project.

    Args:
        path: ``entity/project``.
        filters: a JSON object in W&B's form.

    Raises:
        UserError: the filter is none, nothing is found, or W&B does not answer.
    """
    try:
        wanted = json.loads(filters)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        raise UserError(f'--filter {filters}: is no JSON object, such as {{"group": "ali"}}.')
    found = joined(remote_runs(path, wanted))
    if not found:
        raise UserError(f"--wandb {path}: no run there agrees with the filter {filters}.")
    return [(run, None) for run in found]


def joined(remotes: Iterable[tuple[RemoteRun, Iterable[Mapping[str, Any]]]]) -> list[Run]:
    """Runs of W&B, the metrics of an evaluation with the training that it is of, where that is among them."""
    trained: dict[str, Run] = {}
    evaluated: list[tuple[str, Run]] = []
    for remote, history in remotes:
        run = run_of(remote, history)
        if (training := remote.config.get("training_run")) is None:
            trained[remote.id] = run
        else:
            evaluated.append((training, run))
    alone = []
    for training, run in evaluated:
        if training in trained:
            trained[training].metrics += run.metrics
            trained[training].wandb_ids += run.wandb_ids
        else:
            alone.append(run)
    return [*trained.values(), *alone]


def run_of(remote: RemoteRun, history: Iterable[Mapping[str, Any]]) -> Run:
    """A run of W&B. What its evaluation logged, such as ``fid/256``, becomes metrics without a protocol.

    Its configuration is the recipe, and two things of :func:`advgen.runtime.wandb_run.about` that are no settings:
    ``run``, which is run.json, and ``training_run``.
    """
    config = {key: value for key, value in remote.config.items() if not key.startswith("_") and key != "training_run"}
    session = config.pop("run", None)
    run = Run(Path(f"{remote.name}-{remote.id}"), config=yaml.safe_dump(config), wandb_ids=(remote.id,))
    run.provenance = dict(session) if isinstance(session, Mapping) else {}
    read_at = 0
    for record in history:
        nimg, rate = as_whole(record.get("nimg")), as_number(record.get(_SPEED))
        if nimg is None:
            continue
        _add(run, record, nimg)
        run.nimg = max(run.nimg, nimg)
        if rate is not None and 0 < rate < math.inf:
            # By W&B's own clock rows that a resumed run or `advgen sync` sends later are of the time of the sending.
            run.seconds += max(0, nimg - read_at) / rate
            run.elapsed.add(nimg, run.seconds)
            read_at = nimg
    return run


def _add(run: Run, record: Mapping[str, Any], nimg: int) -> None:
    for name, raw in record.items():
        value = as_number(raw)
        if name.startswith("_") or name == "nimg" or raw is None or value is None:
            continue
        metric, _, resolution = name.rpartition("/")
        if metric and resolution.isdecimal():
            run.metrics.append(Metric(metric, value, nimg, "", "", int(resolution), dict(_NO_PROTOCOL), None))
        elif name == _SPEED:
            run.rate.add(nimg, value)
        else:
            run.curves.setdefault(name, Curve()).add(nimg, value)
