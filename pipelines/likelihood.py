"""``advgen likelihood RUN``: how probable a run's model finds held-out data."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from advgen.config import Recipe
from advgen.errors import UserError
from advgen.runtime.run_folder import RunFolder
from advgen.strict_config import parse, read_yaml
from pipelines.terminal import console, counting


def main(argv: list[str]) -> int:
    """Score held-out data."""
    parser = argparse.ArgumentParser(
        prog="advgen likelihood",
        description="Estimate log p(x) of held-out data by a run's newest checkpoint: by annealed importance sampling, "
        "by the importance-weighted bound, and by the game's own evidence bound, which is no figure to quote alone. "
        "Records go to likelihood.jsonl in the run folder.",
    )
    parser.add_argument("run", type=Path, help="run folder, such as runs/NAME")
    parser.add_argument("--count", type=int, default=100, help="held-out samples, from the first on")
    parser.add_argument("--seed", type=int, default=0, help="of chains and proposals")
    parser.add_argument("--steps", type=int, default=1000, help="intermediate targets")
    parser.add_argument("--chains", type=int, default=16, help="for each sample")
    parser.add_argument("--leapfrog", type=int, default=10, help="steps of the integrator in each transition")
    parser.add_argument("--importance-samples", type=int, default=1000, help="of the importance-weighted bound")
    given = parser.parse_args(argv)
    for name in ("count", "steps", "chains", "leapfrog", "importance_samples"):
        if getattr(given, name) < 1 + (name == "count"):
            raise UserError(f"--{name.replace('_', '-')} must be at least {1 + (name == 'count')}.")
    if given.seed < 0:
        raise UserError("--seed must be at least 0.")
    folder = RunFolder(given.run).require()
    recipe = parse(Recipe, read_yaml(folder.config), str(folder.config))
    from advgen.likelihood.annealing import Annealing
    from advgen.runtime.tracking import JsonLines
    from advgen.scoring import Scorer, summary

    how = Annealing(steps=given.steps, chains=given.chains, leapfrog=given.leapfrog)
    scorer = Scorer(recipe, folder)
    with counting("held-out data, targets passed") as told:
        scored = scorer.score(given.count, given.seed, how, given.importance_samples, told)
    with counting("data of the model itself, targets passed") as told:
        gap = scorer.gap(max(2, given.count // 2), given.seed, how, told)
    record = {
        **scorer.about,
        "count": given.count,
        "seed": given.seed,
        "annealing": dataclasses.asdict(how),
        "importance_samples": given.importance_samples,
        **scored.record(),
        **summary(gap=gap),
    }
    log = JsonLines(folder.likelihood)
    log.write(record)
    log.sync()
    log.close()
    for name, what in (
        ("annealed", "log p(x), annealed importance sampling"),
        ("gap", "its gap on data of the model itself"),
        ("importance", f"importance-weighted bound, {given.importance_samples} samples"),
        ("bound", "the game's own bound"),
    ):
        console.print(f"{what:<42} {record[name]:10.3f} ± {1.96 * record[f'{name}_standard_error']:.3f} nats")
    return 0
