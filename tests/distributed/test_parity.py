"""One process on a whole batch and two gloo processes on half of it each make the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.distributed.runs import advgen, final_tensors, logged, make_shards, torchrun, write_recipe

# 20 steps of 16 images: four in each of train 4, fade 8, train 8, fade 16, train 16; Adam begins anew at each.
# Every case runs in float32, with the tolerance that rounding through Adam asks for, and one in float64 too, where
# anything but rounding would stand out.
CASES: dict[str, dict[str, Any]] = {
    "wgan-gp, groups within a rank": {"game__minibatch_group": 4},
    "wgan-gp, the whole batch as one group": {"game__minibatch_group": None},
    "r1, groups within a rank": {"game__loss": {"kind": "non_saturating", "r1_gamma": 10.0, "r1_every": 2}},
    "float64, the whole batch as one group": {"game__minibatch_group": None, "training__precision": "float64"},
    "moments kept over phases, two critic updates": {"game__reset_optimizers": False, "game__critic_repeats": 2},
}

# The bias of the critic's last layer cancels in a difference of scores; with the drift term its gradient is a sum of
# rounding errors, and Adam makes steps of full size of it. It changes no image and no other parameter.
EXEMPT = "networks/discriminator.blocks.4.dense1.bias"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parity")
    make_shards(folder)
    return folder


@pytest.mark.parametrize("case", CASES)
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
