"""Engines are alike, read each other's checkpoints, and are refused where they would be wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.runs import (
    ROOT,
    advgen,
    environment,
    final_tensors,
    logged,
    make_shards,
    run_advgen,
    torchrun,
    write_recipe,
)

EXEMPT = "networks/discriminator.blocks.4.dense1.bias"  # see test_parity.py


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engines")
    make_shards(folder)
    return folder


def launched(processes: int) -> tuple[str, ...]:
    return torchrun(processes) if processes > 1 else ()


def furthest(one: Path, other: Path) -> float:
    """Largest difference of any parameter or average of two runs."""
    ours, theirs = final_tensors(one), final_tensors(other)
    assert ours.keys() == theirs.keys()
    return max(np.abs(ours[k] - theirs[k]).max() for k in ours if k.startswith("networks/") and k != EXEMPT)


@pytest.mark.slow
def test_a_pairwise_part_of_the_matrix() -> None:
    command = [sys.executable, "scripts/parity.py", "--pairwise", "--processes", "2"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_goes_on_under_other_engines_and_numbers_of_processes(place: Path) -> None:
    """1 ddp -> 2 zero2 -> 4 zero1 -> 1 ddp, with moments kept and a phase change on the way."""
    kept = {"game__reset_optimizers": False, "training__checkpoint_kimg": 0.016, "training__keep_checkpoints": 99}
    advgen(place, "train", write_recipe(place / "whole.yaml", name="whole", **kept).name)
    stops = [("ddp", 1, 0.05), ("zero2", 2, 0.10), ("zero1", 4, 0.22), ("ddp", 1, None)]
    run = place / "runs" / "moved"
    for engine, processes, until in stops:
        recipe = write_recipe(place / "moved.yaml", name="moved", training__engine=engine, **kept)
        advgen(place, "train", recipe.name, launcher=launched(processes))
        if until is not None:  # as if it had been ended there: what comes later is taken away
            for path in (run / "checkpoints").glob("0*"):
                if int(path.name) > 1000 * until:
                    subprocess.run(["rm", "-r", str(path)], check=True)
    assert furthest(place / "runs" / "whole", run) < 1e-5
    curves = [logged(place / "runs" / "whole"), logged(run)]
    assert len(curves[0]) == len(curves[1]) == 20
    for a, b in zip(*curves, strict=True):
        for key in ("discriminator/loss", "generator/loss"):
            assert a["values"][key] == pytest.approx(b["values"][key], abs=1e-5, rel=1e-5), (a["step"], key)


# In float64 where the engine can: in float32 a rounding may take a rectifier over its kink, where a penalty's gradient
# jumps. With seed 2 none does so within twenty steps.
VARIANTS: dict[str, dict[str, Any]] = {
    "activations computed again": {"training__activation_checkpointing": True},
    "micro-batches for one player": {"training__accumulation_by_player": {"discriminator": 2}},
    "clipping, zero2": {"training__engine": "zero2"},
}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_settings_that_change_nothing_but_memory(place: Path, variant: str) -> None:
    name = variant.replace(" ", "-").replace(",", "")
    clip = {"game__optimizer": {"clip_norm": 0.5}} if "clipping" in variant else {}
    for kind, changes in (("plain", {}), ("varied", VARIANTS[variant])):
        exact = {"seed": 2} if "zero2" in variant else {"training__precision": "float64"}
        recipe = write_recipe(place / f"{name}-{kind}.yaml", name=f"{name}-{kind}", **exact, **clip, **changes)
        advgen(place, "train", recipe.name)
    runs = [place / "runs" / f"{name}-{kind}" for kind in ("plain", "varied")]
    assert furthest(*runs) < (2e-5 if "zero2" in variant else 1e-12)
    if clip:
        clipped = [record["values"]["discriminator/clipped"] for record in logged(runs[1])]
        assert sum(clipped) > 0, "the limit must be met for the test to say anything"
        assert clipped == [record["values"]["discriminator/clipped"] for record in logged(runs[0])]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "zero3": ({"training__engine": "zero3"}, "engine zero3 is refused"),
    "static": ({"training__ddp": {"static_graph": True}}, "static_graph makes gradients silently wrong"),
    "fp16": ({"training__precision": "fp16"}, "underflow in a penalty"),
    "bf16": (
        {"training__engine": "zero2", "training__deepspeed": {"bf16": {"enabled": True}}},
        "deepspeed.bf16 cannot be set here",
    ),
    "clip": (
        {"training__engine": "zero1", "training__deepspeed": {"gradient_clipping": 1.0}},
        "set the game's optimizer.clip_norm",
    ),
    "stage": (
        {"training__engine": "zero1", "training__deepspeed": {"zero_optimization": {"stage": 3}}},
        "set training.engine",
    ),
    "compile": ({"training__compile": ["critic"]}, "the networks are generator, discriminator"),
    "micro": ({"training__accumulation": 3}, "with 3 micro-batches for player 'discriminator' do not divide"),
    "groups": (
        {"training__accumulation": 2, "game__minibatch_group": None},
        "do not fall whole into the 2 micro-batches",
    ),
    "names": ({"training__accumulation_by_player": {"critic": 2}}, "the players are discriminator, generator"),
    "nonfinite": ({"training__on_nonfinite": "skip"}, "on_nonfinite must be stop or skip:N"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_known_to_be_wrong_is_refused_before_anything_is_built(place: Path, case: str) -> None:
    changes, text = REFUSED[case]
    recipe = write_recipe(place / f"refused-{case}.yaml", name=f"refused-{case}", **changes)
    done = run_advgen(place, "train", recipe.name)
    assert done.returncode == 2, done.stderr
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (place / "runs" / f"refused-{case}" / "checkpoints").exists()


def test_bf16_is_near_float32_and_the_same_on_two_processes(place: Path) -> None:
    """Under autocast the networks are rounded to 8 bits; parameters, moments and penalties are not."""
    short = {"training__precision": "bf16"}
    advgen(place, "train", write_recipe(place / "exact.yaml", name="exact").name)
    advgen(place, "train", write_recipe(place / "bf1.yaml", name="bf1", **short).name)
    advgen(place, "train", write_recipe(place / "bf2.yaml", name="bf2", **short).name, launcher=torchrun(2))
    runs = [place / "runs" / name for name in ("exact", "bf1", "bf2")]
    assert all(value.dtype == np.float32 for value in final_tensors(runs[1]).values())
    # Twenty steps of Adam at .001 move a weight by .02 at most: near means that most of the way is the same.
    assert 1e-5 < furthest(runs[0], runs[1]) < 0.02
    assert furthest(runs[1], runs[2]) < 0.02
    first = [logged(run)[0]["values"]["discriminator/loss"] for run in runs]
    assert first[0] != first[1]
    assert first[1] == pytest.approx(first[0], rel=0.05)
    assert first[2] == pytest.approx(first[1], rel=1e-3)


@pytest.mark.slow
def test_compiled_networks_make_the_same_run(place: Path) -> None:
    """In float64: in float32 fused kernels round otherwise, of which twenty steps of Adam make 2e-3.

    The discriminator's penalty differentiates twice, which compiled code cannot: it runs as written, beside it.
    """
    exact: dict[str, Any] = {"training__precision": "float64"}
    plain = write_recipe(place / "eager.yaml", name="eager", **exact)
    compiled = write_recipe(
        place / "compiled.yaml", name="compiled", training__compile=["generator", "discriminator"], **exact
    )
    for recipe in (plain, compiled):
        advgen(place, "train", recipe.name)
    assert furthest(place / "runs" / "eager", place / "runs" / "compiled") < 1e-5
