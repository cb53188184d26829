"""Training and validation: which sample goes where is a function of its name alone."""

from __future__ import annotations

from dataclasses import replace

from advgen.data.sources import Item, Source
from advgen.seeds import key_of


def split(source: Source, share: float, *, by_group: bool) -> dict[str, Source]:
    """Divide a source by the hash of each sample's name, or of its group's; adding samples moves no other.

    Args:
        source: the samples.
        share: of the validation, 0 to 1.
        by_group: samples of one group stay together.

    Returns:
        "train" and "validation"; what was rejected is told with the first.
    """

    def held(item: Item) -> bool:
        # Names are hashed with 64 bits; nothing but the name and the share decides.
        name = item.group if by_group else item.name
        # A name of a file need not be UTF-8.
        return key_of(0, "validation", name.encode("utf-8", "backslashreplace").decode()) < share * 2.0**64

    chosen = {item.key for item in source.items if held(item)}
    return {
        "train": replace(source, items=tuple(item for item in source.items if item.key not in chosen)),
        "validation": replace(source, items=tuple(i for i in source.items if i.key in chosen), rejected=(), others=0),
    }
