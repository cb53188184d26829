"""The one object that knows ranks: devices, collectives and who writes files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    DynamoBackend,
    InitProcessGroupKwargs,
    KwargsHandler,
)
from torch import Tensor, nn

from advgen.errors import UserError
from advgen.game import Across, OneSlice
from advgen.runtime.collectives import Gather
from advgen.runtime.config import ZERO_STAGES, TrainingConfig
from advgen.runtime.faults import GRACE_SECONDS
from advgen.runtime.kernels import choose_kernels
from advgen.runtime.meeting import wait_for_first


def slots(size: int, on_a_node: int) -> list[int]:
    """Which rank takes which strided slice of a batch: slice s of a batch goes to rank ``slots(...)[s]``.

    Node k of n takes the slices k, k + n, k + 2n ..., and so the positions that are k modulo n: those of its own lanes
    of the data's order (:mod:`advgen.data.order`). On one node, and where nodes differ, slice r is rank r's.

    Args:
        size: number of ranks.
        on_a_node: ranks on each node, one after the other.
    """
    if size % on_a_node:
        return list(range(size))
    nodes = size // on_a_node
    return [node * on_a_node + local for local in range(on_a_node) for node in range(nodes)]


class World:
    """The processes of a run. One process, ``accelerate launch`` and ``torchrun`` look alike from here.

    Attributes:
        accelerator: device, precision and DDP.
        rank, size: this process and their number.
        reductions: the process group in which DeepSpeed's engines reduce; None for engine ddp.
    """

    def __init__(self, config: TrainingConfig) -> None:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        choose_kernels(config)
        cpu = config.device == "cpu" or not torch.cuda.is_available()
        timeout = timedelta(seconds=config.collective_timeout_seconds)
        # gloo raises what the trainer tells of. NCCL aborts the process, so the trainer's watchdog is to come first.
        grouped = timeout if cpu else timeout + timedelta(seconds=3 * GRACE_SECONDS)
        handlers: list[KwargsHandler] = [
            DistributedDataParallelKwargs(
                broadcast_buffers=False, gradient_as_bucket_view=True, bucket_cap_mb=config.ddp.bucket_mib
            )
        ]
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            if not cpu:
                check_device(os.environ.get("LOCAL_RANK", "0"), torch.cuda.device_count())
            handlers.append(InitProcessGroupKwargs(backend="gloo" if cpu else "nccl", timeout=grouped))
        wait_for_first(config.collective_timeout_seconds)
        # Autocast is the engine's, so that all engines have the same; accelerate is told of none.
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=handlers)
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise UserError(
                "DeepSpeed is chosen in the recipe (training.engine: zero2). Launch without --use_deepspeed."
            )
        dynamo = self.accelerator.state.dynamo_plugin
        if dynamo is not None and dynamo.backend != DynamoBackend.NO:
            # A compiled network has no double backward, and accelerate compiles what it prepares.
            raise UserError("Compilation is chosen in the recipe (training.compile). Launch with --dynamo_backend no.")
        self.rank = self.accelerator.process_index
        self.size = self.accelerator.num_processes
        self._by_slot = slots(self.size, int(os.environ.get("LOCAL_WORLD_SIZE") or self.size))
        if config.engine in ZERO_STAGES and not dist.is_initialized():
            backend = "gloo" if cpu else "nccl"  # DeepSpeed wants a group even of one
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1, timeout=grouped)  # pyright: ignore[reportPrivateImportUsage]
        # Batch statistics run inside forward and backward, where DDP's own collectives run too: a group of their
        # own keeps the two sequences from meeting. The same holds for the thread that writes checkpoints.
        self._statistics = _new_group(None, grouped) if self.size > 1 else None
        self._writers = _new_group("gloo", timeout) if self.size > 1 else None
        # DeepSpeed would make one with torch's own limit of half an hour.
        self.reductions = _new_group(None, grouped) if config.engine in ZERO_STAGES else None

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self.accelerator.device

    @property
    def main(self) -> bool:
        """Whether this rank writes files and talks to people."""
        return self.rank == 0

    def positions(self, start: int, count: int, device: torch.device | None = None) -> Tensor:
        """This rank's strided slice of the samples start ... start + count: int64 on a device, by default the CPU."""
        return torch.arange(start + self._slot, start + count, self.size, dtype=torch.int64, device=device or "cpu")

    @property
    def _slot(self) -> int:
        return self._by_slot.index(self.rank)

    def vote(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether it is set on any rank; a collective."""
        if self.size == 1:
            return flags
        votes = torch.tensor([float(flag) for flag in flags], device=self.device)
        dist.all_reduce(votes, op=dist.ReduceOp.MAX)
        return tuple(bool(vote) for vote in votes.tolist())

    def differing(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Names of tensors that are not the same on all ranks, bit for bit (up to collisions); a collective."""
        if self.size == 1 or not tensors:
            return []
        sums = torch.stack([_fingerprint(tensor) for tensor in tensors.values()])
        extremes = torch.stack((sums, -sums))
        dist.all_reduce(extremes, op=dist.ReduceOp.MAX)
        unequal = (extremes[0] != -extremes[1]).any(dim=1).tolist()
        return [name for name, differs in zip(tensors, unequal, strict=True) if differs]

    def align(self, networks: Mapping[str, nn.Module]) -> None:
        """Give the parameters and buffers of networks the values of rank 0; a collective.

        For what each rank has computed for itself: a GPU's kernels, chosen by trial, may round otherwise on each.
        """
        if self.size == 1:
            return
        for network in networks.values():
            for tensor in (*network.parameters(), *network.buffers()):
                values = tensor.detach().clone(memory_format=torch.contiguous_format)
                dist.broadcast(values, 0)
                tensor.detach().copy_(values)

    def from_main(self, text: str) -> str:
        """A text of rank 0, on every rank; a collective."""
        if self.size == 1:
            return text
        data = text.encode()
        length = torch.tensor([len(data)], device=self.device)
        dist.broadcast(length, 0)
        content = torch.zeros(int(length), dtype=torch.uint8, device=self.device)
        if self.main and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        dist.broadcast(content, 0)
        return bytes(content.cpu().numpy()).decode()

    def gather_texts(self, text: str) -> list[str]:
        """A text of at most 500 bytes (what is longer is cut) of every rank, in order; a collective of the writers."""
        if self._writers is None:
            return [text]
        mine = torch.frombuffer(bytearray(text.encode()[:500].ljust(500, b"\0")), dtype=torch.uint8)
        parts = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(parts, mine, group=self._writers)
        return [bytes(part.numpy()).rstrip(b"\0").decode(errors="replace") for part in parts]

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module under DistributedDataParallel; itself with one process."""
        with warnings.catch_warnings():  # accelerate knows no other name of the setting yet
            warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
            return self.accelerator.prepare_model(module)

    def forget(self) -> None:
        """Let go of everything that accelerate remembers of what was wrapped."""
        self.accelerator.free_memory()

    def mean(self, scalars: Mapping[str, Tensor]) -> dict[str, float]:
        """Scalars averaged over ranks; a collective, for which all ranks hold the same names."""
        if not scalars:
            return {}
        values = torch.stack([value.detach().to(self.device).double().reshape(()) for value in scalars.values()])
        if self.size > 1:
            dist.all_reduce(values)
            values /= self.size
        return dict(zip(scalars, values.tolist(), strict=True))

    def wait(self) -> None:
        """Until every rank is here."""
        # Not accelerate's: it names a GPU also where ranks compute on CPUs, which gloo on a host with GPUs refuses.
        if self.size > 1:
            dist.barrier(device_ids=None if self.device.index is None else [self.device.index])

    def close(self) -> None:
        """Leave the process group in order."""
        self.wait()
        if dist.is_initialized():
            dist.destroy_process_group()
        self.accelerator.end_training()

    @property
    def slices(self) -> int:
        """Ranks that share a global batch (:class:`advgen.game.Across`)."""
        return self.size

    def gather(self, rows: Tensor) -> Tensor:
        """Rows of all ranks in the order of the global batch; differentiable any number of times."""
        if self._statistics is None:
            return rows
        stacked = Gather.apply(rows, self._statistics)
        assert isinstance(stacked, Tensor)
        if self._by_slot != list(range(self.size)):
            stacked = stacked[self._by_slot]
        # [size, n, ...]; global sample i stands at [i % size, i // size]
        return stacked.transpose(0, 1).flatten(0, 1)

    def own(self, rows: Tensor) -> Tensor:
        """This rank's rows of what :meth:`gather` returned."""
        return rows[self._slot :: self.size]

    def total(self, counts: Tensor) -> Tensor:
        """The sum over ranks of whole numbers."""
        if self._statistics is None:
            return counts
        summed = counts.detach().clone()
        dist.all_reduce(summed, group=self._statistics)
        return summed


class Share:
    """One of the micro-batches that a rank's slice is cut into (:class:`advgen.game.Across`).

    Micro-batch m of k on rank r of n is the slice r + n m of n k. Nothing is gathered: the other micro-batches are not
    there at the same time. The validator has refused what would need it. Sums are over the ranks alone, and a state may
    add them up from micro-batch to micro-batch.
    """

    def __init__(self, world: Across, micro_batches: int) -> None:
        self.slices = world.slices * micro_batches
        self.total = world.total

    def gather(self, rows: Tensor) -> Tensor:
        """Refused.

        Raises:
            UserError: always.
        """
        raise UserError(
            "A statistic over the whole batch cannot be taken from micro-batches. Set training.accumulation to 1, or "
            "choose groups that fall whole into a micro-batch."
        )

    own = OneSlice.own


def check_device(local_rank: str, devices: int) -> None:
    """Whether there is a GPU for a rank.

    Args:
        local_rank: number of the rank on its host, as LOCAL_RANK says.
        devices: GPUs that the rank sees.

    Raises:
        UserError: there is none, and two ranks on one GPU are what NCCL refuses.
    """
    if not local_rank.isdecimal() or int(local_rank) >= devices:
        raise UserError(
            f"LOCAL_RANK={local_rank}: this host has {devices} GPUs for its ranks, numbered from 0. Start as many "
            "ranks as there are GPUs, or train without: --training.device cpu."
        )


def _new_group(backend: str | None, timeout: timedelta) -> dist.ProcessGroup:
    group = dist.new_group(backend=backend, timeout=timeout)
    assert isinstance(group, dist.ProcessGroup)
    return group


def _fingerprint(tensor: Tensor) -> Tensor:
    """int64 [4]: sums of a tensor's bits, plain and weighted by position, in halves; equal for equal tensors."""
    flat = tensor.detach().contiguous().flatten()
    widths = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    bits = flat.view(widths[flat.element_size()]).to(torch.int64) if flat.dtype != torch.bool else flat.to(torch.int64)
    weights = torch.arange(1, len(bits) + 1, device=bits.device, dtype=torch.int64)
    sums = torch.stack((bits.sum(), (bits * weights).sum()))  # modulo 2**64
    return torch.cat((sums >> 32, sums & 0xFFFFFFFF))  # halves, so that the negative of each exists
