"""What the benchmarks share: the machine, turns of contenders, medians, ratios with their interval, Markdown, JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from advgen.files import write_json

ROOT = Path(__file__).parents[2]
Result = TypeVar("Result")
_PACKAGES = ("torch", "torchvision", "accelerate", "deepspeed", "numpy", "scipy", "pillow", "simplejpeg")


def with_json() -> argparse.ArgumentParser:
    """What every benchmark takes: a parent of its parser."""
    parser = argparse.ArgumentParser(add_help=False)
    what = "write machine, versions, command and all raw figures"
    parser.add_argument("--json", type=Path, metavar="FILE", help=what)
    return parser


def parser_of(name: str, text: str | None, parts: bool = False) -> argparse.ArgumentParser:
    """A parser of ``bench.py NAME`` with a module's docstring as help.

    Args:
        name: of the benchmark.
        text: the docstring.
        parts: whether it has commands of its own, whose parsers then have :func:`with_json` as their parent.
    """
    return argparse.ArgumentParser(
        prog=f"bench.py {name}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[] if parts else [with_json()],
    )


def command(name: str, *arguments: object) -> list[str]:
    """A benchmark as a process of its own, for those that must measure from outside."""
    return [sys.executable, str(ROOT / "scripts" / "bench.py"), name, *map(str, arguments)]


# -- figures --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spread:
    """Some measurements of one thing: their median, and how far they lie apart."""

    median: float
    least: float
    most: float

    def show(self, form: str = ".3g", factor: float = 1.0) -> str:
        """``median (least to most)``, each times ``factor``."""
        low, high = sorted((factor * self.least, factor * self.most))
        return f"{factor * self.median:{form}} ({low:{form}} to {high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one measurement."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Ratio:
    """The ratio of two things measured in pairs.

    Attributes:
        mean: exp of the mean of the logarithms of the pairs' ratios.
        low, high: its 95 % interval by Student's t; 0 and infinity with one pair.
        median: of the pairs' ratios.
        pairs: how many.
    """

    mean: float
    low: float
    high: float
    median: float
    pairs: int

    def show(self) -> str:
        """``mean (low to high)``, or the mean alone where one pair gives no interval."""
        if self.pairs == 1:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def ratio_of(upper: Sequence[float], lower: Sequence[float]) -> Ratio:
    """Of pairs measured one after the other, so that what disturbs the machine for longer disturbs both."""
    from scipy.stats import t

    logs = [math.log(a / b) for a, b in zip(upper, lower, strict=True)]
    mean, middle = statistics.fmean(logs), math.exp(statistics.median(logs))
    if len(logs) == 1:
        return Ratio(math.exp(mean), 0.0, math.inf, middle, 1)
    width = float(t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - width), math.exp(mean + width), middle, len(logs))


def in_turns(works: Mapping[str, Callable[[], Result]], rounds: int, warm: int = 0) -> dict[str, list[Result]]:
    """What each of the works returns, round by round; who begins changes from round to round.

    Args:
        works: by name; each returns its measurement, seconds say.
        rounds: how many measurements of each.
        warm: further rounds before, which do not count.
    """
    names = list(works)
    found: dict[str, list[Result]] = {name: [] for name in works}
    for turn in range(-warm, rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            value = works[name]()
            if turn >= 0:
                found[name].append(value)
    return found


def seconds(work: Callable[[], object]) -> float:
    """By the clock."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def timed(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """Its result, seconds by the clock, and seconds of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - clock, time.process_time() - processor


class Laps:
    """Shares out what a clock counts among the names of a stretch's parts.

    Args:
        now: reads the clock.
        between: of two readings.
    """

    def __init__(self, now: Callable[[], Any], between: Callable[[Any, Any], float]) -> None:
        self.now, self.between = now, between
        self._marks: list[tuple[str, Any]] = []

    def start(self) -> None:
        """The stretch begins."""
        self._marks = [("", self.now())]

    def lap(self, name: str) -> None:
        """What has passed since the last call belongs to ``name``."""
        self._marks.append((name, self.now()))

    def read(self) -> dict[str, float]:
        """The sums by name since :meth:`start`."""
        sums: dict[str, float] = {}
        for (_, before), (name, after) in zip(self._marks, self._marks[1:], strict=False):
            sums[name] = sums.get(name, 0.0) + self.between(before, after)
        return sums


# -- the machine ----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory, GPUs, versions; no name of the machine and no path."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = os.getloadavg()[0]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _line("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpus": _gpus(),
        "load_at_start": round(load, 2),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def _line(path: str, key: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), platform.processor())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    # A benchmark without torch is not made to wait for it.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _commit() -> str | None:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or None


class Report:
    """Prints what is found as Markdown while it is found; writes all raw figures as JSON at the end.

    Attributes:
        figures: whatever can be JSON, by name; raw measurements and what was made of them.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._path: Path | None = given.json
        self._settings = {name: value for name, value in vars(given).items() if name != "json"}
        self._machine = machine()
        self.figures: dict[str, Any] = {}

    def __enter__(self) -> Report:
        about, versions = self._machine, self._machine["versions"]
        parts = [about["system"], about["processor"], f"{about['cores']} cores", *about["gpus"]]
        parts += [f"Python {about['python']}", *(f"{name} {versions[name]}" for name in ("torch",) if name in versions)]
        self.say(", ".join(parts) + f"; load {about['load_at_start']:.1f} at the start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._path is not None:
            what = {"command": shlex.join(["bench.py", *sys.argv[1:]]), "settings": self._settings}
            write_json(self._path, _plain({**what, "machine": self._machine, "figures": self.figures}))

    def say(self, text: str) -> None:
        """A paragraph."""
        print(f"{text}\n", flush=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table."""
        lines = [columns, ["---"] * len(columns), *rows]
        self.say("\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines))


def _plain(value: Any) -> Any:
    """As JSON has it: no tuples, paths or dataclasses; None for what is not finite."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value
