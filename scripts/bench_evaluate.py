"""The evaluation's heavy parts beside the reference implementations, as Markdown.

    python scripts/bench_evaluate.py frechet                     # 50,000 features of 2,048 dimensions
    python scripts/bench_evaluate.py neighbours                  # precision ... coverage, 50,000 against 50,000
    python scripts/bench_evaluate.py inception --images 200

* ``frechet``: the distance itself, from means and covariances that are there: ours, scipy's matrix root, and the
  functions of pytorch-fid and torch-fidelity, one after the other on the same threads. Then once more of fewer features
  than dimensions, where the reference is the nuclear norm of the product of the centred features.
* ``neighbours``: the four figures in float32. Memory is the process's highest resident size during the search, less
  the size before it, at which both sets of features are there.
* ``inception``: images a second from files to features, loading included. The same pictures and the same random
  weights; the three take turns, round after round. torch-fidelity and pytorch-fid load PNG files with their own data
  loaders (their defaults, in processes of their own), advgen its shards.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import chdir, redirect_stderr
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import scipy.linalg  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

from advgen.data.stream import ImageStream  # noqa: E402
from advgen.metrics.config import EvaluationConfig  # noqa: E402
from advgen.metrics.frechet import frechet_distance  # noqa: E402
from advgen.metrics.inception import load_inception  # noqa: E402
from advgen.metrics.neighbours import Cloud, K, figures  # noqa: E402
from advgen.metrics.ranks import Alone  # noqa: E402
from advgen.metrics.reals import Reals  # noqa: E402
from advgen.metrics.statistics import FeatureStatistics  # noqa: E402
from pipelines.__main__ import main as advgen  # noqa: E402
from tests.unit.metrics.random_inception import fidelity_network, write_random_inception  # noqa: E402


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


def timed(work: Callable[[], float]) -> tuple[float, float, float]:
    """Its value, seconds by the clock, and seconds of processor time."""
    clock, processor = time.perf_counter(), time.process_time()
    value = work()
    return value, time.perf_counter() - clock, time.process_time() - processor


def frechet(n: int, dimensions: int) -> None:
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
    print(f"{n:,} features of {dimensions:,} dimensions.\n")
    print("| by | s | processor s | times advgen's | relative difference |\n|---|---|---|---|---|")
    for name, (other, seconds, used) in found.items():
        print(f"| {name} | {seconds:.2f} | {used:.2f} | {used / processor:.1f} | {abs(other / value - 1):.1e} |")

    few = dimensions // 4
    a, b = (moments(features(few, dimensions, seed, seed)) for seed in (0, 1))
    value, clock, _ = timed(lambda: frechet_distance(a, b))
    centred = [x.double() - x.double().mean(0) for x in (features(few, dimensions, seed, seed) for seed in (0, 1))]
    root = torch.linalg.svdvals(centred[0] @ centred[1].T).sum() / (few - 1)
    wanted = float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * root)
    print(
        f"\n{few:,} features: {clock:.2f} s, relative difference from the nuclear norm {abs(value / wanted - 1):.1e}."
    )


def resident(field: str) -> int:
    """A line of this process's status, in bytes."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def neighbours(n: int, dimensions: int) -> None:
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
    print("| sets | features MiB | more at the peak MiB | s | processor s | precision, recall, density, coverage |")
    print("|---|---|---|---|---|---|")
    values = ", ".join(f"{value:.4f}" for value in found.values() if value is not None)
    sizes = f"{n:,} x {n:,} x {dimensions:,} | {held >> 20:,} | {more >> 20:,}"
    print(f"| {sizes} | {clock:.1f} | {processor:.1f} | {values} |")


def inception(images: int, size: int, rounds: int) -> None:
    """Images a second from files to features."""
    from pytorch_fid import fid_score
    from pytorch_fid import inception as theirs
    from torch_fidelity.utils import extract_featuresdict_from_input_id

    with tempfile.TemporaryDirectory() as place, chdir(place), open(os.devnull, "w") as nowhere:
        weights = write_random_inception(Path("inception.pth"))
        folder = Path("pictures")
        folder.mkdir()
        draw = np.random.default_rng(0)
        for number in range(images):
            coarse = draw.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:05}.png")
        if advgen(["shard", "pictures", "shards", "--resolution", str(size)]):
            raise SystemExit("the pictures were not sharded")
        stream = ImageStream(Path("shards"), seed=0, resolution=size, channels=3, mirror=False, cache_bytes=0)
        reals = Reals(stream, images, EvaluationConfig(), torch.device("cpu"), labelled=False, ranks=Alone())
        extractor = load_inception(weights, expected_sha256=None)
        fidelity = fidelity_network(weights, "2048")
        theirs.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)  # type: ignore
        network = theirs.InceptionV3()
        files = sorted(map(str, folder.glob("*.png")))

        def by_us() -> float:
            return float(torch.cat([each.features(extractor) for each in reals.pictures(size)]).mean())

        def by_fidelity() -> float:
            found = extract_featuresdict_from_input_id(1, fidelity, input1="pictures", cuda=False, verbose=False)
            return float(found["2048"].mean())

        def by_pytorch_fid() -> float:
            with redirect_stderr(nowhere):
                return float(fid_score.get_activations(files, network).mean())

        contenders = {"advgen": by_us, "torch-fidelity": by_fidelity, "pytorch-fid": by_pytorch_fid}
        runs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in contenders}
        for turn in range(rounds):
            names = list(contenders)[turn % 3 :] + list(contenders)[: turn % 3]
            for name in names:
                runs[name].append(timed(contenders[name]))
    print(f"{images} pictures of {size} pixels, {rounds} rounds; medians.\n")
    print("| by | images/s | images a processor s | advgen / it, by the clock | by processor time | mean feature |")
    print("|---|---|---|---|---|---|")
    for name, found in runs.items():
        speeds = [images / statistics.median(each[index] for each in found) for index in (1, 2)]
        pairs = zip(runs["advgen"], found, strict=True)
        ratios = [(them[1] / us[1], them[2] / us[2]) for us, them in pairs]
        gains = [statistics.median(ratio[index] for ratio in ratios) for index in (0, 1)]
        print(f"| {name} | {speeds[0]:.2f} | {speeds[1]:.2f} | {gains[0]:.2f} | {gains[1]:.2f} | {found[0][0]:.6f} |")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    what = parser.add_subparsers(dest="what", required=True)
    for name in ("frechet", "neighbours"):
        each = what.add_parser(name)
        each.add_argument("--n", type=int, default=50_000, help="features of a set")
        each.add_argument("--dimensions", type=int, default=2048)
    each = what.add_parser("inception")
    each.add_argument("--images", type=int, default=200)
    each.add_argument("--size", type=int, default=64, help="pixels a side")
    each.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{platform.machine()}, {given.threads} threads, torch {torch.__version__}, scipy {scipy.__version__}.\n")
    if given.what == "frechet":
        frechet(given.n, given.dimensions)
    elif given.what == "neighbours":
        neighbours(given.n, given.dimensions)
    else:
        inception(given.images, given.size, given.rounds)


if __name__ == "__main__":
    main()
