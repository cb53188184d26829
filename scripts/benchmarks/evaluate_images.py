"""From images to features: beside torch-fidelity and pytorch-fid, and whether loading overlaps computing."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from advgen.data.config import FolderImages, ShardingConfig
from advgen.data.parts import Samples
from advgen.data.shards import write_shards
from advgen.data.sources import open_source
from advgen.data.stream import ImageStream
from advgen.metrics.config import EvaluationConfig
from advgen.metrics.features import Extractor
from advgen.metrics.inception import load_inception
from advgen.metrics.lite0 import load_lite0
from advgen.metrics.pictures import Pictures
from advgen.metrics.ranks import Alone
from advgen.metrics.reals import Reals
from scripts.benchmarks.measure import Report, in_turns, ratio_of, spread, timed
from tests.unit.metrics.random_inception import fidelity_network, write_random_inception


@contextmanager
def scene(images: int, size: int) -> Iterator[tuple[Path, ImageStream]]:
    """In a temporary working folder: ``pictures`` (PNG files), their shards as a stream, random weights as a file."""
    with tempfile.TemporaryDirectory() as place, chdir(place):
        weights = write_random_inception(Path("inception.pth"))
        folder = Path("pictures")
        folder.mkdir()
        draw = np.random.default_rng(0)
        for number in range(images):
            coarse = draw.integers(0, 256, (size // 8, size // 8, 3), dtype=np.uint8)
            Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(folder / f"{number:05}.png")
        source = open_source(FolderImages(path="pictures"))
        write_shards(source, Path("shards"), resolution=size, channels=3, config=ShardingConfig())
        yield weights, ImageStream(Path("shards"), seed=0, resolution=size, channels=3, mirror=False, cache_bytes=0)


def inception(report: Report, images: int, size: int, rounds: int) -> None:
    """Images a second from files to features."""
    from pytorch_fid import fid_score
    from pytorch_fid import inception as theirs
    from torch_fidelity.utils import extract_featuresdict_from_input_id

    with scene(images, size) as (weights, stream), open(os.devnull, "w") as nowhere:
        reals = Reals(stream, images, EvaluationConfig(), torch.device("cpu"), labelled=False, ranks=Alone())
        extractor = load_inception(weights, expected_sha256=None)
        fidelity = fidelity_network(weights, "2048")
        theirs.load_state_dict_from_url = lambda *_, **__: torch.load(weights, weights_only=True)  # type: ignore
        network = theirs.InceptionV3()
        files = sorted(map(str, Path("pictures").glob("*.png")))

        def by_us() -> float:
            return float(torch.cat([each.features(extractor) for each in reals.pictures(size)]).mean())

        def by_fidelity() -> float:
            found = extract_featuresdict_from_input_id(1, fidelity, input1="pictures", cuda=False, verbose=False)
            return float(found["2048"].mean())

        def by_pytorch_fid() -> float:
            with redirect_stderr(nowhere):
                return float(fid_score.get_activations(files, network).mean())

        def work(each: Callable[[], float]) -> Callable[[], tuple[float, float, float]]:
            return lambda: timed(each)

        contenders = {"advgen": by_us, "torch-fidelity": by_fidelity, "pytorch-fid": by_pytorch_fid}
        runs = in_turns({name: work(each) for name, each in contenders.items()}, rounds)
    rows = []
    for name, found in runs.items():
        speeds = [images / statistics.median(each[index] for each in found) for index in (1, 2)]
        pairs = zip(runs["advgen"], found, strict=True)
        ratios = [(them[1] / us[1], them[2] / us[2]) for us, them in pairs]
        gains = [statistics.median(ratio[index] for ratio in ratios) for index in (0, 1)]
        rows.append([name, *(f"{value:.2f}" for value in (*speeds, *gains)), f"{found[0][0]:.6f}"])
    report.figures["inception"] = runs
    report.say(f"{images} pictures of {size} pixels, {rounds} rounds; medians.")
    columns = ["by", "images/s", "images a processor s", "advgen / it, by the clock", "by processor time"]
    report.table([*columns, "mean feature"], rows)


@dataclass(frozen=True)
class SlowStream:
    """A stream that waits before it gives images."""

    stream: ImageStream
    seconds_an_image: float

    @property
    def digest(self) -> str:
        """As the stream's."""
        return self.stream.digest

    def __len__(self) -> int:
        return len(self.stream)

    def read(self, positions: NDArray[np.int64], level: int | None = None) -> Samples:
        """As the stream's, later."""
        time.sleep(self.seconds_an_image * len(positions))
        return self.stream.read(positions, level)

    def fetch(self, indices: NDArray[np.int64], level: int | None = None) -> Samples:
        """As the stream's, later."""
        time.sleep(self.seconds_an_image * len(indices))
        return self.stream.fetch(indices, level)


def overlap(report: Report, images: int, size: int, rounds: int, batch: int, delay_ms: float, features: str) -> None:
    """Loading alone, the extractor alone, and both."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with scene(images, size) as (weights, stream):
        extractor = load_lite0() if features == "lite0" else load_inception(weights, expected_sha256=None)
        found = in_turns(_overlapping(SlowStream(stream, delay_ms / 1000), extractor, device, size, batch), rounds, 1)
    loading, computing, both = found["loading"], found["computing"], found["both"]
    apart = ratio_of(both, [a + b for a, b in zip(loading, computing, strict=True)])
    together = ratio_of(both, [max(a, b) for a, b in zip(loading, computing, strict=True)])
    report.figures["overlap"] = {"seconds": found, "both / sum": apart, "both / longer": together}
    report.say(
        f"{images} pictures of {size} pixels in batches of {batch}, {delay_ms:g} ms of waiting an image, {device}."
    )
    names = {"loading": "loading alone", "computing": f"{features} alone", "both": "both, as in an evaluation"}
    rows = [[text, spread([images / value for value in found[name]]).show(".1f")] for name, text in names.items()]
    report.table(["what", "images/s, median (least to most)"], rows)
    report.say(
        f"Time of both / sum of the two: {apart.show()}; 1 where nothing overlaps.\n"
        f"Time of both / the longer: {together.show()}; 1 where all of the shorter is hidden."
    )
    if device.type == "cpu" and len(os.sched_getaffinity(0)) == 1:
        report.say(
            "One core: decoding and computing share it and cannot gain by overlapping; only waiting can be hidden."
        )


def _overlapping(
    stream: SlowStream, extractor: Extractor, device: torch.device, size: int, batch: int
) -> dict[str, Callable[[], float]]:
    def reals() -> Reals:
        # New each time: it keeps the features that it has computed.
        return Reals(stream, len(stream), EvaluationConfig(batch_size=batch), device, labelled=False, ranks=Alone())

    held = [pictures.images for pictures in reals().own_pictures(size)]

    def finished(work: Callable[[], object]) -> Callable[[], float]:
        def once() -> float:
            begun = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - begun

        return once

    return {
        "loading": finished(lambda: [len(pictures) for pictures in reals().own_pictures(size)]),
        "computing": finished(lambda: [Pictures(images).features(extractor) for images in held]),
        "both": finished(lambda: reals().features(extractor, size)),
    }
