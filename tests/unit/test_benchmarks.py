"""Benchmarks: the plain step is the trainer's step, figures are right, and each command runs and can be read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advgen.build import build_trainer
from advgen.config import load_recipe
from advgen.game import Context, OneSlice
from advgen.seeds import Noise
from scripts import bench
from scripts.benchmarks.against import value_at
from scripts.benchmarks.made_up import make_up_shards
from scripts.benchmarks.measure import ROOT, Laps, in_turns, ratio_of
from scripts.benchmarks.progan import paper_widths, progan_recipe
from scripts.benchmarks.startup import changes
from scripts.benchmarks.step import build_pair
from scripts.benchmarks.train import waits

# One of its settings, at the smallest.
VARIANT = ("--variants", "float32", "--widest", "8", "--batch", "4", "--blocks", "1", "--block", "1")


def run(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """The figures of a benchmark, as its JSON has them."""
    file = tmp_path / "bench.json"
    assert bench.main([*arguments, "--json", str(file)]) == 0
    read = json.loads(file.read_text())
    assert read["machine"]["versions"]["torch"] == torch.__version__.split("+")[0]
    assert read["machine"]["cores"] >= 1
    assert read["command"].split()[0] == "bench.py"
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


def test_train(tmp_path: Path) -> None:
    sizes = (
        "--resolution",
        "8",
        "16",
        "--channels",
        "8",
        "--batch",
        "4",
        "--pairs",
        "2",
        "--block",
        "2",
        "--alone",
        "2",
    )
    found = run(tmp_path, "train", *sizes, "--training.device", "cpu")
    for resolution in ("8", "16"):
        assert len(found[resolution]["trainer"]) == len(found[resolution]["bare"]) == 2
        assert found[resolution]["data_wait"] == []  # so few steps take less than a reading
        assert found[resolution]["ratio"]["pairs"] == 2


def test_waits_are_those_of_whole_readings_after_the_pairs(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rates = [{"kind": "rate", "step": step, "data_wait": step / 100} for step in (4, 9, 14, 19)]
    log.write_text("".join(json.dumps(record) + "\n" for record in [*rates[:2], {"kind": "scalars"}, *rates[2:]]))
    assert waits(log, 9) == [0.14, 0.19]
    assert waits(log, 10) == [0.19]
    assert waits(log, 15) == []


def test_variants(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One row in this process; its rate of FLOPs is below the ceiling."""
    options = ("--resolution", "8", *VARIANT, "--blocks", "2", "--warm", "0", "--training.device", "cpu")
    (row,) = run(tmp_path, "variants", *options)["rows"]
    assert (row["batch"], row["resolution"], row["variant"], len(row["seconds"])) == (4, 8, "float32", 2)
    assert 0 < row["flops"] / min(row["seconds"]) < row["ceiling"]
    assert row["bytes"] > 2**26
    assert "| 8 px | 4 | float32 |" in capsys.readouterr().out


def test_variants_of_bad_input_end_at_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["variants", "--resolution", "4", "8", *VARIANT, "--training.device", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["earth-pix2pixhd-128", "cgan-mnist", "earth-progan-demo"])
def test_made_up_shards_are_what_a_recipe_wants(tmp_path: Path, name: str) -> None:
    """Pictures, labels, label maps and instance maps: the trainer's own checks accept them."""
    flags = ["--runs", str(tmp_path / "runs"), "--tracking.wandb", "disabled", "--training.device", "cpu"]
    path = ROOT / "pipelines" / "recipes" / f"{name}.yaml"
    shards = make_up_shards(load_recipe(path, flags).data, tmp_path / "made-up", least=8)
    recipe = load_recipe(path, [*flags, "--data.train.shards", str(shards)])
    trainer, world = build_trainer(recipe)
    samples = trainer.stream.read(np.arange(4), recipe.data.resolution)
    assert samples.images.shape[1:] == (recipe.data.channels, recipe.data.resolution, recipe.data.resolution)
    assert (samples.labels is None) == (recipe.data.classes == 0)
    assert (samples.label_map is None) == (recipe.data.label_map_classes == 0)
    world.close()


