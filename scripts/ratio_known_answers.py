"""``fit_ratio`` against densities whose log-ratio is known: prints the tables of docs/ratio.md.

    python scripts/ratio_known_answers.py               # every set, five seeds; under a minute on one core
    python scripts/ratio_known_answers.py --coverage    # how often KL's 95 % intervals hold the exact value

p = N(0, I) and q = N(mean, diag scale²), but for ``two_modes``, which no quadratic log-ratio fits: p is an equal
mixture of N((±1.5, 0), diag(0.7², 1)), and q the Gaussian of its first two moments. Errors of log r are means over the
samples that were fitted to (cross-fitted) and over 20,000 new samples of each side: the equal mixture (p + q) / 2.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from advgen.ratio import fit_ratio

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """Two densities.

    Attributes:
        draw: n samples of p and of q, [n, d] each, by a generator.
        log_ratio: log p/q at [n, d].
        kl, reverse_kl: nats.
    """

    draw: Callable[[int, np.random.Generator], tuple[Array, Array]]
    log_ratio: Callable[[Array], Array]
    kl: float
    reverse_kl: float


def gaussians(mean: list[float], scale: list[float]) -> Known:
    """p = N(0, I) and q = N(mean, diag scale²)."""
    m, s = np.array(mean), np.array(scale)
    return Known(
        lambda n, draw: (draw.standard_normal((n, len(m))), m + s * draw.standard_normal((n, len(m)))),
        lambda x: (((x - m) / s) ** 2 / 2 - x**2 / 2 + np.log(s)).sum(1),
        float((np.log(s) + (1 + m**2) / (2 * s**2) - 0.5).sum()),
        float((-np.log(s) + (s**2 + m**2) / 2 - 0.5).sum()),
    )


def two_modes() -> Known:
    """A mixture against the Gaussian of its moments; the divergences by quadrature."""
    centre, width = 1.5, 0.7
    spread = float(np.hypot(centre, width))

    def log_ratio(x: Array) -> Array:
        modes = [-(((x[:, 0] - c) / width) ** 2) / 2 for c in (centre, -centre)]
        return np.logaddexp(*modes) - np.log(2 * width) + (x[:, 0] / spread) ** 2 / 2 + np.log(spread)

    def draw(n: int, draw: np.random.Generator) -> tuple[Array, Array]:
        p, q = draw.standard_normal((n, 2)), draw.standard_normal((n, 2))
        p[:, 0] = width * p[:, 0] + centre * draw.choice([-1, 1], n)
        q[:, 0] *= spread
        return p, q

    grid = np.linspace(-14, 14, 200_001)[:, None]
    t = log_ratio(grid)
    q = np.exp(-((grid[:, 0] / spread) ** 2) / 2) / np.sqrt(2 * np.pi) / spread
    kl, reverse_kl = (float(np.trapezoid(each, grid[:, 0])) for each in (q * np.exp(t) * t, -q * t))
    return Known(draw, log_ratio, kl, reverse_kl)


SETS = {
    "gauss2": gaussians([1.2, -0.6], [1.3, 0.8]),
    "gauss8": gaussians([0.8, -0.5, 0.4, -0.3, 0.5, 0.0, 0.2, -0.4], [1.3, 0.8, 1.2, 0.9, 1.0, 1.25, 0.85, 1.1]),
    "two_modes": two_modes(),
}


def errors(name: str, n: int, seed: int) -> tuple[float, float, float, float, float]:
    """Mean absolute errors of log r at the fitted samples and at new ones, relative errors of both KL, seconds."""
    known = SETS[name]
    draw = np.random.default_rng([seed, n])
    p, q = known.draw(n, draw)
    start = time.process_time()
    fitted = fit_ratio(p, q, seed=seed)
    seconds = time.process_time() - start
    new = np.concatenate(known.draw(20_000, draw))
    truth = known.log_ratio(np.concatenate([p, q]))
    own = torch.cat([fitted.log_ratio_p, fitted.log_ratio_q]).numpy()
    return (
        float(abs(own - truth).mean()),
        float(abs(fitted.log_ratio(new).numpy() - known.log_ratio(new)).mean()),
        fitted.kl.value / known.kl - 1,
        fitted.reverse_kl.value / known.reverse_kl - 1,
        seconds,
    )


def coverage(name: str, n: int, seeds: int) -> tuple[float, float, float, float]:
    """Shares of the 95 % intervals that hold KL and reverse KL, and of those that leave the fit's error out."""
    known = SETS[name]
    held = np.zeros(4)
    for seed in range(seeds):
        p, q = known.draw(n, np.random.default_rng([seed, n]))
        fitted = fit_ratio(p, q, seed=seed)
        for at, (found, exact, t) in enumerate(
            (
                (fitted.kl, known.kl, fitted.log_ratio_p),
                (fitted.reverse_kl, known.reverse_kl, fitted.log_ratio_q),
            )
        ):
            off = abs(found.value - exact)
            held[at] += off <= 1.96 * found.standard_error
            held[2 + at] += off <= 1.96 * float(t.std()) / len(t) ** 0.5
    share = held / seeds
    return float(share[0]), float(share[1]), float(share[2]), float(share[3])


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--coverage", action="store_true", help="of the intervals, n = 2,000 a side")
    parser.add_argument("--seeds", type=int, help="how many; 5, for coverage 100")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS), metavar="SET", help=", ".join(SETS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.coverage:
        print(
            "| set | n a side | seeds | KL held | reverse KL held | KL, fit's error left out | reverse KL, likewise |"
        )
        print("|---|---|---|---|---|---|---|")
        seeds = given.seeds or 100
        for name in given.sets:
            shares = " | ".join(f"{share:.2f}" for share in coverage(name, 2000, seeds))
            print(f"| {name} | 2,000 | {seeds} | {shares} |", flush=True)
        return
    print("| set | n a side | seed | error of log r | at new samples | KL | reverse KL | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.sets:
        for n in (5_000, 20_000):
            for seed in range(given.seeds or 5):
                own, new, kl, reverse_kl, seconds = errors(name, n, seed)
                figures = f"{own:.3f} | {new:.3f} | {kl:+.1%} | {reverse_kl:+.1%} | {seconds:.1f}"
                print(f"| {name} | {n:,} | {seed} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
