"""FID's own features: the Inception network of Heusel et al. 2017, as torch-fidelity ported it from TensorFlow.

The network is the 2015-12-05 Inception graph (1,008 outputs, TensorFlow's pooling, TensorFlow 1's bilinear resize to
299 without antialias), not torchvision's ``inception_v3``: other weights or another resize give another figure. Its
weights come in no pip package, so the user names the file; nothing is ever downloaded.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from advgen import files
from advgen.errors import UserError
from advgen.metrics.features import Identity, NetworkExtractor, full_float32, read_weights

DIMENSIONS = 2048
PUBLISHED_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of the published file; its first eight digits are part of the file's name."""

_WHO = "the metrics fid, kid, inception_score and others on Inception features"
_WHERE = (
    "The file is published as pt_inception-2015-12-05-6726825d.pth among the releases of mseitzer/pytorch-fid, and "
    "under the name weights-inception-2015-12-05-6726825d.pth among those of toshas/torch-fidelity (GitHub, 96 MB). "
    "Name your copy in the recipe as 'evaluation.inception_weights', or use the metric fd_lite0, which needs no file."
)


class InceptionFeatures(nn.Module):
    """uint8 images to FID's 2,048 pooled features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n, 3, h, w] to float32 [n, 2048]; resized to 299 and scaled to (x - 128) / 128 inside."""
        return self.network(images)[0]


class InceptionExtractor(NetworkExtractor):
    """The extractor of ``fid``, ``kid`` and the other metrics on Inception features."""

    def __init__(self, network: nn.Module, identity: Identity) -> None:
        super().__init__(InceptionFeatures(network), identity, DIMENSIONS, cpu_piece=4)
        self._classes: Tensor = network.fc.weight  # type: ignore[assignment]

    def logits(self, features: Tensor) -> Tensor:
        """Scores of the graph's 1,008 outputs, without their bias, as OpenAI's Inception Score has them.

        Args:
            features: float32 [n, 2048], what the extractor gives.

        Returns:
            float32 [n, 1008], on the device of ``features``.
        """
        with torch.inference_mode(), torch.autocast(features.device.type, enabled=False), full_float32():
            return features @ self._classes.to(features.device).T


def load_inception(weights: Path | None, expected_sha256: str | None = PUBLISHED_SHA256) -> InceptionExtractor:
    """The extractor of ``fid``.

    Args:
        weights: the weights file, as torch-fidelity or pytorch-fid publish it.
        expected_sha256: refuse a file with another hash; None takes any file that fits (the figure is then no FID,
            and the identity says which file it was).

    Returns:
        An :class:`advgen.metrics.features.Extractor` of 2,048 dimensions.

    Raises:
        UserError: no file is named, it is missing, damaged or torchvision's, has another hash, or does not fit the
            network.
    """
    if weights is None:
        raise UserError(f"{_WHO} need a file with FID's Inception weights, and none is named. {_WHERE}")
    if not weights.is_file():
        raise UserError(f"{weights}: no such file; {_WHO} read FID's Inception weights from it. {_WHERE}")
    state = read_weights(weights)
    if "AuxLogits.fc.weight" in state or len(state.get("fc.weight", ())) == 1000:
        raise UserError(
            f"{weights}: holds torchvision's inception_v3, another network than FID's, with other weights: a distance "
            f"on its features is no FID, however close it looks. {_WHERE}"
        )
    given = files.sha256(weights)
    if expected_sha256 is not None and given != expected_sha256:
        raise UserError(
            f"{weights}: is not FID's Inception weights file (sha256 {given}, expected {expected_sha256}). {_WHERE}"
        )
    try:
        network = _build(state)
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        raise UserError(f"{weights}: does not fit FID's Inception network ({message}). {_WHERE}") from None
    identity = {
        "name": "inception-v3-2015-12-05",
        "weights_sha256": given,
        "layer": "pool3-2048",
        "input_size": 299,
        "resize": "bilinear antialias=False (TensorFlow 1.x), float",
        "scale": "(x-128)/128",
    }
    return InceptionExtractor(network, identity)


def _build(state: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's network with the weights ``state``.

    Its constructor unpickles a file without restriction. It gets no file of the user's: only what we have just written
    to memory, the tensors that ``weights_only=True`` let through. It also initialises at random first; the fork keeps
    that from moving the global generator.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    # Batch norm counts batches since PyTorch 0.4; files from before lack the counter, which evaluation never reads.
    counters = {
        name.removesuffix("running_var") + "num_batches_tracked": torch.tensor(0)
        for name in state
        if name.endswith("running_var")
    }
    buffer = io.BytesIO()
    torch.save(counters | dict(state), buffer)
    buffer.seek(0)
    with torch.random.fork_rng(devices=[]):
        return FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=buffer)
