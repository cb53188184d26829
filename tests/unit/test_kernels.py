"""The choice of a GPU's kernels, as far as torch tells of it without a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advgen.runtime.config import TrainingConfig
from advgen.runtime.kernels import choose_kernels
from pipelines.__main__ import main
from tests.helpers import tiny_recipe

PLAIN = TrainingConfig(device="cpu")


@pytest.fixture(autouse=True)
def put_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    yield
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    choose_kernels(PLAIN)


def told() -> tuple[bool | str, ...]:
    """Benchmark, deterministic convolutions, deterministic all, TF32 in products and convolutions."""
    cudnn = torch.backends.cudnn
    tf32 = torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32
    return cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled(), *tf32


def test_each_choice_undoes_the_last_one() -> None:
    choose_kernels(replace(PLAIN, algorithms="deterministic", tf32=True))
    assert told() == (False, True, True, True, True)
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    choose_kernels(replace(PLAIN, algorithms="benchmark"))
    assert told() == (True, False, False, False, False)
    choose_kernels(PLAIN)
    assert told() == (False, False, False, False, False)


def test_a_workspace_that_the_user_chose_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    choose_kernels(replace(PLAIN, algorithms="deterministic"))
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_a_training_takes_the_choice_of_its_recipe(tmp_path: Path) -> None:
    """To its end: no operation of ours is one that has no deterministic kernel on a CPU (warnings are errors)."""
    recipe = tiny_recipe(tmp_path, training={"algorithms": "deterministic"})
    assert main(["train", str(recipe)]) == 0
    assert told()[:3] == (False, True, True)
