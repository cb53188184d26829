"""FID's Inception network with random weights, as a file: for tests and benchmarks, where the published file is not."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class _Untouched(FeatureExtractorInceptionV3):
    def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
        """Keep the weights of the constructor."""


def write_random_inception(path: Path, seed: int = 0) -> Path:
    """Write seeded weights in the form of the published file, without batch counters.

    Convolutions are drawn from N(0, 2 / fan in) (He et al. 2015), so that images stay apart on their way through: with
    torch's own initialisation all features shrink to about 1e-7.
    """
    empty = path.with_name("empty.pth")
    torch.save({}, empty)
    with torch.random.fork_rng(devices=[]):
        network = _Untouched("x", ["2048"], feature_extractor_weights_path=empty)
    empty.unlink()
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            deviation = math.sqrt(2 / module.weight[0].numel())
            module.weight.data = deviation * torch.randn(module.weight.shape, generator=generator)
    state = {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(state, path)
    return path


def fidelity_network(path: Path, *layers: str) -> FeatureExtractorInceptionV3:
    """torch-fidelity's own extractor of these layers with the file's weights."""
    state: dict[str, Tensor] = torch.load(path, weights_only=True)
    counted = {k.replace("running_var", "num_batches_tracked"): torch.tensor(0) for k in state if "running_var" in k}
    whole = path.with_name("counted.pth")
    torch.save(counted | state, whole)
    with torch.random.fork_rng(devices=[]):
        return FeatureExtractorInceptionV3("inception-v3-compat", list(layers), feature_extractor_weights_path=whole)
