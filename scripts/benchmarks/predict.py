"""What the cost model (advgen/launch/scaling.py) says of 8 to 512 GPUs, as Markdown, and a plot of it.

    python scripts/bench.py predict --plot docs/scaling.png
    python scripts/bench.py predict --progan-seconds-per-kimg 31 --pix2pixhd-images-per-second 6

Nothing here is measured on a GPU. Rates of one GPU are flags; a node is one of 8 H100, by data sheets and NCCL's own
constants. docs/scaling.md says where each figure is from.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from advgen.files import atomic
from advgen.launch.estimate import checkpoint_bytes
from advgen.launch.scaling import Collective, Compute, Link, Network, StepTime, Work, ddp_buckets, step_time

# NVLink 4: 450 GB/s in each direction; a card of 400 Gbit/s a GPU: 50 GB/s; of each 80 % are taken as reached.
# Latencies as in NCCL's tuning model for LL128: 1.9 us a hop in a node, 8.5 us a level of its trees, 10 us a start.
NVLINK = Link(0.8 * 450e9, 1.9e-6)
NETWORKS = {
    "NVLink, 400 Gbit/s a GPU": Network(NVLINK, Link(0.8 * 50e9, 8.5e-6), 8, 10e-6),
    "NVLink, 25 Gbit/s a node": Network(NVLINK, Link(0.8 * 25e9 / 8 / 8, 30e-6), 8, 10e-6),
}
FAST, SLOW = NETWORKS
RANKS = (1, 8, 16, 32, 64, 128, 256, 512)
SMALL = (Collective("all_reduce", 8, every=10), Collective("all_reduce", 72, every=50))  # votes, scalars


@dataclass(frozen=True)
class Training:
    """What is trained.

    Attributes:
        name: for people.
        parameters: by player, with the share of a step's computation that is its pass forward and backward.
        first: share of a pass after which the first gradient is ready.
        compute: of one GPU.
        batch: of all GPUs; what the recipe has.
        own: images of a GPU where the batch grows with their number.
        averaged: parameters that an average is kept of.
        group: images in a group of the minibatch standard deviation; 0 without.
    """

    name: str
    parameters: dict[str, tuple[int, float]]
    first: float
    compute: Compute
    batch: int
    own: int
    averaged: int
    group: int = 0

    def step(self, network: Network, ranks: int, images: float) -> StepTime:
        """Of engine ddp, with buckets of 25 MiB."""
        works = [Work(share, ddp_buckets(4 * n, 25, self.first)) for n, share in self.parameters.values()]
        waits = [*SMALL, *(self.statistics(round(images * ranks)) if images < self.group else ())]
        return step_time(self.compute, [*works, Work(0.0, waits)], network, ranks, images)

    def statistics(self, batch: int) -> list[Collective]:
        """Of groups that lie on several GPUs: 512 features of 4 x 4 pixels an image, five times there and back."""
        size = batch * 512 * 4 * 4 * 4
        return 5 * [Collective("all_gather", size), Collective("all_reduce", size)]


def of_rate(seconds_per_image: float, images: int, fixed: float) -> Compute:
    """Computation of a GPU that is so fast with ``images`` a step, of which ``fixed`` seconds are the step's own."""
    return Compute(fixed, seconds_per_image - fixed / images)


def trainings(progan: float, pix2pixhd: float, fixed: float) -> list[Training]:
    """Both, from s/kimg and images/s of one GPU, and the fixed seconds of a step."""
    # Shares of a step as `bench.py scaling` found them for a small ProGAN; of pix2pixHD they are a guess.
    faces = {"discriminator": (23_080_000, 0.7), "generator": (23_080_000, 0.25)}
    streets = {"generator": (182_525_379, 0.6), "discriminator": (5_601_410, 0.3)}
    return [
        Training("ProGAN, 1024 px", faces, 0.8, of_rate(progan / 1000, 4, fixed), 32, 4, 23_080_000, group=4),
        Training("pix2pixHD, 1024 x 512", streets, 0.8, of_rate(1 / pix2pixhd, 1, fixed), 1, 1, 0),
    ]


