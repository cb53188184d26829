"""Whether the codes of adversarial autoencoders are those of their prior: two-sample tests on images of either split.

    python scripts/known_answers_codes.py runs/codes --train SHARDS --held-out SHARDS --picture docs/aae-codes.png

Trains pipelines/recipes/aae-mnist-prior.yaml with each prior of the plane, where the discriminator is told labels
with the mixture and the swiss roll (section 2.3 of the paper: each digit has its petal or its stretch), and compares
codes of images, the first of the training and all of the held-out ones, with as many draws of the prior: by the
permutation test of the energy distance (Szekely & Rizzo 2004, "Testing for equal distributions in high dimension";
999 permutations; for equal sets p is above 0.05 in 95 % of cases), and by the accuracy of the classifier two-sample
test, by fit_ratio, with its 99 % interval, which holds 0.5 for equal sets. Runs that are there already are not
trained again. What follows the options goes to every run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from known_answers import encoded, trained
from torch import Tensor

from advgen.build import open_stream
from advgen.config import Recipe, load_recipe
from advgen.data.stream import NumberedStream
from advgen.games.aae.config import GaussianPrior, MixturePrior, Prior, SwissRollPrior
from advgen.games.aae.priors import draw
from advgen.images import to_signed
from advgen.ratio import fit_ratio
from advgen.seeds import Noise

RECIPE = Path(__file__).parents[1] / "pipelines" / "recipes" / "aae-mnist-prior.yaml"
PRIORS = {
    "gaussian": GaussianPrior(),
    "mixture": MixturePrior(conditioned=True),
    "swiss_roll": SwissRollPrior(conditioned=True),
}
PERMUTATIONS = 999
COUNTS = (250, 500, 1000, 2000)


def energy_p(a: Tensor, b: Tensor, seed: int) -> float:
    """p of the permutation test of the energy distance between samples [n, d]: 0.001 at least."""
    both, n = torch.cat((a, b)).double(), len(a)
    distances = torch.cdist(both, both)

    def statistic(signs: Tensor) -> Tensor:
        """2 E|A - B| - E|A - A'| - E|B - B'| is minus the quadratic form of the signs, for sets of one size."""
        return -(signs @ distances * signs).sum(dim=1) / n**2

    signs = torch.ones(PERMUTATIONS + 1, 2 * n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for number, row in enumerate(signs):
        order = torch.arange(2 * n) if number == 0 else torch.randperm(2 * n, generator=generator)
        row[order[n:]] = -1
    values = statistic(signs)
    return float((values >= values[0] - 1e-12).double().mean())


def trained_on(name: str, out: Path, shards: list[str], changes: list[str]) -> Recipe:
    """The recipe with a prior, trained."""
    flags = ["--name", f"codes-{name}", "--runs", str(out), "--tracking.wandb", "disabled"]
    recipe = load_recipe(RECIPE, [*flags, *shards, *changes])
    recipe = replace(recipe, game=replace(recipe.game, prior=PRIORS[name]))
    trained(recipe)
    return recipe


def codes_of(recipe: Recipe, prior: Prior, stream: NumberedStream) -> tuple[Tensor, Tensor, Tensor]:
    """Codes [n, 2] of the first images of a stream, as many draws of the prior, and the images' labels."""
    samples, positions = stream.read(np.arange(COUNTS[-1])), torch.arange(COUNTS[-1])
    codes = encoded(recipe, to_signed(torch.from_numpy(samples.images)), Noise(0, ("codes",), positions))
    assert samples.labels is not None
    return codes, draw(prior, 2, Noise(0, ("prior",), positions)), torch.from_numpy(samples.labels).long()


def picture(found: dict[str, tuple[Tensor, Tensor, Tensor]], path: Path) -> None:
    """Codes by class above draws of the prior, a column a prior."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(2, len(found), figsize=(3.6 * len(found), 7), layout="constrained", squeeze=False)
    for column, (name, (codes, prior, labels)) in enumerate(found.items()):
        top, bottom = panels[:, column]
        top.scatter(*codes.T.numpy(), c=labels.numpy(), cmap="tab10", s=3, linewidths=0)
        bottom.scatter(*prior.T.numpy(), color="grey", s=3, linewidths=0)
        reach = float(prior.abs().max()) * 1.05
        for panel, title in ((top, f"{name}: codes"), (bottom, "prior")):
            panel.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--train", required=True, help="shards of MNIST's training images")
    parser.add_argument("--held-out", required=True, help="shards of its test images")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--picture", type=Path, help="PNG file of codes and priors")
    given, changes = parser.parse_known_args()
    torch.set_num_threads(1)
    shards = ["--data.train.shards", given.train, "--data.held-out.shards", given.held_out]
    held_out: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for name in given.priors:
        recipe = trained_on(name, given.out, shards, changes)
        streams = {"training": open_stream(recipe, given.train), "held out": open_stream(recipe, given.held_out)}
        for images, stream in streams.items():
            codes, prior, labels = codes_of(recipe, PRIORS[name], stream)
            told = fit_ratio(codes.double(), prior.double(), seed=0).accuracy
            row = {f"p at {n}": energy_p(codes[:n], prior[:n], seed=n) for n in COUNTS}
            accuracy = {"c2st": told.value, "half": 2.576 * told.standard_error}
            print(json.dumps({"prior": name, "images": images, **row, **accuracy}), flush=True)
            held_out[name] = codes, prior, labels
    if given.picture is not None:
        picture(held_out, given.picture)


if __name__ == "__main__":
    main()
