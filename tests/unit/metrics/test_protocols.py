"""Protocols by name: what they stand for, and what they refuse."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from advgen.errors import UserError
from advgen.game import ImageSpec
from advgen.metrics import METRICS, MetricFiles
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.measures import Bench
from advgen.metrics.panel import Panel
from advgen.metrics.protocols import PROTOCOLS, asked, metric_of
from advgen.metrics.ranks import Alone
from advgen.metrics.reals import Reals


def test_every_protocol_is_of_metrics_that_there_are() -> None:
    figures = [figure for protocol in PROTOCOLS.values() for figure in protocol.figures]
    assert len(set(figures)) == len(figures) and not set(figures) & set(METRICS) and not set(PROTOCOLS) & set(METRICS)
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert all(metric in METRICS and METRICS[metric].of == "samples" for metric in protocol.figures.values())
        (thousands,) = re.findall(r"(\d+)k", name)
        pairs = int(name == "ms_ssim10k")  # each picture with the next: one picture more than pairs
        assert protocol.counts.samples - pairs in (1000 * int(thousands), 1024 * int(thousands))
        assert (name.endswith("_full") or name in ("is50k", "ms_ssim10k")) == (protocol.counts.reference is None)


def test_the_names_of_records_are_those_of_the_field() -> None:
    found = asked(["fd_lite0", "pr50k3", "fid50k_full", "pr50k3"])
    assert [each.name for each in found] == ["fd_lite0", "pr50k3_precision", "pr50k3_recall", "fid50k_full"]
    assert [each.metric.name for each in found] == ["fd_lite0", "precision", "recall", "fid"]
    assert [each.counts and each.counts.samples for each in found] == [None, 50_000, 50_000, 50_000]
    recall, fid, none = metric_of("pr50k3_recall"), metric_of("fid50k_full"), metric_of("fid9k")
    assert recall is METRICS["recall"] and fid is METRICS["fid"] and none is None


def test_a_name_that_is_neither_is_refused_with_all_that_are() -> None:
    with pytest.raises(
        UserError, match="unknown metric 'fid50k_ful'.* Known metrics: .* Known protocols: .*fid50k_full"
    ):
        asked(["fid50k_ful"])


class _Stream:
    digest = "some"

    def __len__(self) -> int:
        return 300

    def __str__(self) -> str:
        return "data/some"


def _panel(monkeypatch: pytest.MonkeyPatch) -> Panel:
    monkeypatch.setattr(
        "advgen.metrics.lite0.load_lite0", lambda _: cast(Any, SimpleNamespace(identity={}, dimensions=3))
    )
    monkeypatch.setattr(
        "advgen.metrics.inception.load_inception", lambda _: cast(Any, SimpleNamespace(identity={}, dimensions=3))
    )
    config = EvaluationConfig(samples=20, reference_samples=100)

    def reals(count: int | None) -> Reals:
        return Reals(cast(Any, _Stream()), count or 300, config, torch.device("cpu"), labelled=False, ranks=Alone())

    return Panel(Bench(config, MetricFiles(), ImageSpec(8), reals(100), None), reals, Alone())


def test_counts_are_those_of_the_protocol_and_stand_in_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = _panel(monkeypatch)
    plain, full = asked(["fid", "fid50k_full"])
    assert (panel.measure(plain).samples, panel.measure(full).samples) == (20, 50_000)
    assert panel.protocol(plain, 8)["reference_samples"] == 100
    said = panel.protocol(full, 8)
    assert (said["name"], said["reference_samples"], said["values"]) == ("fid50k_full", 300, "uint8 0..255")


def test_too_few_real_images_are_refused_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    (fid,) = asked(["fid50k"])
    with pytest.raises(UserError, match="fid50k: is of 50,000 real images, and data/some has 300. .*by its own name"):
        _panel(monkeypatch).measure(fid)
