"""Settings of the runtime and the trainer; torch is not imported here, so that ``--help`` starts at once."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from advgen.strict_config import configuration

ZERO_STAGES = {"zero0": 0, "zero1": 1, "zero2": 2, "zero2_offload": 2}

# What advgen decides itself in DeepSpeed's configuration, and why another value would be wrong.
_OWNED = {
    "train_batch_size": "the batch is the recipe's",
    "train_micro_batch_size_per_gpu": "the batch is the recipe's",
    "gradient_accumulation_steps": "set training.accumulation",
    "gradient_clipping": "set the game's optimizer.clip_norm",
    "optimizer": "the optimizer is the game's",
    "scheduler": "learning rates are the game's",
    "zero_optimization.stage": "set training.engine",
    "zero_optimization.offload_optimizer": "set training.engine: zero2_offload",
    "zero_optimization.offload_param": "needs ZeRO-3, which is refused",
    "fp16": "squares of half-precision gradients underflow in a penalty; set training.precision: bf16",
    "bf16": "it casts networks, opponents and averages, and loses the float32 weights at a phase change; "
    "set training.precision: bf16",
    "torch_autocast": "set training.precision: bf16",
    "amp": "set training.precision: bf16",
    "communication_data_type": "gradients of penalties are reduced in float32",
    "prescale_gradients": "gradients are means over the global batch",
    "gradient_predivide_factor": "gradients are means over the global batch",
    "zero_force_ds_cpu_optimizer": "the optimizer is the game's",
    "zero_allow_untested_optimizer": "the optimizer is the game's",
}


@configuration
class DdpConfig:
    """DistributedDataParallel's own settings."""

    bucket_mib: int = 25
    """Gradients are reduced in buckets of about so many MiB."""
    static_graph: bool = False
    """Refused: with players that take turns the gradients become wrong without a word."""

    def __post_init__(self) -> None:
        if self.static_graph:
            raise ValueError(
                "static_graph makes gradients silently wrong where players take turns or a penalty is taken at some "
                "steps only (measured: weights off by 4e-3 after three steps). Leave it out"
            )
        if self.bucket_mib < 1:
            raise ValueError("bucket_mib must be at least 1")


@configuration
class BestCheckpoint:
    """A metric by which one more checkpoint is kept."""

    metric: str
    """Name as in metrics.jsonl, such as fd_lite0 or fid."""
    lower_is_better: bool | None = None
    """False for scores that should be high; null: as advgen knows of the metric, and lower for one it does not know."""


