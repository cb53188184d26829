"""Benchmarks: the plain step is the trainer's step, figures are right, and each command runs and can be read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.build import build_trainer
from advgen.game import Context, OneSlice
from advgen.seeds import Noise
from scripts import bench
from scripts.benchmarks.measure import Laps, in_turns, ratio_of
from scripts.benchmarks.progan import paper_widths, progan_recipe
from scripts.benchmarks.step import build_pair


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The figures of a benchmark, as its JSON has them."""
    file = tmp_path / "bench.json"
    assert bench.main([*arguments, "--json", str(file)]) == 0
    read = json.loads(file.read_text())
    assert read["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read["machine"]["cores"] >= 1
    assert read["command"].startswith("bench.py ")
    return read["figures"]


@pytest.mark.parametrize("flags", [[], ["--game.fused-downsampling"], ["--training.channels-last"]])
def test_the_plain_step_is_the_trainers_step(tmp_path: Path, flags: list[str]) -> None:
    """The same losses and gradients to 1e-5, from the same latents and mixing."""
    recipe = progan_recipe(tmp_path, 16, 8, paper_widths(12), flags=["--training.device", "cpu", *flags])
    trainer, world = build_trainer(recipe)
    pair = build_pair(recipe, trainer, world)
    plain, ours, game = pair.plain, pair.advgen, trainer.game
    progress = trainer.timeline.progress(trainer.clock)
    for network, player in ((plain.discriminator, "discriminator"), (plain.generator, "generator")):
        noise = Noise(0, ("train", player, 0), torch.arange(8))
        outcome = ours.engines[player].backward([(Context(trainer.networks, progress, noise, OneSlice()), ours.batch)])
        z = noise.normal("latent", plain.latents)
        plain.generator.zero_grad()
        plain.discriminator.zero_grad()
        loss = plain.generator_loss(z)
        if player == "discriminator":
            loss = plain.discriminator_loss(z, noise.uniform("mixing", 1, 1, 1))
        loss.backward()
        assert loss.item() == pytest.approx(outcome.loss.item(), rel=1e-5)
        theirs = dict(game.networks[player].named_parameters())
        for name, parameter in network.named_parameters():
            wanted, found = theirs[name].grad, parameter.grad
            assert wanted is not None and found is not None, name
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))
        trained = [p for name, p in theirs.items() if p.grad is not None]
        assert len(trained) == len(list(network.parameters()))
    world.close()


def test_step(tmp_path: Path) -> None:
    """Both loops learn in the rounds that are measured, and every part of a step is counted."""
    sizes = ("--resolution", "16", "--batch", "4", "--widest", "8", "--rounds", "3", "--warm", "1")
    found = run(tmp_path, "step", *sizes, "--training.device", "cpu")["resolutions"]["16"]
    for name in ("plain", "advgen"):
        parts = found["seconds"][name]
        assert all(len(values) == 3 for values in parts.values())
        sums = [sum(each) for each in zip(parts["discriminator"], parts["generator"], parts["rest"], strict=True)]
        assert parts["step"] == pytest.approx(sums)
    plain, ours = found["flops"]["plain"], found["flops"]["advgen"]
    assert plain["discriminator"] > ours["discriminator"] > 2 * ours["generator"] > 0
    assert found["ratio"]["step"]["low"] < found["ratio"]["step"]["mean"] < found["ratio"]["step"]["high"]


def test_ratio_and_its_interval() -> None:
    """By hand: logarithms 0 and 2 have mean 1, standard error 1, and Student's t of one degree is 12.706."""
    found = ratio_of([1.0, math.e**2], [1.0, 1.0])
    assert found.mean == pytest.approx(math.e)
    assert math.log(found.low) == pytest.approx(1 - 12.7062, abs=1e-3)
    assert math.log(found.high) == pytest.approx(1 + 12.7062, abs=1e-3)
    assert ratio_of([2.0], [1.0]).low == 0.0


def test_turns_change_who_begins() -> None:
    order: list[str] = []
    found = in_turns({name: lambda name=name: order.append(name) or float(len(order)) for name in "ab"}, 2, warm=1)
    assert "".join(order) == "baabba"
    assert found == {"a": [3.0, 6.0], "b": [4.0, 5.0]}


def test_laps_share_out_a_clock() -> None:
    readings = iter([0.0, 1.0, 3.0, 7.0])
    laps = Laps(lambda: next(readings), lambda before, after: after - before)
    laps.start()
    for name in "aba":
        laps.lap(name)
    assert laps.read() == {"a": 5.0, "b": 2.0}


def test_a_wrong_name_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["stop"]) == 2
    assert "no benchmark is named 'stop'" in capsys.readouterr().err
    assert bench.main(["--help"]) == 0
