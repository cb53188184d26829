"""Settings of a cluster, and what is made of them."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from advgen.config import load_recipe, method_of
from advgen.errors import UserError
from advgen.launch.cluster import Cluster, Container, Resources, load_cluster
from advgen.launch.plan import plan
from advgen.launch.sbatch import order, printable, setup_file
from advgen.launch.settings import CHECKOUT
from tests.distributed.runs import write_recipe


@pytest.mark.parametrize(
    ("time", "seconds"),
    # sbatch's manual, --time: minutes, minutes:seconds, hours:minutes:seconds, days-hours, days-hours:minutes, ...
    [("90", 5400), ("2:30", 150), ("4:00:00", 14400), ("1-12", 129600), ("1-00:30", 88200), ("2-01:00:01", 176401)],
)
def test_times_are_read_as_sbatch_does(time: str, seconds: int) -> None:
    assert Resources(time=time).seconds == seconds


@pytest.mark.parametrize("path", sorted((CHECKOUT / "slurm/clusters").glob("*.yaml")), ids=lambda path: path.stem)
def test_clusters_of_the_checkout_are_valid(path: Path) -> None:
    assert load_cluster(path.stem) == load_cluster(str(path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("patition: gpu", "did you mean 'partition'?"),
        ("train: {time: 4h}", "time must be like 90"),
        ("train: {time: '0:01:00'}", "warn_seconds must be at least 30 and less than train.time"),
        ("evaluate: {nodes: 2}", "evaluate: is one process"),
        ("evaluate_tasks: 0", "evaluate_tasks 1 to 1000"),
        ("network_gbit_per_rank: 0", "network_gbit_per_rank must be positive"),
        ("environment: {WANDB_API_KEY: abc}", "WANDB_API_KEY looks like a secret"),
        ("environment: {AWS_SECRET_ACCESS_KEY: abc}", "looks like a secret"),
        ("environment: {'A B': c}", "'A B' is no name of a variable"),
        ("options: ['--array=0-3']", "--array=0-3 is set by advgen"),
        ("options: ['-p gpu']", "write '-p gpu' as --name"),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UserError) as raised:
        load_cluster(str(tmp_path / "c.yaml"))
    assert told in str(raised.value)


def test_an_unknown_cluster_names_the_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slurm/clusters").mkdir(parents=True)
    (tmp_path / "slurm/clusters/mine.yaml").write_text("partition: p")
    monkeypatch.chdir(tmp_path)
    assert load_cluster("mine").partition == "p"
    with pytest.raises(UserError, match="no slurm/clusters/yours.yaml. Known: default, example-8gpu, mine."):
        load_cluster("yours")


HOSTILE = 'a b\'; touch pwned; "$(touch pwned)" `touch pwned` \\ \n#'


def test_nothing_of_the_settings_is_run(tmp_path: Path) -> None:
    """The file that the scripts source gives every value back as it was, and runs none of it."""
    cluster = Cluster(
        environment={"FIRST": HOSTILE},
        program=("run", HOSTILE),
        container=Container(image=HOSTILE, tool="pyxis", mounts=("/a",)),
        modules=(HOSTILE,),
        node_scratch=f"/scratch/{HOSTILE}",
    )
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", data__train={"shards": HOSTILE}))
    (tmp_path / "setup.sh").write_text(setup_file(cluster, recipe, ("advgen",)))
    script = 'module() { printf "%s\\0" "$@"; }; source ./setup.sh; printf "%s\\0" "$FIRST" "${program[@]}"'
    script += ' "${srun_options[@]}" "${local_shards[@]}"'
    done = subprocess.run(["bash", "-euc", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = ["load", HOSTILE, HOSTILE, "run", HOSTILE, f"--container-image={HOSTILE}", "--container-mounts=/a"]
    expected += [f"/scratch/{HOSTILE}", "--data.train.shards", HOSTILE]
    assert done.stdout.split("\0")[:-1] == expected
    assert not (tmp_path / "pwned").exists()


def test_a_container(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml"))
    text = setup_file(Cluster(container=Container(image="advgen.sif", mounts=("/data",))), recipe, ("here",))
    assert "program=(apptainer exec --nv --bind /data advgen.sif advgen)" in text
    assert "program=(here)" in setup_file(Cluster(), recipe, ("here",))


def orders(folder: Path, cluster: Cluster) -> dict[str, Any]:
    recipe = load_recipe(write_recipe(folder / "r.yaml", name="it"))
    return {job.stage: order(job, cluster, recipe.folder) for job in plan(recipe, Path("r"))}


def test_options_of_a_job(tmp_path: Path) -> None:
    cluster = load_cluster("example-8gpu")
    made = orders(tmp_path, cluster)
    command = made["train"].command("17")
    asked = ["--partition=gpu", "--nodes=2", "--ntasks-per-node=8", "--gpus-per-node=8", "--mem=900G"]
    assert not {*asked, "--signal=B:USR1@300", "--dependency=afterok:17", "--kill-on-invalid-dep=yes"} - set(command)
    assert "--partition=cpu" in made["report"].options
    assert made["train"].comment != made["evaluate"].comment
    assert '--dependency=afterok:"$shard"' in printable(made["train"], "train", "shard")


def test_the_evaluation_as_a_job_array(tmp_path: Path) -> None:
    made = orders(tmp_path, Cluster(evaluate_tasks=8))
    assert [each.tasks for each in made.values()] == [1, 8, 1]
    assert "--array=0-7" in made["evaluate"].options
    assert "--output=runs/it/launch/evaluate-%A_%a.log" in made["evaluate"].options
    assert "--array=0-7" not in made["report"].options + made["train"].options
    job = next(job for job in plan(load_recipe(tmp_path / "r.yaml"), Path("r")) if job.stage == "evaluate")
    of_members = order(job, Cluster(evaluate_tasks=8), tmp_path, "0-2")  # a sweep's: each member is a task
    assert of_members.tasks == 1 and "--array=0-2" in of_members.options and "--array=0-7" not in of_members.options


def test_a_secret_stands_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the submitting shell has reaches jobs through sbatch's --export=ALL, and no file or command."""
    monkeypatch.setenv("WANDB_API_KEY", "hunter2hunter2")
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml"))
    texts = [setup_file(Cluster(), recipe, ("advgen",))]
    for stage, each in orders(tmp_path, Cluster()).items():
        texts += [printable(each, stage, None), str(each)]
    assert os.environ["WANDB_API_KEY"] and all("hunter2" not in text for text in texts)
    assert all("--export=ALL" in each.options for each in orders(tmp_path, Cluster()).values())


def test_a_copy_of_the_shards_goes_on_with_the_run(tmp_path: Path) -> None:
    """The flags that the batch script adds are the recipe's, and make it no other method."""
    held_out = {"shards": "b"}
    recipe = load_recipe(write_recipe(tmp_path / "r.yaml", data__train={"shards": "a"}, data__held_out=held_out))
    text = setup_file(Cluster(node_scratch="/scratch"), recipe, ("advgen",))
    flags = shlex.split(text.split("local_shards=(")[1].split(")")[0])[1:]
    assert flags == ["--data.train.shards", "a", "--data.held-out.shards", "b"]
    flags[1::2] = ["/scratch/train", "/scratch/held-out"]
    moved = load_recipe(tmp_path / "r.yaml", flags)
    assert moved.data.train is not None and moved.data.train.shards == "/scratch/train"
    assert method_of(moved) == method_of(recipe)
