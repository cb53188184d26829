"""The profile of a run (``advgen train --profile``) as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from advgen.profiling.record import Figures, read_profile
from advgen.profiling.words import recorded, short_of


@dataclass(frozen=True)
class Shown:
    """What the page shows.

    Attributes:
        recorded: which steps, in words.
        short: that they are fewer than asked for; empty where not.
    """

    recorded: str
    short: str
    figures: Figures


def profile_of(folder: Path, notes: list[str]) -> Shown | None:
    """The profile of a run folder; None where there is none, or none that can be read, which ``notes`` then tell."""
    path = folder / "profile" / "profile.json"
    if not path.is_file():
        return None
    try:
        profile = read_profile(path)
    except (OSError, ValueError, RecursionError):
        notes.append("profile/profile.json: could not be read and was left out.")
        return None
    return Shown(recorded(profile), short_of(profile), profile.figures)
