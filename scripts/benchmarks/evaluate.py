"""The evaluation's heavy parts beside the reference implementations.

    python scripts/bench.py evaluate frechet                     # 50,000 features of 2,048 dimensions
    python scripts/bench.py evaluate neighbours                  # precision ... coverage, 50,000 against 50,000
    python scripts/bench.py evaluate inception --images 200
    python scripts/bench.py evaluate overlap --delay-ms 20

* ``frechet``: the distance itself, from means and covariances that are there: ours, scipy's matrix root, and the
  functions of pytorch-fid and torch-fidelity, one after the other on the same threads. Then once more of fewer features
  than dimensions, where the reference is the nuclear norm of the product of the centred features.
* ``neighbours``: the four figures in float32. Memory is the process's highest resident size during the search, less
  the size before it, at which both sets of features are there.
* ``inception``: images a second from files to features, loading included. The same pictures and the same random
  weights; the three take turns, round after round. torch-fidelity and pytorch-fid load PNG files with their own data
  loaders (their defaults, in processes of their own), advgen its shards.
* ``overlap``: whether advgen loads while it computes. Loading alone, the extractor alone on images in memory, and both
  as `advgen evaluate` has them, in turns. With enough cores the last takes as long as the longer of the two where they
  overlap, and as long as their sum where they do not. On one core work cannot overlap work; waiting can, and
  `--delay-ms` makes loading wait so long for each image, as a slow store does.
"""

from __future__ import annotations

import argparse
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.linalg
import torch

from advgen.metrics.frechet import frechet_distance
from advgen.metrics.neighbours import Cloud, K, figures
from advgen.metrics.statistics import FeatureStatistics
from scripts.benchmarks.evaluate_images import inception, overlap
from scripts.benchmarks.measure import Report, parser_of, timed, with_json


def features(n: int, dimensions: int, seed: int, turned: int = 0) -> torch.Tensor:
    """float32 [n, dimensions], Gaussian; variances fall as 1 / i along axes of the seed ``turned``."""
    axes = torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(turned))
    axes = torch.linalg.qr(axes)[0]
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, dimensions + 1).rsqrt()[:, None]
    return torch.cat([torch.randn(part, dimensions, generator=generator) @ (scale * axes) for part in sliced(n)])


def sliced(n: int, size: int = 5000) -> list[int]:
    return [min(size, n - start) for start in range(0, n, size)]


def moments(rows: torch.Tensor) -> FeatureStatistics:
    """Batch by batch, as in an evaluation."""
    found = FeatureStatistics(rows.shape[1])
    for part in rows.split(5000):
        found.add(part)
    return found


def frechet(report: Report, n: int, dimensions: int) -> None:
    """The distance from two means and covariances."""
    from pytorch_fid.fid_score import calculate_frechet_distance
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    a, b = (moments(features(n, dimensions, seed, seed)) for seed in (0, 1))
    mean_a, mean_b, covariance_a, covariance_b = (x.numpy() for x in (a.mean, b.mean, a.covariance, b.covariance))

    def by_scipy() -> float:
        root = np.real(np.asarray(scipy.linalg.sqrtm(covariance_a @ covariance_b)))
        return float(np.sum((mean_a - mean_b) ** 2) + np.trace(covariance_a + covariance_b - 2 * root))

    def by_fidelity() -> float:
        sides = ({"mu": mean_a, "sigma": covariance_a}, {"mu": mean_b, "sigma": covariance_b})
        return fid_statistics_to_metric(*sides, verbose=False)["frechet_inception_distance"]

    contenders = {
        "advgen": lambda: frechet_distance(a, b),
        "scipy.linalg.sqrtm": by_scipy,
        "pytorch-fid": lambda: float(calculate_frechet_distance(mean_a, covariance_a, mean_b, covariance_b)),
        "torch-fidelity": by_fidelity,
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The `disp` argument", DeprecationWarning)
        found = {name: timed(work) for name, work in contenders.items()}
    value, clock, processor = found["advgen"]
    rows = [
        [name, f"{seconds:.2f}", f"{used:.2f}", f"{used / processor:.1f}", f"{abs(other / value - 1):.1e}"]
        for name, (other, seconds, used) in found.items()
    ]
    report.say(f"{n:,} features of {dimensions:,} dimensions.")
    report.table(["by", "s", "processor s", "times advgen's", "relative difference"], rows)
    report.figures["frechet"] = found

    few = dimensions // 4
    a, b = (moments(features(few, dimensions, seed, seed)) for seed in (0, 1))
    value, clock, _ = timed(lambda: frechet_distance(a, b))
    centred = [x.double() - x.double().mean(0) for x in (features(few, dimensions, seed, seed) for seed in (0, 1))]
    root = torch.linalg.svdvals(centred[0] @ centred[1].T).sum() / (few - 1)
    wanted = float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root)
    report.figures["few"] = {"features": few, "seconds": clock, "value": value, "wanted": wanted}
    apart = abs(value / wanted - 1)
    report.say(f"{few:,} features: {clock:.2f} s, relative difference from the nuclear norm {apart:.1e}.")


