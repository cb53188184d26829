"""Memory of a rank under each engine, for a pair of networks of 100 million parameters in all.

    python scripts/bench_memory.py [--ranks 2]

Each rank is a process; what is told is the most memory it ever had in use (VmHWM), and the same without what a
process with a network of 1,000 parameters has, which is the code of torch and DeepSpeed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.distributed.ranks import start_ranks  # noqa: E402
from tests.distributed.runs import make_shards, write_recipe  # noqa: E402

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


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--hidden", type=int, default=6650, help="units of the perceptrons' two hidden layers")
    given = parser.parse_args()
    h = given.hidden
    parameters = (64 * h + h * h + 768 * h + 2 * h + 768) + (768 * h + h * h + h + 2 * h + 1)
    print(f"{parameters / 1e6:.1f} million parameters in two networks, {given.ranks} ranks, float32, Adam, one average")
    print("| engine | most memory of a rank | without the code | bytes a parameter |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_shards(folder)
        for engine in ENGINES:
            whole, code = peak_of(folder, engine, h, given.ranks), peak_of(folder, engine, 8, given.ranks)
            own = whole - code
            print(f"| {engine} | {whole / 1e6:.0f} MB | {own / 1e6:.0f} MB | {own / parameters:.1f} |", flush=True)


if __name__ == "__main__":
    main()
