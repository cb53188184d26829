"""A profile made up: of a GPU, with awkward names."""

from __future__ import annotations

from advgen.profiling.record import Device, Figures, Operation, Part, Profile, Rank, Recording, Wait

AWKWARD = "void kernel<a|b, `c`>(<script>alert(1)</script>)" + "x" * 100


def made_profile(steps: int = 10, cuda: bool = True, ranks: int = 2, lost: tuple[Rank, ...] = ()) -> Profile:
    """Steps of 40 ms: 60 % in a player's loss, 35 % in its backward, 5 % in the rest."""
    parts = (
        Part("<b>player</b>/loss", 0.024, 0.6, 0.03 * cuda, 0.002 * cuda),
        Part("<b>player</b>/backward", 0.014, 0.35),
        Part("other", 0.002, 0.05),
    )
    figures = Figures(
        steps,
        0.04,
        0.039,
        parts,
        (Operation("aten::mm", 12.5, 0.01, 0.25),),
        (Operation(AWKWARD, 3, 0.02, 0.5),) if cuda else (),
        (Wait("aten::item", 2, 0.0005, "other"),),
        Device(0.8125, 1234, 5e-6, 0.003) if cuda else None,
    )
    recording = Recording(10, 10, 110, "train 8x8", 8, 16, "cuda" if cuda else "cpu", 0.0375)
    return Profile(recording, figures, (*(Rank(rank, 0.04, 0.001 * rank) for rank in range(ranks)), *lost))