@configuration
class TrainingConfig:
    """How a game is trained: hardware, logging and checkpoints, nothing that belongs to the method."""

    engine: Literal["ddp", "zero0", "zero1", "zero2", "zero2_offload", "zero3"] = "ddp"
    """Who holds optimizer state and gradients. ddp: every rank, all of it. zero1, zero2 (DeepSpeed): each rank a share
    of the optimizer state, and of the gradients with zero2; zero2_offload: that share in the host's memory. zero0:
    DeepSpeed without sharing. The networks themselves lie whole on every rank. zero3 is refused."""
    precision: Literal["float32", "bf16", "float64", "fp16"] = "float32"
    """bf16 runs the networks under autocast with float32 parameters; penalties stay in float32. float64 is for
    comparisons: two runs that differ by more than rounding do so plainly. fp16 is refused."""
    tf32: bool = False
    """Let a GPU's matrix units round float32 factors to 10 bits of mantissa, penalties included: faster, less exact."""
    algorithms: Literal["heuristic", "benchmark", "deterministic"] = "heuristic"
    """How a GPU's kernels are chosen. heuristic: by the libraries' own rules. benchmark: cuDNN tries all at the first
    batch of a shape and keeps the fastest, so that last bits may differ from start to start. deterministic: those that
    give the same bits each time, where there are such: for resumes that repeat a run's bits on GPUs, too; slower."""
    accumulation: int = 1
    """Each rank cuts its share of a batch into so many micro-batches, one after the other: less memory, same result."""
    accumulation_by_player: dict[str, int] = field(default_factory=dict)
    """Other counts for some players."""
    activation_checkpointing: bool = False
    """Compute each block's inner activations a second time in the backward pass instead of keeping them."""
    compile: tuple[str, ...] = ()
    """Networks to compile by torch.compile. A penalty, which differentiates twice, still runs as it is written."""
    ddp: DdpConfig = DdpConfig()
    """Further settings of engine ddp."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Further settings of the zero engines, in the form of DeepSpeed's JSON; what advgen decides itself is refused."""
    device: Literal["auto", "cpu"] = "auto"
    """auto takes a GPU where there is one."""
    threads: int | None = None
    """CPU threads of each process; null leaves the choice to torch. Sums, and so the last bits, depend on it."""
    channels_last: bool = False
    """Keep images as NHWC in memory: faster for convolutions on most hardware."""
    log_every_steps: int = 10
    """Scalars go to log.jsonl at steps that are a multiple of it."""
    profile_steps: int | None = None
    """Record so many steps by torch.profiler, after ten of warm-up, into the run folder's profile/; null for none."""
    on_nonfinite: str = "stop"
    """What to do when a loss or gradient is NaN or infinite; weights and moments are not updated by it in any case.
    stop: end with an error. skip:N: leave the player's update out, and end at the N+1st in a row; averages move on
    towards the weights as they are. It is known, told and counted when the player's next update comes, or a checkpoint:
    a step does not wait for the device."""
    checkpoint_kimg: float = 100.0
    """A checkpoint is written at every so many kimg, besides the one at each phase's end."""
    keep_checkpoints: int = 2
    """Checkpoints that are kept besides those at phase ends, the newest."""
    keep_every_kimg: float | None = None
    """One checkpoint in so many kimg is kept as well."""
    keep_best: BestCheckpoint | None = None
    """The checkpoint with the best value of a metric, as evaluated so far, is kept as well."""
    sample_kimg: float = 100.0
    """A sample grid is drawn at every so many kimg, besides those at phase ends."""
    sample_rows: int = 6
    """Rows of the sample grid."""
    sample_columns: int = 10
    """Columns of the sample grid."""
    max_minutes: float | None = None
    """Stop with a checkpoint after so many minutes, and exit with code 85: for short wall times."""
    collective_timeout_seconds: float = 600.0
    """A rank that waits longer than this for another one gives up, with an error; a rank that makes no step for this
    time and half a minute more ends itself. Longer than the slowest pause: sampling, and the first step."""

    def __post_init__(self) -> None:
        for name in ("log_every_steps", "keep_checkpoints", "sample_rows", "sample_columns", "accumulation"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        for name in ("checkpoint_kimg", "sample_kimg", "collective_timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be positive")
        if self.threads is not None and self.threads < 1:
            raise ValueError("threads must be at least 1")
        if self.profile_steps is not None and self.profile_steps < 1:
            raise ValueError("profile_steps must be at least 1")
        for name in ("keep_every_kimg", "max_minutes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")
        if any(count < 1 for count in self.accumulation_by_player.values()):
            raise ValueError("accumulation_by_player must be at least 1")
        if self.engine == "zero3":
            raise ValueError(
                "engine zero3 is refused: it takes weights apart that a second backward and the opponents' losses "
                "still need. Use zero2, or zero2_offload where memory is short"
            )
        if self.precision == "fp16":
            raise ValueError(
                "precision fp16 is refused: squares of half-precision gradients underflow in a penalty. Use bf16"
            )
        if self.precision == "float64" and self.engine in ("zero1", "zero2", "zero2_offload"):
            raise ValueError(f"precision float64 needs engine ddp: {self.engine} keeps its weights in float32")
        self.allowed_skips  # noqa: B018 - raises
        _check_deepspeed(self.deepspeed, self.engine)

    def micro_batches(self, player: str) -> int:
        """Micro-batches a rank's share is cut into for ``player``."""
        return self.accumulation_by_player.get(player, self.accumulation)

    @property
    def allowed_skips(self) -> int:
        """Updates in a row that may be left out for a loss or gradient that is not finite."""
        if self.on_nonfinite == "stop":
            return 0
        kind, _, count = self.on_nonfinite.partition(":")
        if kind == "skip" and count.isdecimal() and int(count) > 0:
            return int(count)
        raise ValueError("on_nonfinite must be stop or skip:N, such as skip:3")


def _check_deepspeed(settings: dict[str, Any], engine: str) -> None:
    """Refuse what would contradict the recipe, or is known to go wrong."""
    if settings and engine == "ddp":
        raise ValueError("deepspeed settings need one of the zero engines; set engine: zero2, or leave them out")
    for name, reason in _OWNED.items():
        place: Any = settings
        for part in name.split("."):
            place = place.get(part) if isinstance(place, dict) else None
        if place is not None:
            raise ValueError(f"deepspeed.{name} cannot be set here: {reason}")


@configuration
class TrackingConfig:
    """Where scalars and pictures go besides the run folder."""

    wandb: Literal["auto", "offline", "disabled"] = "auto"
    """auto: online with a key, offline without one; offline runs are kept in the run folder."""
    project: str = "advgen"
    """W&B project."""
    entity: str | None = None
    """W&B user or team; null for that of the key."""
    group: str | None = None
    """W&B group, in which evaluations stand beside the training; null for the run's name."""
    tags: tuple[str, ...] = ()
    """W&B tags."""
    notes: str | None = None
    """W&B notes."""
    artifacts: Literal["disabled", "references", "files"] = "references"
    """What W&B gets of checkpoints and shard manifests, as artifacts: where they lie, or (small runs) the files."""
    tensorboard: bool = False
    """Write TensorBoard's event files to the run folder's tensorboard/, too; needs the package tensorboard."""

    def __post_init__(self) -> None:
        if not all(0 < len(tag) <= 64 for tag in self.tags):
            raise ValueError("tags must have between 1 and 64 characters each")