def resident(field: str) -> int:
    """A line of this process's status, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def neighbours(report: Report, n: int, dimensions: int) -> None:
    """Precision, recall, density and coverage."""
    reals, fakes = (features(n, dimensions, seed) for seed in (0, 1))
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the highest size so far

    def search() -> float:
        cloud = Cloud(reals)
        fakes.sub_(cloud.centre)
        found.update(figures(*cloud.of(None), fakes, tuple(K)))
        return 0.0

    found: dict[str, float | None] = {}
    _, clock, processor = timed(search)
    held = 4 * dimensions * 2 * n
    more = resident("VmHWM") - before
    report.figures["neighbours"] = {"seconds": clock, "processor_seconds": processor, "bytes": more, **found}
    values = ", ".join(f"{value:.4f}" for value in found.values() if value is not None)
    sizes = [f"{n:,} x {n:,} x {dimensions:,}", f"{held >> 20:,}", f"{more >> 20:,}"]
    columns = ["sets", "features MiB", "more at the peak MiB", "s", "processor s"]
    times = [f"{clock:.1f}", f"{processor:.1f}"]
    report.table([*columns, "precision, recall, density, coverage"], [[*sizes, *times, values]])


def main(arguments: Sequence[str]) -> None:
    """Measure and print."""
    parser = parser_of("evaluate", __doc__, parts=True)
    what = parser.add_subparsers(dest="what", required=True)

    def add(name: str) -> argparse.ArgumentParser:
        each = what.add_parser(name, parents=[with_json()])
        each.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        return each

    for each in (add("frechet"), add("neighbours")):
        each.add_argument("--n", type=int, default=50_000, help="features of a set")
        each.add_argument("--dimensions", type=int, default=2048)
    for each in (add("inception"), overlapping := add("overlap")):
        each.add_argument("--images", type=int, default=200)
        each.add_argument("--size", type=int, default=64, help="pixels a side")
        each.add_argument("--rounds", type=int, default=3)
    overlapping.add_argument("--batch", type=int, default=64, help="images that are loaded at a time, a multiple of 64")
    overlapping.add_argument("--features", choices=["inception", "lite0"], default="inception")
    overlapping.add_argument("--delay-ms", type=float, default=0.0, help="waited for each image while loading")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    with Report(given) as report:
        report.say(f"{given.threads} threads, scipy {scipy.__version__}.")
        if given.what == "frechet":
            frechet(report, given.n, given.dimensions)
        elif given.what == "neighbours":
            neighbours(report, given.n, given.dimensions)
        elif given.what == "inception":
            inception(report, given.images, given.size, given.rounds)
        else:
            overlap(report, given.images, given.size, given.rounds, given.batch, given.delay_ms, given.features)
