from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from advgen.build import build_counter, flops_of
from advgen.config import Recipe, load_recipe
from advgen.counting import Layout, Ledger
from advgen.errors import UserError
from advgen.runtime.config import TrainingConfig
from advgen.runtime.world import World
from advgen.speed import Speed
from pipelines.__main__ import main
from pipelines.dry_run import describe
from tests.helpers import tiny_recipe

RECIPES = Path(__file__).parents[2] / "pipelines" / "recipes"
WIDTHS = {4: 8, 8: 6, 16: 4}
LATENT, BATCH, COLOURS = 5, 8, 3


def recipe(folder: Path, **game: Any) -> Recipe:
    return load_recipe(
        tiny_recipe(folder, game={"latent_size": LATENT, "channels": WIDTHS, "batch_size": BATCH, **game}), []
    )


@dataclass
class Cost:
    """Products of one layer: forward; ``weights`` of them are of the weights' own size, as kernels that are summed."""

    forward: int
    weights: int = 0


def convolution(inputs: int, outputs: int, size: int, kernel: int = 3) -> Cost:
    return Cost(2 * BATCH * size**2 * inputs * outputs * kernel**2)


def resampling(inputs: int, outputs: int, coarse: int) -> Cost:
    """16 products a coarse pixel, and a 3x3 kernel summed to 4x4 by a product with a 9x16 matrix."""
    return Cost(2 * BATCH * coarse**2 * inputs * outputs * 16, weights=2 * inputs * outputs * 9 * 16)