def table(training: Training, weak: bool) -> Iterator[str]:
    """Steps on the fast network, and what the slow one makes of them."""
    yield (
        "| GPUs | global batch | computing | communicating | of it exposed | images/s | efficiency "
        f"| {SLOW}: images/s | efficiency |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    rate = {}
    for ranks in RANKS:
        images = training.own if weak else training.batch / ranks
        if images < 1:
            break
        cells = []
        for name, network in NETWORKS.items():
            step = training.step(network, ranks, images)
            rate[name, ranks] = images * ranks / step.seconds
            cells.append(f"{rate[name, ranks]:,.0f} | {rate[name, ranks] / ranks / rate[name, 1]:.0%}")
            if name == FAST:
                times = " | ".join(f"{1e3 * s:.1f} ms" for s in (step.compute, step.communication, step.exposed))
                cells.insert(0, f"{images * ranks:.0f} | {times}")
        yield f"| {ranks} | {' | '.join(cells)} |"


def stream(training: Training, sizes: dict[str, int], decoded: float) -> Iterator[str]:
    """What is read with the same number of images on each GPU."""
    yield (
        "| GPUs | images/s | " + " | ".join(f"{name}: MB/s a GPU, all" for name in sizes) + " | cores a GPU to decode |"
    )
    yield "|---|---|" + "---|" * (len(sizes) + 1)
    for ranks in (1, 8, 64, 512):
        rate = training.own * ranks / training.step(NETWORKS[FAST], ranks, training.own).seconds
        read = " | ".join(f"{rate * size / ranks / 1e6:.0f}, {rate * size / 1e6:,.0f}" for size in sizes.values())
        yield f"| {ranks} | {rate:,.0f} | {read} | {rate / ranks / decoded:.2f} |"


def checkpoints(training: Training, bandwidths: tuple[float, ...], copied: float) -> Iterator[str]:
    """Who writes how much, and for how long."""
    yield (
        "| GPUs | whole | rank 0 | each other | training stands still | "
        + " | ".join(f"whole at {each / 1e9:g} GB/s a rank" for each in bandwidths)
        + " |"
    )
    yield "|---|---|---|---|---|" + "---|" * len(bandwidths)
    total = sum(n for n, _ in training.parameters.values())
    whole = checkpoint_bytes(total, training.averaged)
    for ranks in (1, 8, 64, 512):
        other = 4 * 2 * total / ranks
        first = 4 * (total + training.averaged) + other
        times = " | ".join(f"{first / each:.2f} s" for each in bandwidths)
        sizes = " | ".join(f"{size / 1e6:,.0f} MB" for size in (whole, first, other)[: min(ranks, 2) + 1])
        sizes += " | " if ranks == 1 else ""
        yield f"| {ranks} | {sizes} | {first / copied:.2f} s | {times} |"


def evaluation(images: int, seconds_per_image: float, distance: float) -> Iterator[str]:
    """Groups of 64 images cut over ranks, one all-reduce of 2,048 x 2,048 sums in float64, the distance on a CPU."""
    yield "| GPUs | most images of one | draw and extract | all-reduce of 33.6 MB | distance | whole | efficiency |"
    yield "|---|---|---|---|---|---|---|"
    one = images * seconds_per_image + distance
    for ranks in RANKS:
        most = 64 * math.ceil(math.ceil(images / 64) / ranks)
        busy = min(most, images) * seconds_per_image
        summed = NETWORKS[FAST].seconds("all_reduce", 8 * 2048**2, ranks)
        whole = busy + summed + distance
        yield (
            f"| {ranks} | {min(most, images):,} | {busy:.1f} s | {1e3 * summed:.1f} ms | {distance:.1f} s "
            f"| {whole:.1f} s | {one / whole / ranks:.0%} |"
        )


def plot(given: list[Training], path: Path) -> None:
    """Images a second over GPUs: strong and weak scaling, both networks, and what n times as fast would be."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(12.5, 4.1), layout="constrained")
    panels = [(given[0], False), (given[0], True), (given[1], True)]
    for axis, (training, weak) in zip(axes, panels, strict=True):
        ranks = [n for n in RANKS if weak or training.batch >= n]
        images = [training.own if weak else training.batch / n for n in ranks]
        for name, style in zip(NETWORKS, ("o-", "s--"), strict=True):
            rates = [i * n / training.step(NETWORKS[name], n, i).seconds for n, i in zip(ranks, images, strict=True)]
            axis.plot(ranks, rates, style, markersize=4, label=name)
            one = rates[0]
            axis.plot(ranks, [one * n for n in ranks], color="0.7", linewidth=1, zorder=0)
        what = f"{training.own} to a GPU" if weak else f"global batch {training.batch}"
        axis.set(xscale="log", yscale="log", title=f"{training.name}, {what}", xlabel="GPUs", ylabel="images/s")
        axis.set_xticks(ranks, [str(n) for n in ranks], minor=False)
        axis.minorticks_off()
        axis.grid(color="0.92")
    axes[0].legend(frameon=False, title="model, not measured; grey: n times as fast")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def main(arguments: list[str]) -> None:
    """Print, and draw."""
    parser = argparse.ArgumentParser(
        prog="bench.py predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--progan-seconds-per-kimg", type=float, default=25.0, help="of one GPU with 4 images a step")
    parser.add_argument(
        "--pix2pixhd-images-per-second", type=float, default=8.0, help="of one GPU with one image a step"
    )
    parser.add_argument("--fixed-milliseconds", type=float, default=10.0, help="of a step, whatever its batch")
    parser.add_argument("--plot", type=Path, help="draw it to this PNG file")
    given = parser.parse_args(arguments)
    both = trainings(given.progan_seconds_per_kimg, given.pix2pixhd_images_per_second, given.fixed_milliseconds / 1000)
    faces, streets = both
    files = {"JPEG of 254 kB": 254_272, "PNG of 1,064 kB": 1_063_872}  # satellite pictures, docs/results/data.md
    parts = {
        f"{faces.name}: the recipe's batch of {faces.batch}": table(faces, weak=False),
        f"{faces.name}: {faces.own} images a GPU": table(faces, weak=True),
        f"{streets.name}: one image a GPU": table(streets, weak=True),
        f"The stream of {faces.name}, {faces.own} images a GPU": stream(faces, files, decoded=223.0),
        f"Checkpoints of {faces.name}": checkpoints(faces, (0.2e9, 1e9, 5e9), copied=5e9),
        "50,000 images by FID": evaluation(50_000, 1 / 400 + 1 / 2500, 1.8),
    }
    for title, lines in parts.items():
        print(f"### {title}\n", *lines, "", sep="\n")
    if given.plot is not None:
        plot(both, given.plot)
