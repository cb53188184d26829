"""DeepSpeed's engines, one a player: ZeRO stages 0, 1 and 2, and 2 with the optimizer on the host.

The player's module (:mod:`advgen.runtime.engine`) is all that DeepSpeed sees, so penalties and opponents stay
inside one forward. Weights and moments are float32; each rank updates its range of them, laid end to end, and
sends the result to the others.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advgen.game import Batch, Context, Outcome, Phase, Player
from advgen.optim import build_optimizer
from advgen.runtime.config import ZERO_STAGES, TrainingConfig
from advgen.runtime.engine import Engine, Moments, Piece, Update, freeze, sort_moments
from advgen.runtime.profiler import label
from advgen.runtime.world import World


class ZeroEngine(Engine):
    """A DeepSpeed engine."""

    def __init__(
        self,
        player: Player,
        phase: Phase,
        networks: Mapping[str, nn.Module],
        world: World,
        config: TrainingConfig,
        moments: Moments,
    ) -> None:
        super().__init__(player, phase, networks, world, config)
        deepspeed = _import_deepspeed(world)
        self._rank, self._stage = world.rank, ZERO_STAGES[config.engine]
        self._own = {name for parameter in self.parameters.values() for name in vars(parameter)}
        known = sort_moments(player, self.parameters, moments)
        # A flat range has one count of steps, so parameters of another age (a block that has just begun to learn) get
        # a range of their own.
        ages = {name: -1.0 for name in self.parameters}
        ages |= {p: moments.read(name).item() for name, (p, moment) in known.items() if moment == "step"}
        groups = [
            {name: parameter for name, parameter in self.parameters.items() if ages[name] == age}
            for age in sorted(set(ages.values()))
        ]
        optimizer = build_optimizer(player.optimizer, groups, fused=config.engine == "zero2_offload")
        self._engine, *_ = deepspeed.initialize(
            model=self._module,
            optimizer=optimizer,
            config=deepspeed_config(player, phase, world.size, config),
            dist_init_required=False,
        )
        assert self._engine.data_parallel_group is world.reductions
        self._load(moments, known)
        freeze(networks.values())

    @property
    def _inner(self) -> torch.optim.Optimizer:
        """The rule itself, below ZeRO's wrapping."""
        return self._engine.optimizer.optimizer if self._stage else self._engine.optimizer

    def _fragment(self, parameter: nn.Parameter) -> tuple[Tensor, int, int, int] | None:
        """(flat tensor, start in it, start in the parameter, count) of what this rank holds; None for nothing."""
        mapping: Any = parameter._hp_mapping  # pyright: ignore[reportAttributeAccessIssue]
        if mapping is None:
            return None
        flat = self._engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
        here, there = mapping.hp_fragment_address, mapping.lp_fragment_address
        return flat, here.start, there.start, here.numel

    def _load(self, moments: Moments, known: Mapping[str, tuple[str, str]]) -> None:
        for name, (parameter_name, moment) in known.items():
            parameter = self.parameters[parameter_name]
            if not self._stage:
                value = moments.read(name)
                self._inner.state[parameter][moment] = value if moment == "step" else value.to(parameter)
                continue
            fragment = self._fragment(parameter)
            if fragment is None:
                continue
            flat, here, there, count = fragment
            state = self._inner.state[flat]
            if moment == "step":
                state[moment] = moments.read(name)
            else:
                if moment not in state:
                    state[moment] = torch.zeros_like(flat)
                state[moment][here : here + count].copy_(moments.read_range(name, there, count))

    def _one(self, context: Context, batch: Batch, last: bool) -> Outcome:
        with label(f"{self.player.name}/loss"):
            loss, scalars, detached = self._engine(context, batch)
        with label(f"{self.player.name}/backward"):
            self._engine.backward(loss)  # divides by the number of micro-batches
        if not last:
            self._engine.step()  # counts the micro-batch; updates nothing
        return Outcome(loss.detach(), scalars, detached)

    def update(self, learning_rate: float) -> Update:
        """See :meth:`Engine.update`. ZeRO itself leaves an update out whose norm is not finite."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._thaw()
        try:
            norm = math.nan if self._stage else self._norm_of_whole_gradients()
            self._engine.step()
        finally:
            self._freeze()
        if self._stage:
            norm, applied = float(self._engine.get_global_grad_norm()), not self._engine.optimizer.overflow
        else:
            applied = math.isfinite(norm)
        return Update(torch.tensor(norm, dtype=torch.float64), torch.tensor(applied))

    def _norm_of_whole_gradients(self) -> float:
        """The norm without ZeRO; where it is not finite the gradients are dropped, and the step then moves nothing."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients).item()
        if not math.isfinite(norm):
            for parameter in self.parameters.values():
                parameter.grad = None
        return norm

    def state(self) -> dict[str, Piece]:
        """The range that this rank updates; without ZeRO every so-manieth parameter's."""
        state: dict[str, Piece] = {}
        for index, (name, parameter) in enumerate(self.parameters.items()):
            place = f"{self.player.name}/{name}"
            if not self._stage:
                if index % self._size == self._rank:
                    for moment, value in self._inner.state.get(parameter, {}).items():
                        state[f"{place}/{moment}"] = Piece(value)
                continue
            fragment = self._fragment(parameter)
            if fragment is None:
                continue
            flat, here, there, count = fragment
            for moment, value in self._inner.state.get(flat, {}).items():
                if moment != "step":
                    shape = tuple(parameter.shape)
                    whole = count == parameter.numel()
                    values = value[here : here + count]
                    piece = Piece(values.reshape(shape)) if whole else Piece(values, there, shape)
                    state[f"{place}/{moment}"] = piece
                elif there == 0:
                    state[f"{place}/{moment}"] = Piece(value)
        return state

    def close(self) -> None:
        """See :meth:`Engine.close`. Weights move out of the flat buffer, which then can go."""
        self._engine.destroy()
        self._inner.state.clear()
        for parameter in self.parameters.values():
            parameter.data = parameter.data.clone()
            parameter.grad = None
            for name in vars(parameter).keys() - self._own:  # bound methods among them that keep an old engine alive
                delattr(parameter, name)
        del self._engine, self._module


