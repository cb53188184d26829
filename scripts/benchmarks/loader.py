"""Images a second of advgen's loader, of three others, and of decoding alone; first batch and resume in a large set.

    python scripts/bench.py loader                  # without mosaicml-streaming, unless it is installed
    python scripts/bench.py loader --rounds 5 --seconds 8

mosaicml-streaming wants older packages than advgen: an environment of its own has both (docs/results/data.md).

Every figure is taken by a process of its own, on the same two cores and the same images, which stay in the page cache;
the processes take turns, round after round, and the medians are compared. Two cases:

* 256: JPEGs of 256 pixels become tensors of 128 pixels, flipped at random and shuffled;
* 1024: JPEGs of 1024 pixels become tensors of 64 pixels.

The others run as their documentation shows (Pillow, torchvision's transforms, float tensors), and once more with
advgen's decoder (simplejpeg, means over blocks, bytes), and on images that were shrunk before. advgen's cache of
decoded images is off: here it would hold all of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advgen.data.loader import Loader
from advgen.data.stream import ImageStream
from scripts.benchmarks import loader_peers as peers
from scripts.benchmarks.loader_large import large
from scripts.benchmarks.measure import Report, command, in_turns, parser_of, spread

CORES = 2
WARM_SECONDS = 2.0


def ours(folder: Path, case: peers.Case, size: int, form: str, threads: int, workers: int) -> Iterator[Any]:
    """advgen's own loader."""
    location = folder / f"shards-{size}-{form}"
    stream = ImageStream(location, seed=0, resolution=size, channels=3, mirror=True, cache_bytes=0)
    starts = iter(range(0, 1 << 40, peers.BATCH))
    requests = ((np.arange(start, start + peers.BATCH), case.wanted) for start in starts)
    with Loader(stream, requests, threads=threads, workers=workers, ahead=2 if workers else 4) as batches:
        for samples in batches:
            yield samples.images


def variants(case: peers.Case) -> list[str]:
    """What is measured: kind/of which images/with what."""
    names = ["limit/full", "limit/small"]
    names += [f"advgen/{form}/{how}" for form in ("auto", "none", "small") for how in ("threads", "workers")]
    found = [name for name in peers.PEERS if name != "mosaicml-streaming" or importlib.util.find_spec("streaming")]
    names += [f"{name}/{size}/{how}" for name in found for size in ("full", "small") for how in ("documented", "same")]
    return names


def batches_of(name: str, folder: Path, case: peers.Case) -> Iterator[Any]:
    """The endless batches of a variant."""
    kind, *rest = name.split("/")
    if kind == "limit":
        return peers.limit(folder, case, case.stored if rest[0] == "full" else case.wanted)
    if kind == "advgen":
        size = case.wanted if rest[0] == "small" else case.stored
        form = "none" if rest[0] == "small" else rest[0]
        threads, workers = (CORES, 0) if rest[1] == "threads" else (0, CORES)
        return ours(folder, case, size, form, threads, workers)
    return peers.PEERS[kind](folder, case, case.stored if rest[0] == "full" else case.wanted, rest[1] == "same")


def one(name: str, folder: Path, case: peers.Case, seconds: float) -> float:
    """Images a second of one variant in this process."""
    torch.set_num_threads(1)
    batches = batches_of(name, folder, case)
    start = time.perf_counter()
    while time.perf_counter() - start < WARM_SECONDS:
        next(batches)
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += len(next(batches))
    return count / spent


def measured(name: str, folder: Path, case: str, seconds: float) -> float:
    """The same in a process of its own; the limit is a process for each core."""
    own = command("loader", "--one", name, "--folder", folder, "--case", case, "--seconds", seconds)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    many = CORES if name.startswith("limit") else 1
    running = [subprocess.Popen(own, stdout=subprocess.PIPE, env=env, text=True) for _ in range(many)]
    told = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit(f"{name} failed")
    return sum(float(text.split()[-1]) for text in told)


def ratios(middle: Mapping[str, float]) -> dict[str, float]:
    """What a case's medians come to."""

    def best(*ends: str) -> float:
        others = [rate for name, rate in middle.items() if name.split("/", 1)[1] in ends]
        return max(others)

    def own(form: str) -> float:
        return max(middle[f"advgen/{form}/threads"], middle[f"advgen/{form}/workers"])

    return {
        "advgen / best as documented": own("auto") / best("full/documented"),
        "advgen / best with the same decoder": own("auto") / best("full/same"),
        "advgen without levels / best as documented": own("none") / best("full/documented"),
        "advgen without levels / best with the same decoder": own("none") / best("full/same"),
        "advgen / best on shrunk images, as documented": own("auto") / best("small/documented"),
        "advgen / best on shrunk images, same decoder": own("auto") / best("small/same"),
        "advgen without levels / limit": own("none") / middle["limit/full"],
        "advgen on shrunk images / limit on them": own("small") / middle["limit/small"],
        "seconds for a sample of a level / for one of a set sharded at that size": own("small") / own("auto"),
    }


def compare(report: Report, folder: Path, name: str, only: str, rounds: int, seconds: float) -> None:
    """Measure the variants of a case in turns, and tell."""
    case = peers.CASES[name]
    if not folder.is_dir():
        peers.make_images(folder, case)

    def work(each: str) -> Callable[[], float]:
        return lambda: measured(each, folder, name, seconds)

    rates = in_turns({each: work(each) for each in variants(case) if only in each}, rounds)
    spreads = {each: spread(values) for each, values in rates.items()}
    report.say(f"{case.images:,} JPEGs of {case.stored} px -> {case.wanted} px, batches of {peers.BATCH}")
    rows = [[each, *(f"{v:,.0f}" for v in (s.median, s.least, s.most))] for each, s in spreads.items()]
    report.table(["what", "images/s", "least", "most"], rows)
    report.figures[name] = {"images_per_second": rates}
    if not only:
        found = report.figures[name]["ratios"] = ratios({each: s.median for each, s in spreads.items()})
        report.say("\n".join(f"* {what}: {ratio:.2f}" for what, ratio in found.items()))


def main(arguments: Sequence[str]) -> None:
    """Measure, or be one of the measured processes."""
    parser = parser_of("loader", __doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--case", choices=[*peers.CASES, "large"], default=None, help="only this one")
    parser.add_argument("--only", default="", help="only variants whose name holds this")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where the images are, or are made; else a temporary one")
    given = parser.parse_args(arguments)
    if given.one:
        print(one(given.one, given.folder, peers.CASES[given.case], given.seconds), flush=True)
        os._exit(0)  # some loaders' processes are slow to end
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    with Report(given) as report, tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary)
        for name in peers.CASES:
            if given.case in (None, name):
                compare(report, root / name, name, given.only, given.rounds, given.seconds)
        if given.case in (None, "large"):
            large(report, root / "large")
