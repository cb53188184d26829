from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from advgen.errors import UserError
from advgen.nn.augment_config import AdaptiveAugmentConfig, AugmentConfig, DiffAugment, NoAugment, Transform
from advgen.strict_config import configuration, dump_yaml, parse, read_yaml


@configuration
class Holder:
    augment: AugmentConfig = NoAugment()


@pytest.fixture
def read(tmp_path: Path):
    def of(text: str) -> Holder:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        return parse(Holder, read_yaml(path), "recipe.yaml")

    return of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{kind: none}", NoAugment()),
        ("{kind: diffaugment, policy: [translation, cutout]}", DiffAugment(policy=("translation", "cutout"))),
        ("{kind: ada}", AdaptiveAugmentConfig(target=0.6, kimg=500.0, interval=4)),
        ("{kind: ada, kimg: 100, transforms: [xflip]}", AdaptiveAugmentConfig(kimg=100.0, transforms=("xflip",))),
    ],
)
def test_kinds_are_read_and_written(read, text: str, expected: AugmentConfig) -> None:
    holder = read(f"augment: {text}\n")
    assert holder.augment == expected
    assert read(dump_yaml(holder)) == holder


def test_by_default_all_of_the_papers_set() -> None:
    from typing import get_args

    assert AdaptiveAugmentConfig().transforms == get_args(Transform)
    assert DiffAugment().policy == ("color", "translation", "cutout")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: sometimes}", "must be one of"),
        ("{kind: diffaugment, policy: [colour]}", "augment.policy.0"),
        ("{kind: diffaugment, policy: []}", "use kind: none"),
        ("{kind: ada, transforms: [hue, hue]}", "none twice"),
        ("{kind: ada, target: 1.5}", "target must lie in"),
        ("{kind: ada, interval: 0}", "interval at least 1"),
        ("{kind: ada, kimg: 0}", "kimg must be positive"),
    ],
)
def test_mistakes_are_told(read, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(f"augment: {text}\n")


def test_torch_is_not_imported() -> None:
    program = "import sys, advgen.nn.augment_config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
