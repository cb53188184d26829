"""Path lengths of generators whose length is known, the trimmed mean, and LPIPS by a file."""

from __future__ import annotations

import math
import warnings
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.build import build_game
from advgen.capabilities import DrawsLatents
from advgen.errors import UserError
from advgen.game import Batch, ImageSpec
from advgen.metrics import METRICS, MetricFiles, diversity, lite0
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.lpips import load_lpips
from advgen.metrics.measures import Bench
from advgen.metrics.path_length import PathLength, step, trimmed_mean
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Alone, Ranks
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.games.test_table import recipe_of
from tests.unit.metrics.photographs import crops
from tests.unit.metrics.threads import on_ranks

needs_lite0 = pytest.mark.skipif(
    not all(map(lite0.find_spec, lite0._PACKAGES)), reason="the extra advgen[demo] is not installed"
)


class Squares(torch.nn.Module):
    """Sum of squared differences of two images."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).square().sum((1, 2, 3))


class Pixels:
    """A game whose images are their latents over their length, scaled: a way of angle w moves at the rate w."""

    def __init__(self, scale: float, normal: bool = True) -> None:
        self.scale, self.normal_latents = scale, normal

    def latents(self, noise: Noise) -> Tensor:
        draw = noise.normal if self.normal_latents else noise.uniform
        return draw("latent", 12).double()

    def decode(self, networks: Any, progress: Any, latents: Tensor, like: Batch | None = None) -> Tensor:
        unit = latents / latents.norm(dim=1, keepdim=True) if self.normal_latents else latents
        return (self.scale * unit).reshape(-1, 3, 2, 2)


class Exactly:
    """A distance in float64; the file's would round the images to float32."""

    identity: dict[str, Any] = {"name": "squares"}  # noqa: RUF012

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return Squares()(a, b)


def saved(folder: Path, module: torch.nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(module), folder / "network.pt")
    return folder / "network.pt"


def walks(game: Any, positions: Tensor) -> Pictures:
    like = SimpleNamespace()
    return Pictures(
        torch.zeros(len(positions), 3, 2, 2).byte(),
        step=partial(step, game, {}, cast(Any, like), 7, positions, None),
    )


