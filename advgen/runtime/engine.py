"""One wrapper a player, the whole loss inside its forward.

DDP (and a DeepSpeed engine) hooks a module's forward and backward. A loss that calls a network twice, or
takes a gradient of a gradient, or goes through an opponent, breaks those hooks, each in its own way. So the
module that is wrapped is the player: it holds the networks it trains, and its forward computes the loss.
Each engine sees one forward and one backward a step; opponents are used bare and frozen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Batch, Context, Outcome, Phase, Player, has_prefix
from advgen.optim import build_optimizer, export_state, import_state
from advgen.runtime.world import World


class PlayerModule(nn.Module):
    """The networks that a player trains, with its loss as forward."""

    def __init__(self, player: Player, networks: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.trained = nn.ModuleDict({name: networks[name] for name in player.trains})
        self._loss = player.loss

    def forward(self, context: Context, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor], Mapping[str, Tensor]]:
        """The outcome as a tuple, which every wrapper passes on."""
        outcome = self._loss(context, batch)
        return outcome.loss, outcome.scalars, outcome.detached


class Engine:
    """Forward, backward and update of one player in one phase."""

    def __init__(self, player: Player, phase: Phase, networks: Mapping[str, nn.Module], world: World) -> None:
        self.player = player
        self.parameters: dict[str, nn.Parameter] = {
            f"{name}.{path}": parameter
            for name in player.trains
            for path, parameter in networks[name].named_parameters()
            if any(has_prefix(f"{name}.{path}", prefix) for prefix in phase.trains)
        }
        if not self.parameters:
            raise UserError(f"Player '{player.name}' has nothing to train in phase '{phase.name}'.")
        freeze(networks.values())
        self._thaw()  # DDP looks at requires_grad when it is made: the phase's unused parts must be frozen then
        self._optimizer = build_optimizer(player.optimizer, self.parameters)
        self._module = world.accelerator.prepare_model(PlayerModule(player, networks))
        freeze(networks.values())

    def _thaw(self) -> None:
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def backward(self, context: Context, batch: Batch) -> Outcome:
        """One forward and one backward; gradients are averaged over ranks."""
        self._thaw()
        self._optimizer.zero_grad(set_to_none=True)
        loss, scalars, detached = self._module(context, batch)  # under autocast where the precision asks for it
        loss.backward()
        freeze_parameters(self.parameters.values())
        return Outcome(loss.detach(), scalars, detached)

    def gradient_norm(self) -> Tensor:
        """2-norm of all gradients of the last backward, 0-d."""
        gradients = [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)

    def update(self, learning_rate: float) -> None:
        """One step of the optimizer on the gradients at hand."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """The optimizer's tensors as ``"<player>/<parameter>/<moment>"``."""
        state = export_state(self._optimizer, self.parameters)
        return {f"{self.player.name}/{key}": value for key, value in state.items()}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over this player's part of what :meth:`state` gave."""
        prefix = f"{self.player.name}/"
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        import_state(self._optimizer, self.parameters, own)


def build_engines(phase: Phase, networks: Mapping[str, nn.Module], world: World) -> dict[str, Engine]:
    """An engine for each player of the phase, by name; call :func:`release_engines` on the last phase's first."""
    world.check_batch(phase.batch_size, phase.name)
    return {player.name: Engine(player, phase, networks, world) for player in phase.players}


def release_engines(world: World) -> None:
    """Let go of everything that accelerate remembers of the engines made so far."""
    world.accelerator.free_memory()


def collect_state(engines: Iterable[Engine]) -> dict[str, Tensor]:
    """The tensors of all optimizers."""
    state: dict[str, Tensor] = {}
    for engine in engines:
        state.update(engine.state())
    return state


def load_state(engines: Iterable[Engine], state: Mapping[str, Tensor]) -> None:
    """Give each engine its part of what :func:`collect_state` gave."""
    for engine in engines:
        engine.load_state(state)


def freeze(networks: Iterable[nn.Module]) -> None:
    """Stop gradients at every parameter of the networks."""
    for network in networks:
        network.requires_grad_(False)


def freeze_parameters(parameters: Iterable[nn.Parameter]) -> None:
    """Stop gradients at these parameters."""
    for parameter in parameters:
        parameter.requires_grad_(False)
