"""The evaluator: one pass over the fakes for all metrics, records that are kept, floors, and figures as they were."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from advgen.build import build_evaluator
from advgen.config import Recipe, load_recipe
from advgen.errors import UserError
from advgen.game import sampling_networks
from advgen.images import to_bytes
from advgen.metrics.frechet import frechet_distance
from advgen.metrics.measures import Result
from advgen.metrics.probe import fit_probe
from advgen.metrics.records import Records
from advgen.metrics.statistics import FeatureStatistics
from advgen.runtime.checkpoint import list_checkpoints, read_checkpoint, restore_networks
from advgen.runtime.run_folder import RunFolder
from advgen.seeds import Noise, key_of, permutation
from advgen.strict_config import YamlText, parse, plain
from advgen.turns import batch_of
from pipelines.__main__ import main
from tests.distributed.runs import (
    LABELLED,
    PAIRED,
    ROOT,
    make_labelled_shards,
    make_paired_shards,
    write_images,
    write_recipe,
)
from tests.games.test_resume import GAME_SETTINGS, play

NEIGHBOURS = ("precision", "recall", "density", "coverage")
EVALUATION = {"samples": 24, "batch_size": 10, "threads": 1, "judge_images": 64, "cache": "cache"}
# A step or two of each phase.
CLASSES = {**GAME_SETTINGS["cgan"], "total_kimg": 0.008, "rampdown_kimg": 0.0, "critic_repeats": 1}
CODES = {**GAME_SETTINGS["aae"], "total_kimg": 0.008}
MAPS = {
    **GAME_SETTINGS["pix2pixhd"],
    **{"global_kimg": 0.004, "global_decay_kimg": 0.0, "frozen_kimg": 0.004},
    **{"joint_kimg": 0.004, "joint_decay_kimg": 0.0},
}


class Means:
    """A feature network of the tests': means over quarters of each channel."""

    identity: ClassVar[dict[str, Any]] = {"name": "means"}
    dimensions = 12

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 2).flatten(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a game of classes and of one of codes, with held-out images of other seeds, and of one of label maps."""
    folder = tmp_path_factory.mktemp("evaluation")
    make_labelled_shards(folder)
    make_paired_shards(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for index, name in enumerate(("cats", "dogs")):
            write_images(folder / "others" / name, 12 - 2 * index, seed=70 + index)
        assert main(["shard", "others", "held-out", "--resolution", "16", "--labels", "folders"]) == 0
        held_out = {"data__held_out": {"shards": "held-out"}}
        same = {"evaluation": EVALUATION, "training__sample_rows": 1, "training__sample_columns": 2}
        assert play(write_recipe(folder / "c.yaml", name="c", game=CLASSES, **LABELLED, **held_out, **same), None)
        assert play(write_recipe(folder / "a.yaml", name="a", game=CODES, **LABELLED, **held_out, **same), None)
        assert play(write_recipe(folder / "p.yaml", name="p", game=MAPS, **PAIRED, **same), None)
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In that folder, without figures."""
    monkeypatch.chdir(place)
    yield place
    for path in place.glob("runs/*/metrics.jsonl"):
        path.unlink()


@pytest.fixture
def means(monkeypatch: pytest.MonkeyPatch) -> Means:
    """Stands in for EfficientNet-Lite0."""
    means = Means()
    monkeypatch.setattr("advgen.metrics.lite0.load_lite0", lambda _: means)
    return means


class Counted:
    """An evaluator, with the calls of its game's sample counted, and what it told."""

    def __init__(self, run: str, **evaluation: Any) -> None:
        values = plain(load_recipe(Path(f"{run}.yaml")))
        values["evaluation"].update(evaluation)
        recipe = parse(Recipe, YamlText(values, {}), "test")
        self.evaluator = build_evaluator(recipe, RunFolder(recipe.folder))
        self.told: list[tuple[str, str, bool]] = []
        self.calls = 0
        game = cast(Any, self.evaluator.game)
        sample: Callable[..., Tensor] = game.sample

        def counted(*arguments: Any) -> Tensor:
            self.calls += 1
            return sample(*arguments)

        game.sample = counted

    def run(self) -> list[dict[str, Any]]:
        def told(record: dict[str, Any], before: bool) -> None:
            self.told.append((record["name"], record["moment"], before))

        return self.evaluator.run(told, self.evaluator.checkpoints("latest"))


def test_networks_that_draw_nothing_finite_give_no_figure(here: Path, means: Means) -> None:
    """One value of one picture is enough; as bytes it would be like any other."""
    of = Counted("c", metrics=["fd_lite0"], cache="cache-of-its-own")
    game = cast(Any, of.evaluator.game)
    sample = game.sample

    def broken(*arguments: Any) -> Tensor:
        images = sample(*arguments)
        images[1, 0, 0, 0] = float("nan")
        return images

    game.sample = broken
    with pytest.raises(UserError, match=r"draw pictures that are not finite.*--checkpoint NIMG"):
        of.run()
    records = [json.loads(line) for line in (here / "runs/c/metrics.jsonl").read_text().splitlines()]
    assert {record["moment"] for record in records} == {"floor"}


def test_one_pass_over_the_fakes_feeds_every_metric(here: Path, means: Means) -> None:
    names = ("fd_lite0", *NEIGHBOURS)
    counted = Counted("c", metrics=names)
    records = counted.run()
    assert counted.calls == 2  # of 16 and 8
    assert counted.told == [(name, moment, False) for moment in ("floor", "end") for name in names]
    # Training images for the cached statistics and for the neighbours; held-out ones and fakes once for all metrics.
    assert means.seen == 2 * 96 + 22 + 24
    assert [json.loads(line) for line in (here / "runs/c/metrics.jsonl").read_text().splitlines()] == records
    for record in records:
        by_class = record.get("per_class")
        assert (by_class is None) == (record["name"] == "fd_lite0")
        assert by_class is None or len(by_class) == 2


def test_what_is_there_is_not_taken_again(here: Path, means: Means) -> None:
    first = Counted("c", metrics=("fd_lite0", "precision")).run()
    again = Counted("c", metrics=("fd_lite0", "precision"))
    assert again.run() == first and again.calls == 0
    assert all(before for *_, before in again.told)
    more = Counted("c", metrics=("fd_lite0", "coverage", "precision"))
    found = more.run()
    assert more.calls == 2 and [record for record in found if record["name"] != "coverage"] == first
    assert [name for name, _, before in more.told if not before] == ["coverage", "coverage"]
    assert Counted("c", metrics=("fd_lite0",), samples=20).run() != first[::2]  # another protocol


def test_records_of_before_there_were_classes_are_known(here: Path, means: Means) -> None:
    [floor, end] = Counted("c", metrics=("fd_lite0",)).run()
    assert set(end) == {
        *("name", "nimg", "phase", "moment", "resolution", "checkpoint", "checkpoint_sha256", "protocol", "value"),
    }
    keys = {"samples", "images", "reference", "reference_samples", "resolution", "weights", "seed", "extractor"}
    assert set(floor["protocol"]) == keys and set(end["protocol"]) == keys | {"conditions"}
    assert floor["protocol"]["samples"] == 22 and end["protocol"]["samples"] == 24
    assert floor["phase"] == "16x16" and floor["protocol"]["weights"] == "none"


def test_the_frechet_distance_is_as_it_was_to_the_last_bit(here: Path, means: Means) -> None:
    """Against the loop that the evaluator had when a metric was an extractor and a distance."""
    counted = Counted("c", metrics=("precision", "fd_lite0"))
    found = {(r["moment"], r["name"]): r["value"] for r in counted.run()}
    evaluator = counted.evaluator
    path = list_checkpoints(evaluator.folder.checkpoints)[-1]
    train, held_out = evaluator.images.train, evaluator.images.held_out
    assert held_out is not None

    def of_reals(stream: Any, count: int) -> FeatureStatistics:
        order = np.sort(permutation(key_of(0, "evaluation"), len(stream))[:count])
        statistics = FeatureStatistics(12)
        for indices in np.split(order, range(64, count, 64)):
            statistics.add(means(torch.from_numpy(stream.fetch(indices, 16).images)))
        return statistics

    restore_networks({**evaluator.showing.networks, **evaluator.showing.averages}, read_checkpoint(path).networks)
    networks = sampling_networks(evaluator.game, evaluator.showing.networks, evaluator.showing.averages)
    order = permutation(key_of(0, "conditions"), len(held_out))
    drawn = []
    for numbers in (np.arange(16), np.arange(16, 32)):
        noise = Noise(0, ("evaluation",), torch.from_numpy(numbers))
        like = batch_of(held_out.fetch(order[numbers % len(order)], 16), torch.device("cpu"), labelled=True)
        with torch.no_grad():
            drawn.append(cast(Any, evaluator.game).sample(networks, evaluator.timeline.at_end_of(0), noise, like))
    fakes = FeatureStatistics(12)
    fakes.add(means(to_bytes(torch.cat(drawn)[:24])))
    reference = of_reals(train, 96)
    assert found["end", "fd_lite0"] == frechet_distance(fakes, reference)
    assert found["floor", "fd_lite0"] == frechet_distance(of_reals(held_out, 22), reference)


def test_judges_hold_pictures_against_their_classes(here: Path, means: Means) -> None:
    records = {record["moment"]: record for record in Counted("c", metrics=("recognised",)).run()}
    assert set(records) == {"floor", "end"}
    for record in records.values():
        judge = record["protocol"]["classifier"]
        assert (judge["name"], judge["resolution"], judge["images"]) == ("advgen classifier", 16, 64)
        assert 0 <= record["value"] <= 1 and len(record["per_class"]) == 2
    # Held out are 12 images of one class and 10 of the other.
    first, second = records["floor"]["per_class"]
    assert records["floor"]["value"] == pytest.approx((12 * first + 10 * second) / 22)


def test_judges_hold_pictures_against_their_maps(here: Path) -> None:
    records = {record["name"]: record for record in Counted("p", metrics=("miou", "pixel_accuracy")).run()}
    assert len(records["miou"]["per_class"]) == len(records["pixel_accuracy"]["per_class"]) == 4
    assert records["miou"]["protocol"]["segmenter"] == records["pixel_accuracy"]["protocol"]["segmenter"]
    assert records["miou"]["value"] == pytest.approx(np.mean(records["miou"]["per_class"]))


def test_styles_are_drawn_of_the_first_conditions_only(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="the extra `demo` is not installed")
    monkeypatch.setattr("advgen.metrics.conditions.CONDITIONS", 3)
    counted = Counted("p", metrics=("style_diversity", "pixel_accuracy"))
    [styles, _] = counted.run()
    assert counted.calls == 2 + 4  # all 24 pictures, and those of three conditions in four styles
    assert styles["value"] > 0 and "per_class" not in styles
    assert (styles["protocol"]["samples"], styles["protocol"]["styles"]) == (3, 4)
    fewer = Counted("p", metrics=("style_diversity",), samples=4)
    assert fewer.run() == [styles] and fewer.calls == 0


def test_held_out_images_are_encoded_decoded_and_classified(here: Path) -> None:
    """Each is seen once, without noise; samples are drawn only where a metric asks for them."""

    class Bright(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack((images.mean((1, 2, 3)), torch.full((len(images),), 0.5)), 1)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(Bright()), here / "bright.pt")
    names = ("reconstruction_recognised", "classification_error")
    counted = Counted("a", metrics=names, classifier="bright.pt")
    records = counted.run()
    assert counted.calls == 0
    assert counted.told == [(names[0], "floor", False), (names[0], "end", False), (names[1], "end", False)]
    evaluator = counted.evaluator
    game, held_out = cast(Any, evaluator.game), evaluator.images.held_out
    assert held_out is not None
    path = list_checkpoints(evaluator.folder.checkpoints)[-1]
    restore_networks({**evaluator.showing.networks, **evaluator.showing.averages}, read_checkpoint(path).networks)
    networks = sampling_networks(evaluator.game, evaluator.showing.networks, evaluator.showing.averages)
    batch = batch_of(held_out.fetch(np.arange(22)), torch.device("cpu"), labelled=True)
    assert batch.labels is not None
    with torch.no_grad():
        probabilities = game.classify(networks, evaluator.timeline.at_end_of(0), batch)
        codes = game.encode(networks, evaluator.timeline.at_end_of(0), batch)
        again = to_bytes(game.decode(networks, evaluator.timeline.at_end_of(0), codes, batch)).double() / 255
    error = (probabilities.argmax(dim=1) != batch.labels).double().mean().item()
    right = ((again.mean((1, 2, 3)) <= 0.5).long() == batch.labels).double().mean().item()
    assert [record["value"] for record in records[1:]] == pytest.approx([right, error])
    assert records[1]["protocol"] | {"images": ""} == records[0]["protocol"] | {
        "images": "",
        "weights": "average",
        "conditions": held_out.digest,
    }
    both = Counted("a", metrics=("recognised", *names), classifier="bright.pt")
    both.run()
    assert both.calls == 2 and [before for name, _, before in both.told if name in names] == [True] * 3


def test_a_probe_learns_from_the_first_training_images_of_each_class(here: Path) -> None:
    [record] = Counted("a", metrics=("probe_error",), probe_labels=40).run()
    assert record["protocol"]["probe_labels"] == 40 and record["protocol"]["probe"] == "L2-SVM"
    evaluator = Counted("a", metrics=("probe_error",)).evaluator
    game, held_out = cast(Any, evaluator.game), evaluator.images.held_out
    assert held_out is not None
    path = list_checkpoints(evaluator.folder.checkpoints)[-1]
    restore_networks({**evaluator.showing.networks, **evaluator.showing.averages}, read_checkpoint(path).networks)
    networks = sampling_networks(evaluator.game, evaluator.showing.networks, evaluator.showing.averages)
    stream = evaluator.reference.stream
    train = batch_of(stream.fetch(np.arange(len(stream))), torch.device("cpu"), labelled=True)
    test = batch_of(held_out.fetch(np.arange(22)), torch.device("cpu"), labelled=True)
    assert train.labels is not None and test.labels is not None
    chosen = torch.cat([torch.nonzero(train.labels == one)[:20, 0] for one in range(2)]).sort().values
    with torch.no_grad():
        codes, others = (game.encode(networks, evaluator.timeline.at_end_of(0), batch) for batch in (train, test))
    answers = fit_probe(codes[chosen], train.labels[chosen], 2).answers(others)
    assert record["value"] == pytest.approx((answers != test.labels).double().mean().item())


@pytest.mark.parametrize(
    ("run", "changes", "message"),
    [
        ("c", {"metrics": ("probe_error",)}, "probe_error: this game finds no latents"),
        ("a", {"metrics": ("probe_error",), "probe_labels": 1}, "probe_labels is 1, less than the 2 classes"),
        (
            "a",
            {"metrics": ("probe_error",), "probe_labels": 900},
            "asks for 450 images of each class, and there are 48",
        ),
        ("c", {"metrics": ("reconstruction_recognised",)}, "reconstruction_recognised: this game finds no latents"),
        ("c", {"metrics": ("classification_error",)}, "classification_error: this game's networks tell no classes"),
    ],
)
def test_a_metric_of_what_the_game_cannot_do_is_refused(
    here: Path, run: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Counted(run, **changes).run()


def test_a_judge_of_the_user_s(here: Path) -> None:
    class Bright(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.stack((images.mean((1, 2, 3)), torch.full((len(images),), 0.5)), 1)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit", FutureWarning)
        torch.jit.save(torch.jit.script(Bright()), here / "judge.pt")
    records = Counted("c", metrics=("recognised",), classifier="judge.pt").run()
    assert {record["protocol"]["classifier"]["name"] for record in records} == {"torchscript"}


def test_classes_in_their_mean_colours_are_measured_like_fakes(
    here: Path, means: Means, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """scripts/earth_baselines.py against a loop over the same maps."""
    monkeypatch.setattr("sys.argv", ["earth_baselines.py", "runs/p"])
    runpy.run_path(str(ROOT / "scripts/earth_baselines.py"), run_name="__main__")
    told = json.loads(capsys.readouterr().out)
    evaluator = Counted("p").evaluator
    stream = evaluator.reference.stream
    reals = stream.fetch(np.arange(len(stream)), 16)
    assert reals.label_map is not None
    pixels = reals.images.transpose(0, 2, 3, 1).astype(np.float64)
    colours = np.array([pixels[reals.label_map == number].mean(0) for number in range(4)]).round().astype(np.uint8)
    assert told["colours"] == colours.tolist()
    order = permutation(key_of(0, "conditions"), len(stream))
    flat = colours[reals.label_map[order[np.arange(24) % len(order)]]].transpose(0, 3, 1, 2)
    fakes, reference = FeatureStatistics(12), FeatureStatistics(12)
    fakes.add(means(torch.from_numpy(flat.copy())))
    reference.add(means(torch.from_numpy(reals.images)))
    assert told["fd_lite0"]["value"] == pytest.approx(frechet_distance(fakes, reference), rel=1e-9)


def test_only_whole_checkpoints_are_evaluated_and_those_that_are_asked_for(here: Path, means: Means) -> None:
    evaluator = Counted("c").evaluator
    folder = evaluator.folder.checkpoints
    (folder / "000000000004").mkdir()  # being removed, or written by somebody else
    (folder / ".000000000006.tmp").mkdir()  # being written
    try:
        names = {which: [int(path.name) for path in evaluator.checkpoints(which)] for which in ("every", "latest", 0)}
        assert names == {"every": [0, 8], "latest": [8], 0: [0]}
        with pytest.raises(UserError, match="has no complete checkpoint at 4 images. There are: 0, 8."):
            evaluator.checkpoints(4)
    finally:
        (folder / "000000000004").rmdir()
        (folder / ".000000000006.tmp").rmdir()


def test_a_checkpoint_that_the_run_has_removed_meanwhile_is_passed_over(here: Path, means: Means) -> None:
    evaluator = Counted("c", metrics=("fd_lite0",)).evaluator
    gone = evaluator.folder.checkpoints / "000000000004"
    records = evaluator.run(lambda record, before: None, [gone, *evaluator.checkpoints("latest")])
    assert [record["moment"] for record in records] == ["floor", "end"]


def test_repeats_are_of_seeds_of_their_own_and_kept(
    here: Path, means: Means, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["evaluate", "runs/c", "--latest", "--metrics", "fd_lite0"]
    assert main([*arguments, "--repeats", "3"]) == 0
    told = capsys.readouterr().out.splitlines()
    records = [json.loads(line) for line in (here / "runs/c/metrics.jsonl").read_text().splitlines()]
    assert [record["moment"] for record in records] == ["floor", "end", "end", "end"]
    assert [record["protocol"].get("samples_seed") for record in records] == [None, None, 1, 2]
    values = [record["value"] for record in records[1:]]
    assert len(set(values)) == 3
    assert f"{np.mean(values):.2f} ± " in told[-1] and told[-1].endswith("(95 % of the mean of 3 seeds)")
    # The first is what is taken without repeats; the second is of the pictures that another seed draws.
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("(known)") == 2
    evaluator = Counted("c", metrics=("fd_lite0",)).evaluator
    tensors = read_checkpoint(list_checkpoints(evaluator.folder.checkpoints)[-1]).networks
    show = lambda count: evaluator.showing.fakes(tensors, evaluator.timeline.at_end_of(0), 1, count)  # noqa: E731
    assert evaluator.figures(show, 16)["fd_lite0"].value == values[1]


@pytest.fixture
def unfinished(here: Path) -> Iterator[tuple[Path, Path]]:
    """A run that has but its first checkpoint, and the place where the last one waits."""
    run, waiting = here / "runs/w", here / "waiting"
    shutil.copytree(here / "runs/c", run)
    (run / "checkpoints/000000000008").rename(waiting)
    yield run, waiting
    shutil.rmtree(run)
    shutil.rmtree(waiting, ignore_errors=True)


def names_of(run: Path) -> list[tuple[str, int]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(record["moment"], record["nimg"]) for record in records]


def once(condition: Callable[[], object], action: Callable[[], object]) -> threading.Thread:
    """Do something as soon as something is so, on a thread."""

    def wait() -> None:
        while not condition():
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_a_run_is_followed_to_its_end(unfinished: tuple[Path, Path], means: Means) -> None:
    run, waiting = unfinished
    metrics, place = run / "metrics.jsonl", run / "checkpoints/000000000008"
    thread = once(lambda: metrics.is_file() and len(names_of(run)) == 2, lambda: waiting.rename(place))
    assert main(["evaluate", "runs/w", "--watch", "0.05", "--metrics", "fd_lite0"]) == 0
    thread.join()
    assert names_of(run) == [("floor", 0), ("untrained", 0), ("end", 8)]
    content = metrics.read_bytes()
    assert main(["evaluate", "runs/w", "--watch", "0.05", "--metrics", "fd_lite0"]) == 0
    assert metrics.read_bytes() == content


def test_following_ends_when_it_is_asked_to(unfinished: tuple[Path, Path], means: Means) -> None:
    run, _ = unfinished
    metrics = run / "metrics.jsonl"
    thread = once(lambda: metrics.is_file() and len(names_of(run)) == 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["evaluate", "runs/w", "--watch", "3600", "--metrics", "fd_lite0"]) == 128 + signal.SIGTERM
    thread.join()
    assert names_of(run) == [("floor", 0), ("untrained", 0)]


def test_two_evaluations_at_once_keep_each_other_s_records(here: Path, means: Means) -> None:
    one, two = Counted("c", metrics=("fd_lite0",)), Counted("c", metrics=("precision",))
    records = Records(here / "runs/c/metrics.jsonl")  # has read the file, which is empty, before the others write
    one.run()
    two.run()
    records.add({"name": "other"}, Result(1.0))
    names = [json.loads(line)["name"] for line in (here / "runs/c/metrics.jsonl").read_text().splitlines()]
    assert names == ["fd_lite0"] * 2 + ["precision"] * 2 + ["other"]
