"""What a step sends, how much of it is hidden, and how long steps take on 1, 2 and 4 gloo processes of this machine.

    taskset -c 0 python scripts/bench.py scaling                        # all processes on one core
    python scripts/bench.py scaling --ranks 1 2 --engines ddp --rounds 5 --json scaling.json

A ProGAN is trained at 32 pixels by advgen's own trainer. Per engine and number of processes, one training runs under
torch's profiler, which sees every collective of the backend with its shape and its time, whoever called it (DDP's
buckets, DeepSpeed, votes, scalars, statistics over the batch, the thread that writes checkpoints). Others, in rounds
that take turns, are timed without it. All-reduces of several sizes give bandwidth and latency, trainings of one process
the computation; from these alone the cost model (advgen/launch/scaling.py) says what the steps of several processes
should take, and the last table holds that against what they took. That is done twice: by the clock, and by the
processor time of all ranks together, which is the same on one idle core, and tells something on a busy one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.profiler import profile

from advgen.launch.scaling import (
    Collective,
    Kind,
    Link,
    Network,
    Work,
    fit_compute,
    fit_link,
    step_time,
    wire_bytes,
)
from scripts.benchmarks.measure import ROOT, parser_of
from scripts.benchmarks.scaling_traffic import WRITER, collectives, marked, new_profile, overlap, readiness

WARM, PERIOD = 10, 10  # steps; ranks vote, and scalars are logged, every tenth
KINDS: dict[str, Kind] = {"all_gather": "all_gather", "broadcast": "broadcast", "reduce": "reduce"}  # as gloo says it
CLOCKS = ("clock", "processor")
PING_BYTES = (8, 4096, 65536, 2**20, 2**22)


# -- one process ------------------------------------------------------------------------------------------------------


class Steps:
    """Watches a training: the time of each step, and a profile of one period of them."""

    def __init__(self, prof: profile | None) -> None:
        self.prof, self.done = prof, [_now()]

    def resumed(self, checkpoint: Path) -> None:
        """Never."""

    def warned(self, text: str) -> None:
        """Never."""

    def told(self, text: str) -> None:
        """Never."""

    def step(self, status: Any) -> None:
        """A step was done."""
        self.done.append(_now())
        if self.prof is not None and len(self.done) - 1 == WARM:
            self.prof.start()
        if self.prof is not None and len(self.done) - 1 == WARM + PERIOD:
            self.prof.stop()

    def periods(self) -> list[tuple[float, float]]:
        """Mean (clock, processor) seconds of a step in each whole period after the warm-up."""
        at = self.done[WARM::PERIOD]
        return [_per(PERIOD, a, b) for a, b in itertools.pairwise(at)]


def play(recipe: Path, profiled: bool) -> dict[str, Any]:
    """Train in this process group."""
    from advgen.build import build_trainer
    from advgen.config import load_recipe
    from advgen.runtime.preemption import StopRequest

    trainer, world = build_trainer(load_recipe(recipe))
    prof = new_profile() if profiled else None
    watch = Steps(prof)
    with marked():
        trainer.run(watch, StopRequest())
    networks = trainer.game.networks.items()
    found: dict[str, Any] = {"periods": watch.periods()}
    found["parameters"] = {name: sum(p.numel() for p in network.parameters()) for name, network in networks}
    if prof is not None:
        sent, places = collectives(prof, world.size)
        found["places"] = {place: [end - start for start, end in spans] for place, spans in places.items()}
        backwards = {place: spans for place, spans in places.items() if place.endswith(" backward")}
        found["sent"] = [{**asdict(each), "ready": readiness(each, backwards.get(each.at, ()))} for each in sent]
        own = {place: [each for each in sent if each.at == place] for place in backwards}
        found["overlap"] = {place: overlap(own[place], backwards[place]) for place in backwards if own[place]}
    return found


def ping(times: int = 10) -> list[tuple[int, tuple[float, float]]]:
    """(bytes, (clock, processor) seconds) of all-reduces among all processes."""
    found = []
    for size in PING_BYTES:
        values = torch.zeros(size // 4)
        dist.barrier()
        began = _now()
        for _ in range(times):
            dist.all_reduce(values)
        found.append((size, _per(times, began, _now())))
    return found


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _per(count: int, began: tuple[float, float], ended: tuple[float, float]) -> tuple[float, float]:
    return (ended[0] - began[0]) / count, (ended[1] - began[1]) / count


def work(folder: Path, name: str) -> None:
    """Play the cases of ``name``.json on this rank, and write what was found."""
    os.chdir(folder)
    results: dict[str, Any] = {}
    pings = []
    for case in json.loads((folder / f"{name}.json").read_text()):
        results[case["name"]] = play(folder / f"{case['name']}.yaml", case["profiled"])
        if dist.is_initialized() and dist.get_world_size() > 1:
            pings.append(ping())
    rank = os.environ.get("RANK", "0")
    (folder / f"{name}-{rank}.out.json").write_text(json.dumps({"results": results, "pings": pings}))


# -- all of them ------------------------------------------------------------------------------------------------------


def write_case(folder: Path, name: str, engine: str, batch: int, channels: int, profiled: bool, steps: int) -> None:
    """A ProGAN that trains at 32 pixels alone; the profiled one writes a checkpoint within its period."""
    recipe: dict[str, Any] = {
        "name": name,
        "data": {"resolution": 32, "train": {"shards": "shards"}},
        "game": {
            "kind": "progan",
            "latent_size": channels,
            "channels": {4: channels, 8: channels, 16: channels // 2, 32: channels // 4},
            "minibatch_group": 4,
            "batch_size": batch,
            "stabilize_kimg_by_resolution": {4: 0, 8: 0, 16: 0, 32: steps * batch / 1000},
            "fade_kimg": 0,
        },
        "training": {
            "device": "cpu",
            "threads": 1,
            "engine": engine,
            "checkpoint_kimg": (WARM + PERIOD // 2) * batch / 1000 if profiled else 1e6,
            "sample_kimg": 1e6,
            "sample_rows": 1,
            "sample_columns": 1,
            **({"ddp": {"bucket_mib": 1}} if engine == "ddp" else {}),
        },
        "tracking": {"wandb": "disabled"},
    }
    (folder / f"{name}.yaml").write_text(json.dumps(recipe))


def launch(folder: Path, ranks: int, name: str, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Play cases in ``ranks`` processes, and read what each found."""
    (folder / f"{name}.json").write_text(json.dumps(cases))
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "--standalone"] if ranks > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, str(ROOT / "scripts" / "bench.py"), "scaling", "--worker", str(folder), name]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{ranks} processes ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")
    return [json.loads((folder / f"{name}-{rank}.out.json").read_text()) for rank in range(ranks)]