def test_evaluate(tmp_path: Path) -> None:
    small = ("--threads", "1")
    frechet = run(tmp_path, "evaluate", "frechet", "--n", "400", "--dimensions", "32", *small)
    values = [each[0] for each in frechet["frechet"].values()]
    assert values == pytest.approx([values[0]] * 4)
    assert frechet["few"]["value"] == pytest.approx(frechet["few"]["wanted"])
    near = run(tmp_path, "evaluate", "neighbours", "--n", "100", "--dimensions", "8", *small)["neighbours"]
    assert 0 < near["precision"] <= 1


def test_evaluate_overlap(tmp_path: Path) -> None:
    """Waiting of 0.2 s for each batch of 64 shows in the loading, and not in the computing."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
    sizes = ("--images", "128", "--size", "16", "--rounds", "2", "--delay-ms", "3.125", "--features", "lite0")
    found = run(tmp_path, "evaluate", "overlap", *sizes, "--threads", "1")["overlap"]
    assert all(value >= 0.2 for value in found["seconds"]["loading"])
    assert found["both / sum"]["mean"] <= found["both / longer"]["mean"]


def test_compare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.benchmarks.compare.shutil.which", lambda name: None)
    found = run(tmp_path, "compare", "--runs", "2", "--points", "5", "--grids", "1")
    assert set(found) == {"read_seconds", "write_seconds", "processor_seconds", "megabytes"}


def test_changes_of_phase_are_without_the_step() -> None:
    steps = [(0.0, "a"), (1.0, "a"), (4.5, "b"), (5.0, "b"), (5.5, "b")]
    assert changes(steps) == [3.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # the peers', on machines of few cores
@pytest.mark.parametrize(
    "arguments",
    [
        ("startup", "--rounds", "1"),
        ("memory", "--ranks", "1", "--hidden", "8", "--engines", "ddp"),
        pytest.param(("phases", "--times", "1"), marks=pytest.mark.long),
        ("sharding", "--only", "speed", "--images", "20", "--rounds", "1"),
        ("sharding", "--only", "memory", "--count", "50"),
        ("loader", "--case", "1024", "--only", "limit/small", "--rounds", "1", "--seconds", "0.2"),
        ("evaluate", "inception", "--images", "4", "--rounds", "1", "--threads", "1"),
        ("checkpoint", "--times", "1", "--game.fmap-max", "8"),
        ("variants", "--resolution", "4", "8", *VARIANT),
        ("against", str(ROOT), "--only", "neighbours", "--rounds", "1"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_each_benchmark_runs(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    if arguments[0] in ("loader", "sharding"):
        pytest.importorskip("mpl_toolkits.basemap_data", reason="the extra `demo` is not installed")
    assert run(tmp_path, *arguments)


def test_a_figure_is_found_where_the_json_has_it() -> None:
    """A number, the median of a list, one of each of several; and nothing where nothing is."""
    figures = {"a": [3.0, 1.0, 2.0], "runs": [{"steps": [[5.0, "x"]]}, {"steps": [[7.0, "y"]]}], "one": 4}
    assert value_at(figures, ("a",)) == 2.0
    assert value_at(figures, ("one",)) == 4
    assert value_at(figures, ("runs", "*", "steps", 0, 0)) == 6.0
    for keys in (("b",), ("a", 5), ("one", "two")):
        with pytest.raises(KeyError):
            value_at(figures, keys)


def test_against_needs_a_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["against", str(tmp_path)]) == 2
    assert "has no scripts/bench.py" in capsys.readouterr().err
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "bench.py").write_text("raise SystemExit('error: worn out')")
    assert bench.main(["against", str(tmp_path), "--only", "frechet", "--rounds", "1"]) == 2
    assert "failed: error: worn out" in capsys.readouterr().err


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
    assert bench.main(["step", "--resolution", "128", "--widest", "2"]) == 2
    assert "--widest 2" in capsys.readouterr().err
