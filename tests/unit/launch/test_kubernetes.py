"""Objects of Kubernetes by the published schemas, the operators' own by theirs; and what the pods are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from advgen.errors import UserError
from advgen.launch.kubernetes import RECIPE, Kubernetes, manifest, object_name
from advgen.launch.plan import plan
from advgen.strict_config import YamlText, parse, read_yaml
from tests.unit.launch.recipes import four_stages

SCHEMAS = Path(__file__).parent / "schemas"
# One that clusters have now, and the oldest with all that is used (podFailurePolicy, 1.31).
VERSIONS = ("1.31", "1.34")


def cluster(**values: Any) -> Kubernetes:
    given = {"kind": "kubernetes", "image": "registry.example/advgen:1", "claim": "advgen", "secret": "advgen"}
    return parse(Kubernetes, YamlText({**given, **values}, {}), "cloud/x.yaml")


def objects(**values: Any) -> list[dict[str, Any]]:
    recipe = four_stages(name="Faces_1")
    return list(yaml.safe_load_all(manifest(recipe, plan(recipe, RECIPE), cluster(**values))))


def core(kind: str, version: str, **values: Any) -> None:
    """Check an object of Kubernetes itself; keys that the schema does not know are refused."""
    api = "batch/v1" if kind == "Job" else "v1"
    whole = {"apiVersion": api, "kind": kind, "metadata": {"name": "x"}, **values}
    kubernetes_validate.validate(whole, version, strict=True)


def own(values: dict[str, Any]) -> None:
    jsonschema.validate(values, json.loads((SCHEMAS / f"{values['kind'].lower()}.json").read_text()))


def templates(operator: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """What of an operator's object is Kubernetes' own."""
    if operator["kind"] == "JobSet":
        return [("Job", {"spec": job["template"]["spec"]}) for job in operator["spec"]["replicatedJobs"]]
    return [("PodTemplate", {"template": r["template"]}) for r in operator["spec"]["pytorchReplicaSpecs"].values()]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("operator", ["jobset", "pytorchjob"])
@pytest.mark.parametrize("nodes", [1, 3])
def test_objects_are_valid(operator: str, nodes: int, version: str) -> None:
    config, made = objects(operator=operator, nodes=nodes, namespace="team", node_selector={"gpu": "h100"})
    kubernetes_validate.validate(config, version, strict=True)
    own(made)
    parts = templates(made)
    assert len(parts) == (4 if operator == "jobset" else min(nodes, 2))
    for kind, values in parts:
        core(kind, version, **values)


@pytest.mark.parametrize("operator", ["jobset", "pytorchjob"])
def test_a_wrong_key_is_caught(operator: str) -> None:
    made = objects(operator=operator)[1]
    kind, values = templates(made)[0]
    pod = values["spec"]["template"]["spec"] if kind == "Job" else values["template"]["spec"]
    pod["containers"][0]["comand"] = ["sh"]
    with pytest.raises(kubernetes_validate.ValidationError, match="comand"):
        core(kind, VERSIONS[0], **values)
    made["spec"]["replicas"] = 1
    with pytest.raises(jsonschema.ValidationError, match="replicas"):
        own(made)


def test_stages_wait_for_one_another() -> None:
    made = objects(nodes=2, gpus_per_node=4)[1]
    jobs = {job["name"]: job for job in made["spec"]["replicatedJobs"]}
    waits = {name: job.get("dependsOn", [{"name": None}])[0]["name"] for name, job in jobs.items()}
    assert waits == {"shard": None, "train": "shard", "evaluate": "train", "report": "evaluate"}
    specs = {name: job["template"]["spec"] for name, job in jobs.items()}
    assert {name: spec["completions"] for name, spec in specs.items()} == {
        "shard": 1,
        "train": 2,
        "evaluate": 1,
        "report": 1,
    }
    containers = {name: spec["template"]["spec"]["containers"][0] for name, spec in specs.items()}
    gpus = {name: each["resources"]["limits"].get("nvidia.com/gpu") for name, each in containers.items()}
    assert gpus == {"shard": None, "train": "4", "evaluate": "1", "report": None}
    assert containers["evaluate"]["command"] == ["advgen", "run", "/etc/advgen/recipe.yaml", "--only", "evaluate"]
    told = {each["name"]: each.get("value") for each in containers["train"]["env"]}
    name = made["metadata"]["name"]
    assert (told["NODES"], told["PROCESSES"], told["MASTER_ADDR"]) == ("2", "4", f"{name}-train-0-0.{name}")


def test_the_recipe_is_the_one_that_was_given(tmp_path: Path) -> None:
    recipe = four_stages(name="Faces_1")
    (tmp_path / "recipe.yaml").write_text(objects()[0]["data"]["recipe.yaml"])
    assert parse(type(recipe), read_yaml(tmp_path / "recipe.yaml"), "map") == recipe


def test_the_secret_is_named_only() -> None:
    for operator in ("jobset", "pytorchjob"):
        kind, values = templates(objects(operator=operator)[1])[0]
        pod = values["spec"]["template"]["spec"] if kind == "Job" else values["template"]["spec"]
        assert pod["containers"][0]["envFrom"] == [{"secretRef": {"name": "advgen"}}]


@pytest.mark.parametrize(
    ("name", "fitting"), [("faces-1", "faces-1"), ("Faces_1", "faces-1-"), ("x" * 60, "x" * 33 + "-")]
)
def test_names(name: str, fitting: str) -> None:
    made = object_name(name)
    assert made.startswith(fitting)
    assert len(made) <= 40
    assert made != object_name(name + "!")


def test_bad_settings() -> None:
    with pytest.raises(UserError, match="claim must be a name of Kubernetes"):
        cluster(claim="My Claim")
    with pytest.raises(UserError, match="kind: input should be 'kubernetes'"):
        cluster(kind="cloud")