def together(seconds: Sequence[Sequence[float]]) -> tuple[float, float]:
    """The clock of rank 0, and the processor time of all ranks, from each rank's (clock, processor)."""
    return seconds[0][0], sum(processor for _, processor in seconds)


def measure(folder: Path, ranks: list[int], engines: list[str], rounds: int, batch: int, channels: int) -> dict:
    """Everything, in rounds that take turns between the numbers of processes."""
    steps = WARM + 2 * PERIOD
    found: dict[str, Any] = {"periods": {}, "profiles": {}, "pings": {}}
    for turn in range(rounds):
        for size in ranks:
            cases = []
            # One process also plays the shares of more, for the line of computation.
            for images in sorted({batch // n for n in ranks}) if size == 1 else [batch]:
                for engine in engines:
                    for profiled in (False, True) if turn == 0 and size > 1 else (False,):
                        name = f"{engine}-{size}-{images}-{turn}{'-profiled' if profiled else ''}"
                        write_case(folder, name, engine, images, channels, profiled, steps)
                        cases.append({"name": name, "profiled": profiled})
            told = launch(folder, size, f"round-{size}-{turn}", cases)
            for name, result in told[0]["results"].items():
                engine, _, images, _, *profiled = name.split("-")
                found["parameters"] = result["parameters"]
                if profiled:
                    found["profiles"][f"{engine}-{size}"] = result
                    continue
                each = zip(*(rank["results"][name]["periods"] for rank in told), strict=True)
                found["periods"].setdefault(f"{engine}-{size}-{images}", []).extend(map(together, each))
            for pings in zip(*(rank["pings"] for rank in told), strict=True):
                for ranks_of_one in zip(*pings, strict=True):
                    number = str(ranks_of_one[0][0])
                    seconds = together([taken for _, taken in ranks_of_one])
                    found["pings"].setdefault(str(size), {}).setdefault(number, []).append(seconds)
    return found


# -- what was found ---------------------------------------------------------------------------------------------------


def traffic(profiles: dict[str, Any]) -> Iterator[str]:
    """Collectives of one period of steps, by what asked for them."""
    yield "| engine | ranks | at | collective | calls | bytes | sent by a rank |\n|---|---|---|---|---|---|---|"
    for name, result in profiles.items():
        engine, size = name.split("-")
        rows: dict[tuple[str, str], list[int]] = {}
        for each in result["sent"]:
            rows.setdefault((each["at"], each["kind"]), []).append(each["size"])
        for (at, kind), sizes in sorted(rows.items()):
            wire = wire_bytes(KINDS.get(kind, "all_reduce"), sum(sizes), int(size))
            yield f"| {engine} | {size} | {at} | {kind} | {len(sizes)} | {sum(sizes):,} | {wire:,.0f} |"


def overlaps(profiles: dict[str, Any]) -> Iterator[str]:
    """Where in a player's pass its gradients are reduced."""
    yield "| engine | ranks | player | reduced before the last bucket is ready | first bucket at | last at |"
    yield "|---|---|---|---|---|---|"
    for name, result in profiles.items():
        for place, values in result.get("overlap", {}).items():
            shares = " | ".join(f"{value:.0%}" for value in values)
            yield f"| {' | '.join(name.split('-'))} | {place.removesuffix(' backward')} | {shares} |"


def predictions(found: dict[str, Any], ranks: list[int], engines: list[str], batch: int, cores: int) -> list[dict]:
    """The step of several processes from the computation of one, the pings, and what was counted."""
    rows = []
    for engine, (clock, of_clock) in itertools.product(engines, enumerate(CLOCKS)):
        # Of processor time there is always as much as there are ranks, whatever the cores.
        shared = 1 if of_clock == "processor" else cores
        taken = {
            name: statistics.median(times[clock] for times in periods) for name, periods in found["periods"].items()
        }
        compute = fit_compute([(images, taken[f"{engine}-1-{images}"]) for images in shares(batch, ranks)])
        for size in ranks:
            link, works = Link(1.0, 0.0), [Work(1.0, [])]
            if size > 1:
                pings = found["pings"][str(size)].items()
                link = fit_link([(int(n), statistics.median(t[clock] for t in times)) for n, times in pings], size)
                works = works_of(found["profiles"][f"{engine}-{size}"])
            told = step_time(compute, works, Network(link, link), size, batch / size, shared)
            measured = taken[f"{engine}-{size}-{batch}"]
            times = {"measured": measured, "predicted": told.seconds, "compute": told.compute, "exposed": told.exposed}
            rows.append({"engine": engine, "ranks": size, "clock": of_clock, **times, "link": asdict(link)})
    return rows


def works_of(profiled: dict[str, Any]) -> list[Work]:
    """Each place of the trainer with its share of the time, and what it sent; checkpoints left out."""
    by_place: dict[str, list[Collective]] = {place: [] for place in profiled["places"]}
    for each in profiled["sent"]:
        sent = Collective(KINDS.get(each["kind"], "all_reduce"), each["size"], each["ready"], every=PERIOD)
        by_place.setdefault(each["at"], []).append(sent)
    # Batch statistics are taken inside the passes, whose time they must not count twice.
    spent = {place: sum(times) for place, times in profiled["places"].items() if place.endswith(("backward", "update"))}
    whole = sum(spent.values())
    return [
        Work(spent.get(place, 0.0) / whole, sent)
        for place, sent in by_place.items()
        if place not in ("checkpoint", WRITER)
    ]


def shares(batch: int, ranks: list[int]) -> list[int]:
    """Images of a rank, for each number of ranks."""
    return sorted({batch // size for size in ranks})


def check(rows: list[dict]) -> Iterator[str]:
    """Predicted and measured steps."""
    yield "| engine | ranks | time | measured | predicted | computing | communicating | error | all-reduce |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for row in rows:
        times = " | ".join(f"{row[name] * 1e3:.1f} ms" for name in ("measured", "predicted", "compute", "exposed"))
        link = f"{row['link']['bytes_per_second'] / 1e6:.0f} MB/s, {row['link']['latency_seconds'] * 1e6:.0f} us a hop"
        told = link if row["ranks"] > 1 else ""
        error = row["predicted"] / row["measured"] - 1
        yield f"| {row['engine']} | {row['ranks']} | {row['clock']} | {times} | {error:+.1%} | {told} |"


def main(arguments: list[str]) -> None:
    """Measure and print."""
    parser = parser_of("scaling", __doc__)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "NAME"), help=argparse.SUPPRESS)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="1 must be among them")
    parser.add_argument("--engines", nargs="+", default=["ddp", "zero1", "zero2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="of all ranks together")
    parser.add_argument("--channels", type=int, default=128, help="at 4 and 8 pixels; half at 16, a quarter at 32")
    given = parser.parse_args(arguments)
    if given.worker:
        work(Path(given.worker[0]), given.worker[1])
        return
    if 1 not in given.ranks or any(given.batch % size for size in given.ranks):
        parser.error("--ranks needs 1 among them, and each of them a divisor of --batch")
    from advgen.files import write_json
    from tests.distributed.runs import make_shards

    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="scaling-") as place:
        make_shards(Path(place), resolution=32)
        found = measure(Path(place), given.ranks, given.engines, given.rounds, given.batch, given.channels)
    rows = predictions(found, given.ranks, given.engines, given.batch, cores)
    machine = f"{platform.machine()} CPU, {cores} core(s), one thread a process, torch {torch.__version__}"
    if given.json is not None:
        write_json(given.json, {"machine": machine, "command": sys.argv, **found, "check": rows})
    millions = ", ".join(f"{name} {count / 1e6:.2f} million" for name, count in found["parameters"].items())
    print(f"{machine}; batch {given.batch}; parameters: {millions}; {given.rounds} round(s).\n")
    print(f"{PERIOD} steps, one vote, one logged step and one checkpoint among them; of one rank:\n")
    for table in (traffic(found["profiles"]), overlaps(found["profiles"]), check(rows)):
        print("\n".join(table), end="\n\n")
