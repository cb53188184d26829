"""YAML that people read: keys in the order given, scripts as blocks of lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def documents(values: Iterable[Any]) -> str:
    """Several documents of plain values, parted by ``---``; YAML 1.1, as Kubernetes and SkyPilot read it."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes text of several lines as a block, and an object that stands twice in full twice."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    return yaml.dump_all(values, Dumper=Dumper, sort_keys=False, width=120, explicit_start=True)
