"""Runs that W&B keeps, in the form of run folders; pictures, run.json and protocols of metrics are not read there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
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
    found = [run_of(remote) for remote in remote_runs(path, wanted)]
    if not found:
        raise UserError(f"--wandb {path}: no run there agrees with the filter {filters}.")
    return [(run, None) for run in found]


def run_of(remote: RemoteRun) -> Run:
    """A run of W&B. What its evaluation logged, such as ``fid/256``, becomes metrics without a protocol."""
    config = {key: value for key, value in remote.config.items() if not key.startswith("_")}
    run = Run(Path(f"{remote.name}-{remote.id}"), config=yaml.safe_dump(config))
    for record in remote.scan_history():
        nimg = as_whole(record.get("nimg"))
        if nimg is None:
            continue
        run.nimg = max(run.nimg, nimg)
        _add(run, record, nimg)
    return run


def _add(run: Run, record: Mapping[str, Any], nimg: int) -> None:
    seconds = as_number(record.get("_runtime"))
    if seconds is not None and math.isfinite(seconds):
        run.elapsed.add(nimg, seconds)
        run.seconds = seconds
    for name, raw in record.items():
        value = as_number(raw)
        if name.startswith("_") or name == "nimg" or value is None:
            continue
        metric, _, resolution = name.rpartition("/")
        if metric and resolution.isdecimal():
            run.metrics.append(Metric(metric, value, nimg, "", "", int(resolution), dict(_NO_PROTOCOL), None))
        elif name == _SPEED:
            run.rate.add(nimg, value)
        else:
            run.curves.setdefault(name, Curve()).add(nimg, value)
