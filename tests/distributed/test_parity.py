"""One process on a whole batch and two gloo processes on half of it each make the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.runs import (
    LABELLED,
    accelerate,
    advgen,
    final_tensors,
    logged,
    make_labelled_shards,
    make_shards,
    run_advgen,
    torchrun,
    write_recipe,
)

# 20 steps of 16 images: four in each of train 4, fade 8, train 8, fade 16, train 16; Adam begins anew at each.
# Some cases run in float32, with the tolerance that rounding through Adam asks for, and some in float64, where anything
# but rounding stands out.
CASES: dict[str, dict[str, Any]] = {
    "wgan-gp, groups within a rank": {"game__minibatch_group": 4},
    "wgan-gp, the whole batch as one group": {"game__minibatch_group": None},
    "r1, groups within a rank": {"game__loss": {"kind": "non_saturating", "r1_gamma": 10.0, "r1_every": 2}},
    "float64, relativistic pairs with r1 and r2": {
        "training__precision": "float64",
        "game__loss": {"kind": "relativistic", "r1_gamma": 1.0, "r1_every": 2, "r2_gamma": 1.0, "r2_every": 1},
    },
    "float64, the whole batch as one group": {"game__minibatch_group": None, "training__precision": "float64"},
    # In float32 this one meets a kink of a rectifier, which amplifies rounding to 4e-4 on some kinds of CPU.
    "float64, moments kept over phases, two critic updates": {
        "training__precision": "float64",
        "game__reset_optimizers": False,
        "game__critic_repeats": 2,
    },
}

# The bias of the critic's last layer cancels in a difference of scores; with the drift term its gradient is a sum of
# rounding errors, and Adam makes steps of full size of it. It changes no image and no other parameter.
EXEMPT = "networks/discriminator.blocks.4.dense1.bias"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    make_shards(folder)
    return folder


QUICK = ("r1, groups within a rank",)


def cases() -> list[Any]:
    return [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]


@pytest.mark.parametrize("case", cases())
def test_two_processes_equal_one(place: Path, case: str) -> None:
    name = case.replace(" ", "-").replace(",", "")
    runs = {}
    for processes in (1, 2):
        recipe = write_recipe(place / f"{name}-{processes}.yaml", name=f"{name}-{processes}", **CASES[case])
        advgen(place, "train", recipe.name, launcher=torchrun(processes) if processes > 1 else ())
        runs[processes] = place / "runs" / f"{name}-{processes}"
    one, two = final_tensors(runs[1]), final_tensors(runs[2])
    assert one.keys() == two.keys()
    worst = max(np.abs(one[key] - two[key]).max() for key in one if key.startswith("networks/") and key != EXEMPT)
    assert worst < (1e-11 if "float64" in case else 1e-5), f"largest difference of a parameter: {worst}"
    losses = list(zip(logged(runs[1]), logged(runs[2]), strict=True))
    assert len(losses) == 20
    for a, b in losses:
        assert (a["step"], a["phase"], a["fade"]) == (b["step"], b["phase"], b["fade"])
        for key in a["values"]:
            assert a["values"][key] == pytest.approx(b["values"][key], rel=1e-4, abs=1e-5), (a["step"], key)
    norms = [a["values"]["discriminator/gradient_norm"] for a, _ in losses]
    assert max(norms) > 1.0, "gradients must exceed 1 for a hidden clipping to show"
    assert any(0 < a["fade"] < 1 for a, _ in losses)


@pytest.mark.slow
def test_state_of_spectral_estimates_and_ada_is_that_of_one_process(place: Path) -> None:
    """On two ranks, where an update takes two micro-batches: weights alone and sums of signs make it."""
    game = {"kind": "gan", "latent_size": 8, "width": 4, "width_max": 8, "batch_size": 16, "total_kimg": 0.32}
    game |= {"spectral_norm": True, "loss": "relativistic", "r1_gamma": 1.0, "r2_gamma": 1.0}
    game |= {"augment": {"kind": "ada", "target": -0.9, "kimg": 0.5, "interval": 3}}  # p rises whatever the scores are
    ends = []
    for processes in (1, 2):
        settings: dict[str, Any] = {"game": game, "training__precision": "float64"}
        settings["training__accumulation"] = processes
        recipe = write_recipe(place / f"spectral-{processes}.yaml", name=f"spectral-{processes}", **settings)
        advgen(place, "train", recipe.name, launcher=torchrun(processes) if processes > 1 else ())
        ends.append(final_tensors(place / "runs" / f"spectral-{processes}"))
    one, two = ends
    assert one.keys() == two.keys() and any(key.endswith(".u") for key in one)
    assert one["networks/augment.p"] == two["networks/augment.p"] > 0
    assert max(np.abs(one[key] - two[key]).max() for key in one if key.startswith("networks/")) < 1e-11


def test_players_that_share_a_network(place: Path) -> None:
    """Three optimizers on one encoder, each in a wrapper of its own, on two ranks of two micro-batches each."""
    make_labelled_shards(place)
    game = {"kind": "aae", "variant": "semi_supervised", "labelled": 8, "encoder": "gaussian", "latent_size": 3}
    game |= {"hidden": 12, "initial_deviation": None, "input_noise": 0.3, "batch_size": 16, "total_kimg": 0.16}
    # With the paper's rates these few images make weights of 1e8, and rounding is no longer small.
    game |= {"learning_rate": 0.001, "adversarial_learning_rate": 0.01, "supervised_learning_rate": 0.01}
    ends = []
    for processes in (1, 2):
        settings: dict[str, Any] = {"game": game, "training__precision": "float64", **LABELLED}
        settings["training__accumulation"] = processes
        recipe = write_recipe(place / f"shared-{processes}.yaml", name=f"shared-{processes}", **settings)
        advgen(place, "train", recipe.name, launcher=torchrun(processes) if processes > 1 else ())
        ends.append(final_tensors(place / "runs" / f"shared-{processes}"))
    one, two = ends
    assert one.keys() == two.keys()
    assert sum(key.endswith("/encoder.hidden.0.weight/momentum_buffer") for key in one) == 3
    assert max(np.abs(one[key]).max() for key in one if key.endswith("weight")) < 10
    assert max(np.abs(one[key].astype(float) - two[key]).max() for key in one) < 1e-11


@pytest.mark.slow
def test_accelerate_launch_and_torchrun_are_alike(place: Path) -> None:
    launchers = {"torchrun": torchrun(2), "accelerate": accelerate(2)}
    for name, launcher in launchers.items():
        advgen(place, "train", write_recipe(place / f"{name}.yaml", name=name).name, launcher=launcher)
    one, two = (final_tensors(place / "runs" / name) for name in launchers)
    assert all(np.array_equal(one[key], two[key]) for key in one)


def test_a_batch_that_the_ranks_do_not_divide_is_refused(place: Path) -> None:
    recipe = write_recipe(place / "odd.yaml", name="odd", game__batch_size=15, game__minibatch_group=5)
    done = run_advgen(place, "train", recipe.name, launcher=torchrun(2))
    assert done.returncode != 0
    assert "global batch of 15, which 2 processes do not divide" in done.stderr
    assert not (place / "runs" / "odd" / "checkpoints").exists()
