"""Every game on every engine against one process on the whole batch: prints a table of differences.

    python scripts/parity.py                    # all cases on 1, 2 and 4 gloo processes
    python scripts/parity.py --pairwise         # a subset in which every pair of settings meets
    python scripts/parity.py --out docs/results/parity.md

A case is a short real training (20 Adam steps) through advgen's own trainer; the processes of one world play all
cases in one process group. Figures are the largest absolute difference of any parameter or average, of any
logged loss, and of any other logged value, relative to its size.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

GAMES: dict[str, dict[str, Any]] = {
    "aae": {
        "kind": "aae",
        "variant": "semi_supervised",
        "encoder": "gaussian",
        "labelled": 8,
        "latent_size": 3,
        "prior": {"kind": "gaussian", "deviation": 1.0},
        "hidden": 12,
        "initial_deviation": None,
        "input_noise": 0.3,
        # the paper's rates make weights of 1e8 of these few images
        "learning_rate": 0.001,
        "adversarial_learning_rate": 0.01,
        "supervised_learning_rate": 0.01,
        "batch_size": 16,
        "total_kimg": 0.32,
    },
    "ali": {
        "kind": "ali",
        "architecture": "small",
        "latent_size": 8,
        "width": 0.1,
        "dropout": 0.1,
        "conditional": True,
        "log_odds_images": 40,
        "batch_size": 16,
        "total_kimg": 0.32,
    },
    "avb": {
        "kind": "avb",
        "channels": 4,
        "hidden": 16,
        "adversary_hidden": 16,
        "latent_size": 4,
        "noise_size": 4,
        "basis": 4,
        "basis_hidden": 8,
        "learning_rate": 1e-3,
        "adversary_learning_rate": 1e-3,
        "batch_size": 16,
        "total_kimg": 0.32,
    },
    "cgan": {
        "kind": "cgan",
        "latent_size": 8,
        "width": 2,
        "learning_rate": 3e-4,  # with 1e-3 some engines meet a kink of the hinge (see below)
        "batch_size": 16,
        "total_kimg": 0.32,
        "critic_repeats": 1,
    },
    "gan": {"kind": "gan", "latent_size": 8, "width": 4, "width_max": 8, "batch_size": 16, "total_kimg": 0.32},
    "implicit_vi": {
        "kind": "implicit_vi",
        "hidden": 16,
        "layers": 2,
        "opponent_steps": 2,
        "batch_size": 16,
        "total_kimg": 0.32,
    },
    "pix2pixhd": {
        "kind": "pix2pixhd",
        "ngf": 4,
        "downsamplings": 1,
        "global_blocks": 1,
        "enhancers": 1,
        "local_blocks": 1,
        "ndf": 4,
        "discriminator_layers": 2,
        "encoder_features": 2,
        "nef": 4,
        "encoder_downsamplings": 1,
        "styles": 2,
        "perceptual": "none",
        "batch_size": 16,
        "global_decay_kimg": 0.0,
        "joint_decay_kimg": 0.0,
    },
    "progan": {
        "kind": "progan",
        "latent_size": 8,
        "channels": {4: 8, 8: 8, 16: 4},
        "minibatch_group": 4,
        "rampup_kimg": 0,
        "batch_size": 16,
        "hold_steps": 1,
    },
}
# With 1e-3 it meets a kink of a rectifier (7e-5 in float32, 4e-16 in float64).
GAMES["progan-projection"] = {**GAMES["progan"], "conditioning": "projection", "learning_rate": 3e-4}
PENALTY: dict[str, dict[bool, dict[str, Any]]] = {
    "aae": {False: {}},
    "ali": {False: {}},
    "avb": {False: {}},
    "cgan": {False: {}},
    "gan": {True: {"r1_gamma": 10.0, "r1_every": 2}, False: {"r1_gamma": 0.0}},
    "implicit_vi": {False: {}},
    "pix2pixhd": {False: {}},
    "progan": {
        True: {"loss": {"kind": "wgan_gp"}},
        False: {"loss": {"kind": "non_saturating", "r1_gamma": 0.0}},
    },
    "progan-projection": {True: {"loss": {"kind": "wgan_gp"}}},
}
# Four steps in each of train 4, fade 8, train 8, fade 16, train 16; or twenty at 4. (With twenty at 16 pixels a unit
# near the kink of its rectifier amplifies rounding to 1e-3 in float32, on some engines; float64 gives 1e-15 there. So
# does the kink of pix2pixhd's feature matching, whose phases are cut where none is met.)
PHASES: dict[str, dict[bool, dict[str, Any]]] = {
    "aae": {False: {}},
    "ali": {False: {}},
    "avb": {False: {}},
    "cgan": {False: {}},
    "gan": {False: {}},
    "implicit_vi": {False: {}},
    "pix2pixhd": {
        True: {"global_kimg": 0.128, "frozen_kimg": 0.096, "joint_kimg": 0.096},
        False: {"enhancers": 0, "global_kimg": 0.32, "joint_kimg": 1.0},
    },
    "progan": {
        True: {"stabilize_kimg": 0.064, "fade_kimg": 0.064, "reset_optimizers": False},
        False: {"stabilize_kimg_by_resolution": {4: 0.32, 8: 0, 16: 0}, "fade_kimg": 0},
    },
}
PHASES["progan-projection"] = {True: PHASES["progan"][True]}
ENGINES = ("ddp", "zero0", "zero1", "zero2", "zero2_offload")
EXEMPT = {
    "discriminator.blocks.4.dense1.bias": "progan with wgan_gp: the bias of the critic's last layer cancels in the "
    "difference of scores; with the drift term its gradient is a sum of rounding errors, of which Adam makes steps of "
    "full size. It changes no image and no other parameter.",
}
TOLERANCE, LOOSE = 1e-5, 1e-4


@dataclass(frozen=True)
class Case:
    """One cell of the table, without the number of processes."""

    game: str
    engine: str
    penalty: bool
    accumulation: int
    change: bool

    @property
    def name(self) -> str:
        """Of the run."""
        return f"{self.game}-{self.engine}-p{self.penalty:d}-a{self.accumulation}-c{self.change:d}"

    def recipe(self, folder: Path, prefix: str) -> Path:
        """Written into ``folder``."""
        from tests.distributed.runs import LABELLED, PAIRED, SPRINKLER, write_recipe

        game = {**GAMES[self.game], **PENALTY[self.game][self.penalty], **PHASES[self.game][self.change]}
        path = folder / f"{prefix}-{self.name}.yaml"
        training = {"engine": self.engine, "accumulation": self.accumulation}
        changes = {f"training__{key}": value for key, value in training.items()}
        data = dict.fromkeys(("aae", "ali", "cgan", "progan-projection"), LABELLED)
        data |= {"implicit_vi": SPRINKLER, "pix2pixhd": PAIRED}
        changes.update(data.get(self.game, {}))
        small = {"training__sample_rows": 1, "training__sample_columns": 1, "training__log_every_steps": 1}
        return write_recipe(path, name=f"{prefix}-{self.name}", game=game, **changes, **small)


def all_cases() -> list[Case]:
    """The whole matrix."""
    return [
        Case(game, engine, penalty, accumulation, change)
        for game in GAMES
        for engine, penalty, accumulation in itertools.product(ENGINES, PENALTY[game], (1, 2))
        for change in PHASES[game]
    ]


def pairwise(cases: list[Case]) -> list[Case]:
    """A subset in which every two settings that meet anywhere meet as well, chosen greedily."""

    def pairs(case: Case) -> set[Any]:
        fields = enumerate((case.game, case.engine, case.penalty, case.accumulation, case.change))
        return set(itertools.combinations(fields, 2))

    missing = set().union(*(pairs(case) for case in cases))
    chosen: list[Case] = []
    while missing:
        best = max(cases, key=lambda case: len(pairs(case) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def play(recipe_path: Path) -> str:
    """Train in this process group; returns "" or why it was refused."""
    from advgen.build import build_trainer
    from advgen.config import load_recipe
    from advgen.errors import UserError
    from advgen.runtime.preemption import StopRequest
    from pipelines.terminal import TrainingBar

    try:
        trainer, _ = build_trainer(load_recipe(recipe_path))
        trainer.run(TrainingBar(quiet=True), StopRequest())
    except UserError as error:
        return str(error)
    return ""


def work(folder: Path, size: int, cases: list[Case]) -> None:
    """All cases on this rank."""
    os.chdir(folder)
    for case in cases:
        began = time.perf_counter()
        refused = play(folder / f"{size}-{case.name}.yaml")
        gc.collect()
        if int(os.environ.get("RANK", "0")) == 0:
            result = {"refused": refused, "seconds": time.perf_counter() - began}
            (folder / f"{size}-{case.name}.json").write_text(json.dumps(result))


def launch(folder: Path, size: int, cases: list[Case]) -> None:
    """Play the cases in ``size`` processes."""
    for case in cases:
        case.recipe(folder, str(size))
    (folder / f"{size}.json").write_text(json.dumps([vars(case) for case in cases]))
    launcher = ["-m", "torch.distributed.run", f"--nproc-per-node={size}", "--standalone"] if size > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *launcher, str(Path(__file__).resolve()), "--worker", str(folder), str(size)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{size} processes ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-6000:]}")


@dataclass(frozen=True)
class Result:
    """What became of a case on a number of processes."""

    case: Case
    size: int
    parameters: float | None
    losses: float | None
    others: float | None
    norm: float | None
    refused: str

    @property
    def within(self) -> bool:
        """Whether all differences are within their tolerance."""
        assert self.parameters is not None and self.losses is not None and self.others is not None
        return self.parameters <= TOLERANCE and self.losses <= TOLERANCE and self.others <= LOOSE


def compare(folder: Path, size: int, case: Case, reference: Case) -> Result:
    """A case against one process of engine ddp on the whole batch."""
    import numpy as np

    from tests.distributed.runs import final_tensors, logged

    told = json.loads((folder / f"{size}-{case.name}.json").read_text())
    if told["refused"]:
        return Result(case, size, None, None, None, None, told["refused"])
    runs = [folder / "runs" / name for name in (f"{size}-{case.name}", f"1-{reference.name}")]
    ours, theirs = (final_tensors(run) for run in runs)
    weights = [key for key in theirs if key.startswith("networks/")]
    assert {key for key in ours if key.startswith("networks/")} == set(weights)
    kept = [key for key in weights if key.removeprefix("networks/") not in EXEMPT]
    parameters = max(float(np.abs(ours[key] - theirs[key]).max()) for key in kept)
    losses = others = norm = 0.0
    for one, other in zip(logged(runs[0]), logged(runs[1]), strict=True):
        assert one["values"].keys() == other["values"].keys()
        for key, value in other["values"].items():
            difference = abs(one["values"][key] - value) / max(1.0, abs(value))
            if key.endswith("/loss"):
                losses = max(losses, difference)
            else:
                others = max(others, difference)
            norm = max(norm, value) if key.endswith("gradient_norm") else norm
    return Result(case, size, parameters, losses, others, norm, "")


def rows(results: list[Result]) -> Iterator[str]:
    """The table in Markdown."""
    yield "| game | engine | penalty | accumulation | phase change | processes | parameters | losses | other values |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in results:
        c = r.case
        told = "refused | | " if r.refused else f"{r.parameters:.1e} | {r.losses:.1e} | {r.others:.1e}"
        setting = f"{c.game} | {c.engine} | {'on' if c.penalty else 'off'} | {c.accumulation}"
        yield f"| {setting} | {'yes' if c.change else 'no'} | {r.size} | {told} |"


def document(results: list[Result], seconds: float, command: str) -> str:
    """The page for docs/results."""
    from importlib.metadata import version

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "accelerate", "deepspeed"))
    worst = max(r.parameters for r in results if r.parameters is not None)
    norms = [r.norm for r in results if r.norm is not None]
    lines = [
        "# Every engine against one process on the whole batch",
        "",
        f"`{command}`, {platform.machine()} CPU, gloo, Python {platform.python_version()}, {versions}; "
        f"{seconds / 60:.0f} minutes. 20 Adam steps a case, float32. Differences: the largest of any parameter or "
        "average (absolute), of any logged loss, and of any other logged value (relative to its size, or to 1). "
        f"Worst parameter: {worst:.1e}; tolerance {TOLERANCE:g} for parameters and losses, {LOOSE:g} for others. "
        f"Gradient norms reach {min(norms):.2g} to {max(norms):.2g} by case, so where they pass 1 a hidden "
        "clipping at 1 would show. Cases with a phase change keep Adam's moments across it.",
        "",
        "Exempt, because the gradient is zero by construction:",
        "",
        *(f"- `{name}`: {reason}" for name, reason in EXEMPT.items()),
        "",
    ]
    refusals = sorted({r.refused for r in results if r.refused})
    if refusals:
        lines += ["Refused:", "", *(f"- {text}" for text in refusals), ""]
    return "\n".join([*lines, *rows(results), ""])


def main() -> int:
    """Play, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worker", nargs=2, metavar=("FOLDER", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--pairwise", action="store_true", help="a subset in which every pair of settings meets")
    parser.add_argument("--match", default="", help="only cases whose name holds this text")
    parser.add_argument("--out", type=Path, help="also write the table to this Markdown file")
    given = parser.parse_args()
    if given.worker:
        folder, size = Path(given.worker[0]), int(given.worker[1])
        work(folder, size, [Case(**case) for case in json.loads((folder / f"{size}.json").read_text())])
        return 0
    from tests.distributed.runs import make_labelled_shards, make_paired_shards, make_shards

    began = time.monotonic()
    cases = [case for case in (pairwise(all_cases()) if given.pairwise else all_cases()) if given.match in case.name]
    references: Mapping[Case, Case] = {c: Case(c.game, "ddp", c.penalty, 1, c.change) for c in cases}
    with tempfile.TemporaryDirectory(prefix="parity-") as name:
        folder = Path(name)
        make_shards(folder)
        make_labelled_shards(folder)
        make_paired_shards(folder)
        ones = sorted({*references.values(), *(cases if 1 in given.processes else ())}, key=lambda case: case.name)
        launch(folder, 1, ones)
        for size in given.processes:
            if size > 1:
                launch(folder, size, cases)
        results = [compare(folder, size, c, references[c]) for c in cases for size in sorted(given.processes)]
    print("\n".join(rows(results)))
    seconds = time.monotonic() - began
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(document(results, seconds, " ".join(["python", *sys.argv])))
    bad = [r for r in results if not r.refused and not r.within]
    print(f"{len(results)} cells, {sum(bool(r.refused) for r in results)} refused, {len(bad)} off, {seconds:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