def deepspeed_config(player: Player, phase: Phase, size: int, config: TrainingConfig) -> dict[str, Any]:
    """The JSON that DeepSpeed is given: the user's settings, with ours on top."""
    micro = config.micro_batches(player.name)
    zero: dict[str, Any] = {
        # The default buffer is emptied by the inner gradient of a penalty where that passes the engine's output.
        "contiguous_gradients": False,
        "overlap_comm": False,
        **config.deepspeed.get("zero_optimization", {}),
        "stage": ZERO_STAGES[config.engine],
    }
    if config.engine == "zero2_offload":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return {
        "steps_per_print": 2**62,
        **config.deepspeed,
        "train_micro_batch_size_per_gpu": phase.batch_size // (size * micro),
        "gradient_accumulation_steps": micro,
        "gradient_clipping": player.optimizer.clip_norm or 0.0,  # left out, it is 1.0 and not off
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def _import_deepspeed(world: World) -> Any:
    """The package, without what it would print and compile, and with a process group that has our time limit."""
    device = world.device.type
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")  # asked for even where there is one process and no launcher
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "warning")
    import deepspeed
    import deepspeed.ops
    import deepspeed.utils.groups

    deepspeed.utils.groups._WORLD_GROUP = world.reductions  # pyright: ignore[reportAttributeAccessIssue]
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    if device == "cpu":
        # On a CPU it would compile an operation for inference at first use; a process that is killed meanwhile
        # leaves a lock behind, and every later run hangs at it.
        deepspeed.ops.__compatible_ops__ = {}  # pyright: ignore[reportAttributeAccessIssue]
    return deepspeed
