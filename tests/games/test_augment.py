"""ADA inside a game: the trainer saves, restores and resumes its state, and R1 goes through it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from advgen.build import GAMES
from advgen.game import Batch, Context, ImageSpec, Outcome
from advgen.games.gan.config import GanConfig
from advgen.games.gan.game import Gan
from advgen.losses import adversarial, penalties
from advgen.nn.ada import AdaptiveAugment
from advgen.nn.augment_config import AdaptiveAugmentConfig
from advgen.runtime.checkpoint import latest_checkpoint, read_checkpoint
from tests.distributed.runs import logged, make_shards, write_recipe
from tests.games.test_resume import GAME_SETTINGS, play


class AugmentedGan(Gan):
    """The plain GAN, used as the docstring of advgen.nn.ada says."""

    def __init__(self, config: GanConfig, spec: ImageSpec) -> None:
        super().__init__(config, spec)
        settings = AdaptiveAugmentConfig(target=-0.9, kimg=0.5, interval=3)  # p rises whatever the scores are
        self.augment = AdaptiveAugment(settings)
        self.networks = {**self.networks, "augment": self.augment}

    def discriminator_loss(self, context: Context, batch: Batch) -> Outcome:
        network, augment = context.networks["discriminator"], self.augment
        with torch.no_grad():
            fake = self._generate(context)

        def critic(images: Tensor) -> Tensor:
            return network(augment(images, context.noise, "augment real"))

        real_scores, fake_scores = critic(batch.images), network(augment(fake, context.noise, "augment fake"))
        total = adversarial.logistic_discriminator(real_scores, fake_scores) + penalties.r1(critic, batch.images)
        augment.observe(real_scores, context.across)
        augment.adjust(context.progress.phase.batch_size)
        return Outcome(total, {"p": augment.p.clone()})

    def generator_loss(self, context: Context, batch: Batch) -> Outcome:
        fake = self.augment(self._generate(context), context.noise, "augment fake")
        return Outcome(adversarial.logistic_generator(context.networks["discriminator"](fake)))


def test_a_run_stopped_within_an_interval_ends_as_the_one_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(GAMES, "gan", (__name__, "AugmentedGan"))
    make_shards(tmp_path)
    for name, stops in (("whole", []), ("cut", [4, 3])):
        recipe = write_recipe(tmp_path / f"{name}.yaml", name=name, game=GAME_SETTINGS["gan"])
        for steps in stops:
            assert not play(recipe, steps)
            newest = latest_checkpoint(tmp_path / "runs" / name / "checkpoints")
            assert newest is not None
            assert read_checkpoint(newest).networks["augment.count"].item() == 16
        assert play(recipe, None)
    ends = []
    for name in ("whole", "cut"):
        newest = latest_checkpoint(tmp_path / "runs" / name / "checkpoints")
        assert newest is not None
        ends.append(read_checkpoint(newest).networks)
    assert ends[0].keys() == ends[1].keys()
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    assert logged(tmp_path / "runs/whole") == logged(tmp_path / "runs/cut")
    # Two batches of 8 at each of 10 steps: six whole intervals of 3 batches, and 2 batches more.
    assert ends[0]["augment.p"].item() == pytest.approx(6 * 24 / 500, abs=1e-6)
    assert ends[0]["augment.count"].item() == 16
