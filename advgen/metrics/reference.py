"""Cached statistics of a reference set, so that real images pass the feature network once, not at every checkpoint.

A cache entry is ``<digest>.safetensors`` beside ``<digest>.json``, the digest being one of the key. The JSON holds the
key in full and the hash of the tensors, and is written last: an entry is used only if both agree.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from advgen import files, strict_config
from advgen.metrics.statistics import FeatureStatistics

_FORMAT = 1
_log = logging.getLogger(__name__)


def reference_statistics(
    key_parts: Mapping[str, Any], cache: Path, compute: Callable[[], FeatureStatistics]
) -> FeatureStatistics:
    """Statistics of a reference set: read where they are stored under this very key, else computed and stored.

    Args:
        key_parts: all that the statistics depend on, as plain JSON values: the manifest's digest, the extractor's
            identity, the resolution, the count, which samples.
        cache: folder of the entries; made where it is missing.
        compute: makes the statistics; called only where no sound entry is found.

    Returns:
        The statistics, on the CPU if they were read. A damaged entry is replaced, and a folder that cannot be written
        costs only the next computation: both are logged as warnings, not raised.

    Raises:
        TypeError: ``key_parts`` holds something that JSON cannot express.
    """
    key = json.loads(json.dumps(strict_config.plain(key_parts), sort_keys=True))
    tensors = cache / f"{strict_config.digest(key)}.safetensors"
    sidecar = tensors.with_suffix(".json")
    found = _read(key, tensors, sidecar)
    if found is not None:
        return found
    statistics = compute()
    try:
        _write(key, statistics, tensors, sidecar)
    except OSError as error:
        reason = error.strerror or error
        _log.warning("%s: reference statistics could not be stored (%s); the next run starts over.", cache, reason)
    return statistics


def _read(key: Any, tensors: Path, sidecar: Path) -> FeatureStatistics | None:
    if not sidecar.exists():
        return None
    try:
        entry = json.loads(sidecar.read_text(encoding="utf-8"))
        content = tensors.read_bytes()
        if entry["format"] != _FORMAT or entry["key"] != key:
            return None
        if entry["sha256"] != hashlib.sha256(content).hexdigest():
            raise ValueError("its hash differs from the recorded one")
        return FeatureStatistics.from_tensors(safetensors.torch.load(content))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        _log.warning("%s: the stored reference statistics are damaged (%s) and are computed anew.", tensors, error)
        return None


def _write(key: Any, statistics: FeatureStatistics, tensors: Path, sidecar: Path) -> None:
    content = safetensors.torch.save(statistics.to_tensors())
    with files.atomic(tensors) as temporary:
        temporary.write_bytes(content)
    files.write_json(sidecar, {"format": _FORMAT, "key": key, "sha256": hashlib.sha256(content).hexdigest()})