def length_of(game: Any, count: int, batch: int, distance: Any, ranks: Ranks = Alone()) -> float:
    bench = cast(Any, SimpleNamespace(config=SimpleNamespace(samples=count)))
    tally = PathLength(bench, distance).start(2, ["ppl"])
    first, end = (count * index // ranks.count for index in (ranks.index, ranks.index + 1))
    for start in range(first, end, batch):
        tally.add(walks(game, torch.arange(start, min(start + batch, end))))
    tally.gather(ranks)
    return tally.results()["ppl"].value


def drawn(game: Any, count: int) -> list[np.ndarray]:
    ends = ("start", "end")
    return [game.latents(Noise(7, ("path", which), torch.arange(count))).numpy() for which in ends]


def trimmed(values: np.ndarray) -> float:
    """As StyleGAN's released code rejects outliers."""
    low, high = np.percentile(values, 1, method="lower"), np.percentile(values, 99, method="higher")
    return float(np.mean(values[(low <= values) & (values <= high)]))


def test_on_the_sphere_the_length_is_that_of_the_angle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images move at the rate scale * w: d / e² is (scale * w)², less the arc's own bending of (e w)² / 12."""
    game = Pixels(3.0)
    monkeypatch.setattr("advgen.metrics.path_length._as_judged", lambda images: images)  # keeps float64
    start, end = drawn(game, 300)
    cosine = (start * end).sum(1) / np.linalg.norm(start, axis=1) / np.linalg.norm(end, axis=1)
    wanted = trimmed((3 * np.arccos(cosine)) ** 2)
    assert length_of(game, 300, 64, Exactly()) == pytest.approx(wanted, rel=1e-6)
    assert length_of(Pixels(6.0), 300, 64, Exactly()) == pytest.approx(4 * wanted, rel=1e-6)


def test_between_latents_of_a_box_ways_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    game = Pixels(1.0, normal=False)
    monkeypatch.setattr("advgen.metrics.path_length._as_judged", lambda images: images)
    start, end = drawn(game, 200)
    assert length_of(game, 200, 50, Exactly()) == pytest.approx(trimmed(((end - start) ** 2).sum(1)), rel=1e-6)


def test_neither_batches_nor_ranks_move_it() -> None:
    game = Pixels(1.0)
    alone = length_of(game, 50, 50, Exactly())
    assert [length_of(game, 50, batch, Exactly()) for batch in (1, 7, 64)] == pytest.approx([alone] * 3, rel=1e-9)
    for count in (2, 4):
        found = on_ranks(count, lambda ranks: length_of(game, 50, 5, Exactly(), ranks))
        assert found == pytest.approx([alone] * count, rel=1e-9)


def test_the_trimmed_mean_is_that_of_the_released_code() -> None:
    draw = np.random.default_rng(0)
    for count in (1, 2, 57, 1000):
        values = draw.standard_cauchy(count)
        assert trimmed_mean(torch.from_numpy(values)) == pytest.approx(trimmed(values), rel=1e-12)


@pytest.mark.parametrize("case", ["progan", "cgan", "cgan mlp", "gan"])
@needs_lite0
def test_games_are_walked_through(tmp_path: Path, case: str) -> None:
    """Their images a step apart are those of latents a step apart, and the step is small."""
    game = build_game(recipe_of(tmp_path, case))
    assert isinstance(game, DrawsLatents)
    networks = {name: network.eval() for name, network in game.networks.items()}
    progress = Timeline(game.phases).at_end_of(len(game.phases) - 1)
    positions = torch.arange(4)
    like = Batch(torch.empty(4, 0), positions % 2) if case.startswith("cgan") else None
    walked = partial(step, game, networks, progress, 7, positions, like)
    near, far = walked(1e-4)
    assert near.shape == far.shape and 0 < (near - far).abs().max() < 0.01
    same, other = walked(0.0)
    assert torch.equal(same, near) and torch.equal(other, near)
    bench = cast(Any, SimpleNamespace(config=SimpleNamespace(samples=4)))
    tally = PathLength(bench, diversity.Lite0Distance()).start(near.shape[-2], ["ppl_lite0"])
    tally.add(Pictures(torch.zeros(4, 3, 1, 1).byte(), step=walked))
    tally.gather(Alone())
    value = tally.results()["ppl_lite0"].value
    assert math.isfinite(value) and value > 0


@needs_lite0
def test_pairs_have_the_distance_of_sets_of_two() -> None:
    images = crops("portrait", 4, 32).float() / 127.5 - 1
    distance = diversity.Lite0Distance()
    found = distance(images[:2], images[2:])
    for row in range(2):
        layers = distance.layers(images[[row, row + 2]])
        assert float(found[row]) == pytest.approx(diversity.mean_distance(layers), rel=1e-12)


def test_large_images_are_reduced_and_grey_ones_spread(tmp_path: Path) -> None:
    image = torch.rand(1, 1, 768, 1024, generator=torch.Generator().manual_seed(0)).double()

    def ends(_: float) -> tuple[Tensor, Tensor]:
        return image, torch.zeros_like(image)

    bench = cast(Any, SimpleNamespace(config=SimpleNamespace(samples=1)))
    tally = PathLength(bench, load_lpips(saved(tmp_path, Squares()), "ppl")).start(768, ["ppl"])
    tally.add(Pictures(torch.zeros(1, 3, 1, 1).byte(), step=ends))
    means = image.numpy()[:, :, :, :1023].reshape(1, 1, 256, 3, 341, 3).mean((3, 5))
    assert tally.results()["ppl"].value == pytest.approx(3 * (means**2).sum() / 1e-8, rel=1e-5)


def test_lpips_diversity_is_the_mean_over_neighbours(tmp_path: Path) -> None:
    images = crops("earth", 6, 8)
    reference = cast(Any, SimpleNamespace(device=torch.device("cpu")))
    files = MetricFiles(lpips=saved(tmp_path, Squares()))
    measure = METRICS["lpips_diversity"].measure(
        Bench(EvaluationConfig(samples=6), files, ImageSpec(8), reference, None)
    )
    tally = measure.start(8, ["lpips_diversity"])
    tally.add(Pictures(images[:4]))
    tally.add(Pictures(images[4:]))
    scaled = images.double().numpy() / 127.5 - 1
    wanted = ((scaled[1:] - scaled[:-1]) ** 2).sum((1, 2, 3)).mean()
    assert tally.results()["lpips_diversity"].value == pytest.approx(wanted, rel=1e-5)
    assert measure.protocol("lpips_diversity", 8)["extractor"]["name"] == "torchscript"


class Wrong(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Broken(torch.nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.full((len(a), 1, 1, 1), float("nan"))


@pytest.mark.parametrize(("module", "message"), [(Wrong(), r"gives \[1, 3, 8, 8\]"), (Broken(), "gives nan")])
def test_another_network_is_refused(tmp_path: Path, module: torch.nn.Module, message: str) -> None:
    images = torch.zeros(2, 3, 8, 8)
    with pytest.raises(UserError, match=message):
        load_lpips(saved(tmp_path, module), "ppl")(images, images)


@pytest.mark.parametrize("name", ["ppl", "lpips_diversity"])
def test_without_a_file_the_setting_is_named(name: str) -> None:
    reference = cast(Any, SimpleNamespace(device=torch.device("cpu")))
    with pytest.raises(UserError, match=rf"^{name}: needs LPIPS .*evaluation\.lpips"):
        METRICS[name].measure(Bench(EvaluationConfig(), MetricFiles(), ImageSpec(8), reference, None))
