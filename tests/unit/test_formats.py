"""TorchScript and ONNX say what the network says, or are not written."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from advgen.capabilities import Exports
from advgen.errors import UserError
from advgen.game import ImageSpec, Progress
from advgen.games.gan.config import GanConfig
from advgen.games.gan.game import Gan
from advgen.games.progan.config import ProganConfig
from advgen.games.progan.game import Progan
from advgen.tools.formats import TOLERANCE, write_onnx, write_torchscript

Write = Callable[[nn.Module, Mapping[str, Tensor], Path], float]


@pytest.mark.parametrize("write", [write_torchscript, write_onnx])
def test_a_generator_with_classes_in_the_middle_of_a_fade(tmp_path: Path, write: Write) -> None:
    game = Progan(ProganConfig(latent_size=6, channels={4: 8, 8: 4}), ImageSpec(8, 3, 3))
    fade = game.phases[1]
    assert fade.fade
    progress = Progress(0, 0, fade, round(fade.kimg * 400))
    module, inputs = game.drawer(game.networks, progress)
    assert write(module.eval(), inputs, tmp_path / "model") <= TOLERANCE
    given = {"z": torch.randn(7, 6, generator=torch.Generator().manual_seed(0)), "labels": torch.arange(7) % 3}
    expected = game.networks["generator"](given["z"], given["labels"], 8, 0.4)
    whole = game.networks["generator"](given["z"], given["labels"], 8, 1.0)
    assert (expected - whole).abs().max() > 0.01, "the fade must matter for the test to say anything"
    if write is write_torchscript:
        with warnings.catch_warnings(action="ignore"):  # torch means to replace the format one day
            found = torch.jit.load(tmp_path / "model")(*given.values())
    else:
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / "model")
        found = torch.from_numpy(session.run(None, {name: value.numpy() for name, value in given.items()})[0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["resnet", "mlp"])
@pytest.mark.parametrize("write", [write_torchscript, write_onnx])
def test_plain_gans(tmp_path: Path, write: Write, architecture: str) -> None:
    config = GanConfig(architecture=architecture, latent_size=4, width=4, width_max=4, hidden=8)  # pyright: ignore[reportArgumentType]
    game = Gan(config, ImageSpec(8, 1))
    assert isinstance(game, Exports)
    module, inputs = game.drawer(game.networks, Progress(0, 0, game.phases[0], 0))
    assert write(module.eval(), inputs, tmp_path / "model") <= TOLERANCE


class Fixed(nn.Module):
    """Has the example's values in it as constants."""

    def forward(self, z: Tensor) -> Tensor:
        return z * z.abs().max().item()


def test_what_a_trace_gets_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="model.pt: differs from the network by"):
        write_torchscript(Fixed(), {"z": torch.linspace(-1, 1, 6).reshape(2, 3)}, tmp_path / "model.pt")
