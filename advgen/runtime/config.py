"""Settings of the runtime and the trainer; torch is not imported here, so that ``--help`` starts at once."""

from __future__ import annotations

from typing import Literal

from advgen.strict_config import configuration


@configuration
class TrainingConfig:
    """How a game is trained: hardware, logging and checkpoints, nothing that belongs to the method."""

    precision: Literal["float32", "bf16", "float64"] = "float32"
    """bf16 runs the networks under autocast with float32 parameters; penalties stay in float32. float64 is for
    comparisons: two runs that differ by more than rounding do so plainly."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    threads: int | None = None
    """CPU threads of each process; null leaves the choice to torch. Sums, and so the last bits, depend on it."""
    channels_last: bool = False
    """Keep images as NHWC in memory: faster for convolutions on most hardware."""
    log_every_steps: int = 10
    """Scalars go to log.jsonl at steps that are a multiple of it."""
    checkpoint_kimg: float = 100.0
    """A checkpoint is written at every so many kimg, besides the one at each phase's end."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept besides those at phase ends, the newest."""
    sample_kimg: float = 100.0
    """A sample grid is drawn at every so many kimg, besides those at phase ends."""
    sample_rows: int = 6
    """Rows of the sample grid."""
    sample_columns: int = 10
    """Columns of the sample grid."""

    def __post_init__(self) -> None:
        for name in ("log_every_steps", "keep_checkpoints", "sample_rows", "sample_columns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.checkpoint_kimg <= 0 or self.sample_kimg <= 0:
            raise ValueError("checkpoint_kimg and sample_kimg must be positive")
        if self.threads is not None and self.threads < 1:
            raise ValueError("threads must be at least 1")


@configuration
class TrackingConfig:
    """Where scalars and pictures go besides the run folder."""

    wandb: Literal["auto", "offline", "disabled"] = "auto"
    """auto: online with a key, offline without one; offline runs are kept in the run folder."""
    project: str = "advgen"
    """W&B project."""
