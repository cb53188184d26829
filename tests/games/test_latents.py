"""Every game that draws latents: they are those of its samples, and decoded alone give the same images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from advgen.build import build_game
from advgen.capabilities import DrawsLatents, Encodes, Samples
from advgen.errors import UserError
from advgen.game import Batch
from advgen.seeds import Noise
from advgen.timeline import Timeline
from tests.games.test_table import recipe_of

CLASSES, LABELLED = 2, ("ali", "cgan", "cgan mlp", "progan projection")


@pytest.mark.parametrize("case", ["ali", "ali points", "avb", "cgan", "cgan mlp", "gan", "progan", "progan projection"])
def test_samples_are_images_of_the_drawn_latents(tmp_path: Path, case: str) -> None:
    game = build_game(recipe_of(tmp_path, case))
    assert isinstance(game, Samples) and isinstance(game, DrawsLatents)
    assert game.normal_latents == (case != "cgan mlp")
    networks = {name: network.eval() for name, network in game.networks.items()}
    end = Timeline(game.phases).at_end_of(len(game.phases) - 1)
    noise, labelled = Noise(3, ("x",), torch.arange(5)), case in LABELLED
    like = Batch(torch.empty(5, 0), torch.arange(5) % CLASSES) if labelled else None
    with torch.no_grad():
        z = game.latents(noise)
        assert z.shape[0] == 5 and z.ndim == 2
        torch.testing.assert_close(
            game.decode(networks, end, z, like), game.sample(networks, end, noise, like), rtol=0, atol=0
        )
        if labelled:
            assert game.sample(networks, end, noise).shape[0] == 5  # of random classes
            with pytest.raises(UserError, match="take.? labels"):
                game.decode(networks, end, z)


def test_a_decoder_alone_encodes_nothing(tmp_path: Path) -> None:
    assert not isinstance(build_game(recipe_of(tmp_path, "gan")), Encodes)
    assert not isinstance(build_game(recipe_of(tmp_path, "pix2pixhd")), DrawsLatents)
