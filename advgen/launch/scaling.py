"""How long a step takes on n ranks: a cost model of computation and communication (docs/scaling.md).

Computation is a line in the images of a rank, ``fixed + images * per_image``: optimizers, averages and the start of
kernels do not shrink with the batch. A collective takes a start, a latency for each hop and its bytes over the
bandwidth: on one node by a ring (Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms"), on several by a
reduce-scatter inside the node, an all-reduce between equal ranks of the nodes, and an all-gather inside, with tree
latencies between nodes as in NCCL's own model (NVIDIA/nccl, src/graph/tuning.cc). A gradient bucket begins when its
last gradient is there and the bucket before it is done; what of it lies after the end of the computation is exposed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce"]
MIB = 2**20


@dataclass(frozen=True)
class Link:
    """A way for bytes.

    Attributes:
        bytes_per_second: of a rank, in each direction.
        latency_seconds: of a hop.
    """

    bytes_per_second: float
    latency_seconds: float


@dataclass(frozen=True)
class Network:
    """What ranks talk over.

    Attributes:
        inside: between ranks of a node.
        between: of each rank to those of other nodes: a network card a rank.
        ranks_per_node: at most; 0 for all ranks on one node.
        start_seconds: of every collective.
    """

    inside: Link
    between: Link
    ranks_per_node: int = 0
    start_seconds: float = 0.0

    def seconds(self, kind: Kind, size: float, ranks: int) -> float:
        """Time of one collective, all ranks starting at once.

        Args:
            kind: which.
            size: bytes of the tensor that is reduced or sent; of an all-gather and a reduce-scatter the whole one.
            ranks: that take part; 0 s with one.
        """
        if ranks == 1:
            return 0.0
        local = min(ranks, self.ranks_per_node or ranks)
        nodes = math.ceil(ranks / local)
        passes = 2 if kind == "all_reduce" else 1
        hops = (local - 1) * self.inside.latency_seconds + math.ceil(math.log2(nodes)) * self.between.latency_seconds
        sent = (local - 1) / local * size / self.inside.bytes_per_second
        sent += (nodes - 1) / nodes * size / local / self.between.bytes_per_second
        return self.start_seconds + passes * (hops + sent)


@dataclass(frozen=True)
class Collective:
    """One collective of a step.

    Attributes:
        kind: which.
        size: bytes, as :meth:`Network.seconds` has them.
        ready: share of the player's computation after which it can begin; 1 for one that nothing hides.
        every: steps from one to the next.
    """

    kind: Kind
    size: int
    ready: float = 1.0
    every: float = 1.0


@dataclass(frozen=True)
class Work:
    """A player's part of a step.

    Attributes:
        share: of the step's computation.
        collectives: in any order.
    """

    share: float
    collectives: Sequence[Collective]


@dataclass(frozen=True)
class Compute:
    """Computation of a step.

    Attributes:
        fixed_seconds: whatever the batch.
        seconds_per_image: of a rank's share.
    """

    fixed_seconds: float
    seconds_per_image: float

    def seconds(self, images: float) -> float:
        """Of a step with so many images on the rank."""
        return self.fixed_seconds + images * self.seconds_per_image


@dataclass(frozen=True)
class StepTime:
    """Parts of a step in seconds.

    Attributes:
        compute: of the rank, or of all ranks that share its core.
        communication: of all collectives, hidden or not.
        exposed: what of it the step waits for.
    """

    compute: float
    communication: float
    exposed: float

    @property
    def seconds(self) -> float:
        """The whole step."""
        return self.compute + self.exposed


def step_time(
    compute: Compute, works: Iterable[Work], network: Network, ranks: int, images: float, cores: int | None = None
) -> StepTime:
    """Time of a step.

    Args:
        compute: of the whole step on a core or GPU of its own.
        works: the players, one after the other.
        network: between the ranks.
        ranks: number of processes.
        images: of each rank.
        cores: that all ranks share, if they do not have one each; nothing is then hidden, as who communicates
            keeps another from computing.
    """
    turns = 1.0 if cores is None else max(1.0, ranks / cores)
    computed = turns * compute.seconds(images)
    total = exposed = 0.0
    for work in works:
        busy = work.share * computed
        at = 0.0
        for collective in sorted(work.collectives, key=lambda each: each.ready):
            taken = network.seconds(collective.kind, collective.size, ranks) / collective.every
            at = max(at, busy * (1.0 if turns > 1 else collective.ready)) + taken
            total += taken
        exposed += max(0.0, at - busy)
    return StepTime(computed, total, exposed)


def ddp_buckets(size: int, bucket_mib: int, first: float) -> list[Collective]:
    """The all-reduces of DistributedDataParallel for a player.

    The first bucket is of 1 MiB (torch's ``_DEFAULT_FIRST_BUCKET_BYTES``), so that communication begins early.
    Gradients become ready evenly between ``first`` and the end of the computation.

    Args:
        size: bytes of all gradients.
        bucket_mib: training.ddp.bucket_mib.
        first: share of the player's computation after which the first gradient is there.
    """
    buckets: list[Collective] = []
    done = 0
    while done < size:
        take = min(size - done, (bucket_mib if buckets else 1) * MIB)
        done += take
        buckets.append(Collective("all_reduce", take, first + (1.0 - first) * done / size))
    return buckets


def wire_bytes(kind: Kind, size: int, ranks: int) -> float:
    """Bytes that a rank sends, on average, by an algorithm that sends no more than it must."""
    return (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks * size


def fit_line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of the line with the least squares of relative errors; both are at least 0.

    Args:
        points: (x, y), y positive, at least two different x.
    """
    if len({x for x, _ in points}) < 2:
        raise ValueError("a line needs two different x")
    from scipy.optimize import nnls  # a submission does without

    (intercept, slope), _ = nnls([(1 / y, x / y) for x, y in points], [1.0] * len(points))
    return float(intercept), float(slope)


def fit_compute(measured: Sequence[tuple[float, float]]) -> Compute:
    """From (images, seconds of a step) of one process."""
    return Compute(*fit_line(measured))


def fit_link(measured: Sequence[tuple[float, float]], ranks: int) -> Link:
    """From (bytes, seconds) of all-reduces among ranks of one node.

    Raises:
        ValueError: time does not grow with size.
    """
    start, slope = fit_line(measured)
    if slope <= 0:
        raise ValueError("larger all-reduces took no longer: no bandwidth can be told")
    return Link(2 * (ranks - 1) / ranks / slope, start / (2 * (ranks - 1)))
