from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.wandb_server import WandbServer, serving_client


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """W&B's service on this machine, and its client told of it."""
    with serving_client(tmp_path / "home", monkeypatch) as found:
        yield found
