"""What nobody else should read is in no file: not by a setting, not by the recipe, not by what else is written."""

from __future__ import annotations

from typing import Any

import pytest

from advgen.errors import UserError
from advgen.launch.kubernetes import Kubernetes
from advgen.launch.machines import Machines
from advgen.launch.portable import check_portable
from advgen.launch.secrets import check_text
from advgen.launch.skypilot import Cloud
from advgen.strict_config import YamlText, parse, plain
from tests.unit.launch.recipes import four_stages

VALUE = "0123456789abcdef0123"


def settings(cls: type, **values: Any) -> object:
    return parse(cls, YamlText(values, {}), "cloud/x.yaml")


@pytest.mark.parametrize(
    ("cls", "values"),
    [
        (Cloud, {"kind": "cloud", "bucket": "s3://b"}),
        (Kubernetes, {"kind": "kubernetes", "image": "i", "claim": "c"}),
        (Machines, {"kind": "machines", "addresses": ["a"], "checkout": "/c", "folder": "/f"}),
    ],
)
def test_a_secret_among_the_variables(cls: type, values: dict[str, Any]) -> None:
    settings(cls, **values, environment={"NCCL_DEBUG": "WARN"})
    with pytest.raises(UserError, match="WANDB_API_KEY looks like a secret") as caught:
        settings(cls, **values, environment={"WANDB_API_KEY": VALUE})
    assert VALUE not in str(caught.value)


def test_a_value_where_a_name_belongs() -> None:
    with pytest.raises(UserError, match="give names of variables"):
        settings(Cloud, kind="cloud", bucket="s3://b", secrets=[f"WANDB_API_KEY={VALUE}"])


@pytest.mark.parametrize(
    ("place", "data"),
    [
        ("data.train.shards", {"train": {"shards": f"https://me:{VALUE}@host/shards"}}),
        ("data.train.shards", {"train": {"shards": f"https://host/shards?X-Amz-Signature={VALUE}"}}),
        ("data.mix.0.shards", {"train": {"shards": "d"}, "mix": [{"shards": f"s3://me:{VALUE}@b"}]}),
        ("data.remote.options.secret", {"train": {"shards": "s3://b"}, "remote": {"options": {"secret": VALUE}}}),
    ],
)
def test_a_secret_in_the_recipe(place: str, data: dict[str, Any]) -> None:
    recipe = four_stages(data={"resolution": 16, **data})
    with pytest.raises(UserError, match=f"^{place}: holds a password or key") as caught:
        check_portable(recipe, "the bucket")
    assert VALUE not in str(caught.value)


def test_an_address_and_options_without_secrets() -> None:
    data = {"resolution": 16, "train": {"shards": "s3://bucket/a?versionId=3"}}
    check_portable(four_stages(data={**data, "remote": {"options": {"endpoint_url": "https://host"}}}), "the bucket")


def test_the_value_of_a_secret_variable_in_a_text() -> None:
    check_text("name: faces", {"WANDB_API_KEY": VALUE, "SHORT_KEY": "name"})
    with pytest.raises(UserError, match=r"\$WANDB_API_KEY stands in the recipe") as caught:
        check_text(f"project: {VALUE}", {"WANDB_API_KEY": VALUE})
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize("path", ["/data/faces", "../faces", "data/../../faces"])
def test_a_path_of_this_machine(path: str) -> None:
    recipe = four_stages(data={**plain(four_stages().data), "train": {"shards": path}})
    with pytest.raises(UserError, match=f"^data.train.shards: {path} is a path of this machine.*into the bucket b"):
        check_portable(recipe, "the bucket b")
