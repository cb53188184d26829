"""Memory of a rank under each engine, for a pair of networks of 100 million parameters in all.

    python scripts/bench.py memory [--ranks 2]

Each rank is a process; what is told is the most memory it ever had in use (VmHWM), and the same without what a
process with a network of 1,000 parameters has, which is the code of torch and DeepSpeed.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.benchmarks.measure import Report, parser_of
from tests.distributed.ranks import start_ranks
from tests.distributed.runs import make_shards, write_recipe

ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero2_offload")


def peak_of(folder: Path, engine: str, hidden: int, ranks: int) -> int:
    """The most bytes that any rank had in use during a few steps."""
    game: dict[str, Any] = {"kind": "gan", "architecture": "mlp", "hidden": hidden, "latent_size": 64}
    game |= {"r1_gamma": 0.0, "batch_size": 8, "total_kimg": 0.032}
    name = f"{engine}-{hidden}"
    recipe = write_recipe(folder / f"{name}.yaml", name=name, game=game, training__engine=engine)
    processes = start_ranks(folder, recipe, ranks)
    peak = 0
    while any(process.poll() is None for process in processes):
        for process in processes:
            try:
                text = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            found = [line for line in text.splitlines() if line.startswith("VmHWM")]
            peak = max([peak, *(1024 * int(line.split()[1]) for line in found)])
        time.sleep(0.05)
    for process in processes:
        _, errors = process.communicate()
        if process.returncode:
            raise SystemExit(errors)
    return peak


def main(arguments: Sequence[str]) -> None:
    """Measure and print a table."""
    parser = parser_of("memory", __doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=6650, help="units of the perceptrons' two hidden layers")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    given = parser.parse_args(arguments)
    h = given.hidden
    parameters = (64 * h + h * h + 768 * h + 2 * h + 768) + (768 * h + h * h + h + 2 * h + 1)
    with Report(given) as report, tempfile.TemporaryDirectory() as place:
        folder, rows = Path(place), []
        make_shards(folder)
        for engine in given.engines:
            whole, code = peak_of(folder, engine, h, given.ranks), peak_of(folder, engine, 8, given.ranks)
            own = whole - code
            report.figures[engine] = {"bytes": whole, "bytes_of_code": code, "bytes_a_parameter": own / parameters}
            rows.append([engine, f"{whole / 1e6:.0f} MB", f"{own / 1e6:.0f} MB", f"{own / parameters:.1f}"])
        report.say(
            f"{parameters / 1e6:.1f} million parameters in two networks, {given.ranks} ranks, float32, Adam, an average"
        )
        report.table(["engine", "most memory of a rank", "without the code", "bytes a parameter"], rows)