def generator() -> list[Cost]:
    layers = [Cost(2 * BATCH * LATENT * 16 * WIDTHS[4]), convolution(WIDTHS[4], WIDTHS[4], 4)]
    for r in (8, 16):
        layers += [resampling(WIDTHS[r // 2], WIDTHS[r], r // 2), convolution(WIDTHS[r], WIDTHS[r], r)]
    return [*layers, convolution(WIDTHS[16], COLOURS, 16, 1)]


def discriminator(fused: bool) -> list[Cost]:
    """Beginning at the image."""
    layers = [convolution(COLOURS, WIDTHS[16], 16, 1)]
    for r in (16, 8):
        narrow, wide = WIDTHS[r], WIDTHS[r // 2]
        layers += [convolution(narrow, narrow, r)]
        layers += [resampling(narrow, wide, r // 2) if fused else convolution(narrow, wide, r)]
    layers += [convolution(WIDTHS[4] + 1, WIDTHS[4], 4)]
    hidden = WIDTHS[4]  # channels "at 2 pixels" are those at 4 where the recipe does not say
    return [*layers, Cost(2 * BATCH * WIDTHS[4] * 16 * hidden), Cost(2 * BATCH * hidden)]


def forward(layers: list[Cost]) -> int:
    return sum(layer.forward + layer.weights for layer in layers)


@pytest.mark.parametrize("fused", [False, True])
def test_progan_is_counted_as_by_formula(tmp_path: Path, fused: bool) -> None:
    found = build_counter(recipe(tmp_path, fused_downsampling=fused)).step(-1)
    g, d = generator(), discriminator(fused)
    assert found.players["generator"].forward == forward(g) + forward(d)
    # Gradients of the generator: of inputs and weights, but none of the latents; through the discriminator, of inputs.
    through = sum(layer.forward for layer in d)
    assert found.players["generator"].penalty == 0
    assert found.players["generator"].backward == 2 * forward(g) - g[0].forward - sum(x.weights for x in g) + through
    critic = found.players["discriminator"]
    assert critic.forward == forward(g) + 3 * forward(d)
    assert critic.penalty == through
    # Real and fake: weights of all layers, inputs of all but the image. The penalty: the gradient's gradient (two
    # products a layer, one for the last, whose own gradient is a constant), and through the mixed images' features,
    # whose statistic over the batch bends, down to the image, with the last layer left out.
    summed = sum(layer.weights for layer in d)
    plain = 2 * (2 * through - d[0].forward + summed)
    bent = 2 * through - d[-1].forward + 2 * (through - d[-1].forward) + summed
    assert critic.backward == plain + bent


def test_a_penalty_at_every_fourth_step_counts_by_a_quarter(tmp_path: Path) -> None:
    lazy = {"kind": "non_saturating", "r1_gamma": 1.0, "r1_every": 4}
    counter = build_counter(recipe(tmp_path, loss=lazy))
    with_it, without = counter.step(-1, at=0).flops, counter.step(-1, at=1).flops
    assert with_it > 1.3 * without
    assert counter.mean_flops(-1) == pytest.approx(without + (with_it - without) / 4)
    always = build_counter(recipe(tmp_path, loss={**lazy, "r1_every": 1}))
    assert always.mean_flops(-1) == always.step(-1).flops == with_it


def test_ranks_and_micro_batches_share_the_same_work(tmp_path: Path) -> None:
    counter = build_counter(recipe(tmp_path, critic_repeats=2, minibatch_group=2))
    whole = counter.step(-1)
    once = build_counter(recipe(tmp_path, minibatch_group=2)).step(-1)
    assert whole.players["discriminator"].flops == 2 * once.players["discriminator"].flops
    cut = counter.step(-1, Layout(ranks=2, micro_batches=lambda player: 2))
    # All but the sums of kernels, which each share makes for itself, falls into shares.
    assert whole.flops < cut.flops < 1.02 * whole.flops
    assert (cut.weights, cut.moments) == (whole.weights, whole.moments)
    kept = [count.most - count.weights - count.moments for count in (whole, cut)]
    assert kept[1] < 0.5 * kept[0]


def test_memory_is_that_of_all_tensors_at_the_worst_time() -> None:
    mebi = 1 << 20
    with Ledger() as ledger:
        a = torch.zeros(mebi // 4)
        b = a + 1
        c = (b.reshape(2, -1)[0] * 2).sum()  # a view takes nothing, half a MiB comes and goes
        assert ledger.live == 2 * mebi + 4 and ledger.peak == 2.5 * mebi + 4
        del a, b
        assert ledger.live == 4 and c == mebi / 4
    parameter = torch.ones(mebi // 4, requires_grad=True)
    with Ledger() as ledger:
        ledger.hold([parameter])
        loss = (parameter.exp() * 2).sum()  # keeps the exponential, and for a time twice that
        assert ledger.live == 2 * mebi + 4 and ledger.peak == 3 * mebi + 4
        loss.backward()
        assert ledger.live == 2 * mebi + 4  # the gradient came, and the exponential went
        parameter.grad = None
        assert ledger.live == mebi + 4


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_counted(path: Path) -> None:
    counter = build_counter(load_recipe(path, []))
    count = counter.step(-1)
    assert {player.name for player in counter.game.phases[-1].players} == set(count.players)
    assert all(player.forward > 0 and player.backward > 0 and player.moved > 0 for player in count.players.values())
    assert 0 < count.weights + count.moments < count.most


def test_the_pace_of_a_step_as_a_share_of_the_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny, world = recipe(tmp_path), World(TrainingConfig(device="cpu", threads=1))
    phase = build_counter(tiny).game.phases[-1]
    flops = flops_of(tiny)(4)
    assert flops == build_counter(tiny).mean_flops(4)

    def record(given: Any) -> dict[str, float]:
        speed = Speed(given, world, "float32")
        assert speed.record(4, phase) is None
        speed.watch.add(BATCH)  # that began with the process: more than two seconds ago
        found = speed.record(4, phase)
        assert found is not None
        return found

    found = record(flops_of(tiny))
    assert found["seconds_per_kimg"] == pytest.approx(1000 / found["images_per_second"])
    assert found["tflops"] == pytest.approx(flops * found["images_per_second"] / BATCH / 1e12)
    assert 0 < found["mfu"] < 1

    def failing(index: int) -> float:
        raise ValueError("looks at values")

    found = record(failing)
    assert "mfu" not in found and "images_per_second" in found
    assert "FLOPs of phase 4 are not counted: ValueError: looks at values" in caplog.text
    assert "mfu" not in record(None)

    def full(*arguments: object) -> float:
        raise torch.OutOfMemoryError("no room for a product")

    monkeypatch.setattr("advgen.speed.ceiling", full)
    found = record(flops_of(tiny))
    assert found["tflops"] > 0 and "mfu" not in found
    assert "ceiling is not measured: no room for a product" in caplog.text


def test_a_dry_run_says_what_a_step_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tiny_recipe(tmp_path))
    assert main(["train", path, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "a step of phase 'train 16x16': " in text and "memory of one process (engine ddp), at most " in text
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert describe(load_recipe(Path(path), [])) == 0
    assert "memory of each of 2 processes (engine ddp), at most " in capsys.readouterr().out
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match="a global batch of 8, which 3 processes do not divide"):
        describe(load_recipe(Path(path), []))
