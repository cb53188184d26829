"""Several runs read for one comparison: what they were, how they went, what came of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any

from advgen.errors import UserError
from advgen.report.data import CROSSES, Run, read_run
from advgen.report.measured import Figure, Value, best_of, finals, histories, titles
from advgen.report.run_state import RunState, find_runs, state_of
from advgen.report.settings import differing, group_names, method_of, settings_of
from advgen.report.symptoms import Symptom, symptoms_of
from advgen.report.verdict import Judgement, Sample, judge, ranked


@dataclass(frozen=True)
class Cost:
    """What a run has taken, as logged: time in steps, without samples, checkpoints and evaluation.

    Attributes:
        seconds: of the clock; NaN where nothing was logged.
        device_hours: hours times devices; NaN where run.json does not tell.
        unit: "GPU-hours" or "core-hours"; empty where it is not known.
        seconds_per_kimg: NaN where nothing was logged.
    """

    seconds: float
    device_hours: float
    unit: str
    seconds_per_kimg: float


@dataclass(frozen=True)
class Compared:
    """One run among others.

    Attributes:
        name: that no other run has.
        group: the name of those that differ in nothing but the seed.
        settings: by dotted names.
        state: None for a run that lies in no folder here.
        history: what was measured, by images seen.
    """

    run: Run
    name: str
    group: str
    settings: Mapping[str, Any]
    state: RunState | None
    cost: Cost
    history: Mapping[Figure, Sequence[Value]]
    symptoms: Sequence[Symptom]

    def final(self, figure: Figure) -> Value | None:
        """The newest value."""
        values = self.history.get(figure)
        return values[-1] if values else None

    def best(self, figure: Figure) -> Value | None:
        """The best value along the way."""
        values = self.history.get(figure)
        return best_of(figure, values) if values else None


@dataclass(frozen=True)
class Contest:
    """Groups that were measured alike.

    Attributes:
        title: short, that no other figure has.
        differs: in what it differs from others of its name; empty for the only one.
        samples: by group, the best first.
        judgements: of all groups but the first; none where it is not known which values are good.
    """

    figure: Figure
    title: str
    differs: str
    samples: Sequence[Sample]
    judgements: Sequence[Judgement]


@dataclass(frozen=True)
class Comparison:
    """All that is shown.

    Attributes:
        runs: by name.
        differing: settings that are not the same in all runs.
        contests: one a figure.
        notes: what is missing or to be read with care.
    """

    runs: Sequence[Compared]
    differing: Sequence[str]
    contests: Sequence[Contest]
    notes: Sequence[str] = field(default_factory=list)

    @property
    def groups(self) -> list[str]:
        """Each once, in the order of the runs."""
        return list(dict.fromkeys(run.group for run in self.runs))


def places(words: Sequence[str]) -> list[Path]:
    """Run folders of words that each name one, a folder of some, or several by a pattern such as ``runs/ali-*``.

    Raises:
        UserError: a word names none.
    """
    found: dict[Path, Path] = {}
    for word in words:
        named = [Path(word)] if Path(word).exists() else [Path(path) for path in sorted(glob(word, recursive=True))]
        runs = [run for path in named for run in find_runs(path)]
        if not runs:
            raise UserError(
                f"{word}: names no run folder, and no folder that holds one. Name folders that training has made, "
                "such as runs/NAME, or all of them: runs."
            )
        for run in runs:
            found.setdefault(run.resolve(), run)  # by two names it would be two seeds
    return list(found.values())


def read_runs(folders: Sequence[Path]) -> tuple[list[tuple[Run, RunState | None]], list[str]]:
    """Read run folders; one in which nothing is logged yet is left out, and told of."""
    read: list[tuple[Run, RunState | None]] = []
    notes: list[str] = []
    for folder in folders:
        try:
            read.append((read_run(folder), state_of(folder)))
        except UserError as error:
            notes.append(f"Left out: {error}")
    if not read:
        raise UserError("Nothing to compare. " + " ".join(notes))
    return read, notes


def compare(read: Sequence[tuple[Run, RunState | None]], notes: Sequence[str] = ()) -> Comparison:
    """Set runs against one another."""
    names = _names([run.folder for run, _ in read])
    settings = [settings_of(run.config) for run, _ in read]
    # A recipe that cannot be read says of no other run that it differs in nothing but the seed.
    methods = [method_of(each) or {"config.yaml": name} for each, name in zip(settings, names, strict=True)]
    groups = group_names(methods, names)
    runs = [
        Compared(run, name, group, own, state, _cost(run), histories(run.metrics), symptoms_of(run))
        for (run, state), name, group, own in zip(read, names, groups, settings, strict=True)
    ]
    runs.sort(key=lambda each: each.name)
    figures = finals([each.history for each in runs])
    named = titles(figures)
    contests = [_contest(figure, *named[figure], runs) for figure in figures]
    return Comparison(runs, differing(settings), contests, [*notes, *_notes(runs)])


def _contest(figure: Figure, title: str, differs: str, runs: Sequence[Compared]) -> Contest:
    members: dict[str, list[Value]] = {}
    for run in runs:
        if (value := run.final(figure)) is not None:
            members.setdefault(run.group, []).append(value)
    samples = ranked(figure, [Sample(group, tuple(values)) for group, values in members.items()])
    return Contest(figure, title, differs, samples, judge(samples) if figure.better else [])


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, with as much of their paths as tells them apart."""
    parts = [folder.absolute().parts for folder in folders]
    depth = 1
    while len({part[-depth:] for part in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _cost(run: Run) -> Cost:
    clock = run.elapsed.points()
    seconds = run.seconds or math.nan
    per_kimg = 1000 * clock[-1][1] / clock[-1][0] if clock and clock[-1][0] else math.nan
    device, ranks, threads = (run.provenance.get(key) for key in ("device", "world_size", "threads"))
    if not isinstance(ranks, int) or not isinstance(device, str):
        return Cost(seconds, math.nan, "", per_kimg)
    on_cpu = device.startswith("cpu")
    each = threads if on_cpu and isinstance(threads, int) else 1
    unit = "GPU-hours" if not on_cpu else "core-hours"
    return Cost(seconds, seconds * ranks * each / 3600, unit, per_kimg)


def _notes(runs: Sequence[Compared]) -> list[str]:
    notes = [
        f"{run.name}: {note.removesuffix(CROSSES)}"
        for run in runs
        for note in run.run.notes
        if not note.startswith("The log is long")
    ]
    notes += [
        f"{run.name}: is still being written; its figures are those of now."
        for run in runs
        if run.state is not None and run.state.state == "running"
    ]
    for group in dict.fromkeys(run.group for run in runs):
        members = [run for run in runs if run.group == group]
        for key, what in (("commit", "commits"), ("manifest", "data (manifests)")):
            found = {str(run.run.provenance[key])[:12] for run in members if run.run.provenance.get(key)}
            if len(found) > 1:
                notes.append(f"Runs of the group “{group}” are of different {what}: {', '.join(sorted(found))}.")
        seeds = [run.settings.get("seed") for run in members]
        if len(set(map(str, seeds))) < len(seeds):
            notes.append(f"Several runs of the group “{group}” share a seed, and are no independent repetitions.")
    if any(not run.settings for run in runs):
        notes.append("Some runs have a config.yaml that cannot be read: each is a group of its own.")
    return notes
