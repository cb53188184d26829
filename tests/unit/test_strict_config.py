from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Discriminator

from advgen.config import Recipe, flatten, load_recipe, method_of
from advgen.errors import UserError
from advgen.strict_config import YamlText, configuration, digest, dump_yaml, parse, plain, read_yaml
from tests.helpers import tiny_recipe


@configuration
class Cat:
    kind: Literal["cat"] = "cat"
    lives: int = 9


@configuration
class Dog:
    kind: Literal["dog"] = "dog"
    bark: float = 1.0

    def __post_init__(self) -> None:
        if self.bark <= 0:
            raise ValueError("bark must be positive")


@configuration
class House:
    name: str
    rate: float = 0.5
    rooms: tuple[str, ...] = ()
    warm: bool = False
    doors: int | None = None
    sizes: dict[int, float] = field(default_factory=dict)
    pet: Annotated[Cat | Dog, Discriminator("kind")] = Cat()


@pytest.fixture
def house(tmp_path: Path) -> Any:
    def of(text: str) -> House:
        path = tmp_path / "house.yaml"
        path.write_text(text)
        return parse(House, read_yaml(path), "house.yaml")

    return of


def mistakes(house: Any, text: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        house(text)
    return str(caught.value).splitlines()


def test_an_unknown_key_is_told_with_line_and_nearest_name(house: Any) -> None:
    assert mistakes(house, "name: a\n\nrooms: [x]\nraet: 1.0\n") == [
        "house.yaml:4: raet: unknown key; did you mean 'rate'?"
    ]
    far = mistakes(house, "name: a\nzzzzzz: 1\n")
    assert far == ["house.yaml:2: zzzzzz: unknown key; known here: doors, name, pet, rate, rooms, sizes, warm."]


def test_inside_a_union_names_are_those_of_the_chosen_kind(house: Any) -> None:
    text = "name: a\npet:\n  kind: dog\n  barc: 2\n"
    assert mistakes(house, text) == ["house.yaml:4: pet.barc: unknown key; did you mean 'bark'?"]
    text = "name: a\npet:\n  kind: dog\n  lives: 2\n"
    assert mistakes(house, text) == ["house.yaml:4: pet.lives: unknown key; known here: bark, kind."]


def test_a_wrong_or_missing_kind_is_told_with_the_known_ones(house: Any) -> None:
    expected = ["house.yaml:2: pet.kind: must be one of 'cat', 'dog'."]
    assert mistakes(house, "name: a\npet: {kind: cow}\n") == expected
    missing = mistakes(house, "name: a\npet: {lives: 3}\n")
    assert len(missing) == 1
    assert missing[0].startswith("house.yaml:2: pet.kind: must be one of")


def test_a_check_of_the_members_own_is_told_at_its_place(house: Any) -> None:
    assert mistakes(house, "name: a\npet:\n  kind: dog\n  bark: 0\n") == ["house.yaml:2: pet: bark must be positive"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("rate: fast", "rate: input should be a valid number (given: 'fast')"),
        ("rate: '1.0'", "rate: input should be a valid number (given: '1.0')"),
        ("warm: 1", "warm: input should be a valid boolean (given: 1)"),
        ("warm: yes", "warm: input should be a valid boolean (given: 'yes')"),
        ("doors: 2.5", "doors: input should be a valid integer"),
        ("doors: 1__0", "doors: input should be a valid integer (given: '1__0')"),
        ("doors: 1_", "doors: input should be a valid integer (given: '1_')"),
        ("rate: 1e999", "rate: input should be a valid number (given: '1e999')"),
        ("rooms: hall", "rooms: input should be a valid array (given: 'hall')"),
    ],
)
def test_loose_types_are_refused(house: Any, line: str, told: str) -> None:
    (message,) = mistakes(house, f"name: a\n{line}\n")
    assert message.startswith(f"house.yaml:2: {told}")


def test_all_mistakes_are_told_at_once(house: Any) -> None:
    told = mistakes(house, "rate: fast\nwarmth: true\nrooms: [hall, 3]\npet:\n  kind: cat\n  lives: nine\n")
    assert sorted(told) == sorted(
        [
            "house.yaml: name: is required but missing. Add it.",
            "house.yaml:1: rate: input should be a valid number (given: 'fast')",
            "house.yaml:2: warmth: unknown key; did you mean 'warm'?",
            "house.yaml:3: rooms.1: input should be a valid string (given: 3)",
            "house.yaml:6: pet.lives: input should be a valid integer (given: 'nine')",
        ]
    )


def test_numbers_words_and_nothing_follow_yaml_1_2(house: Any) -> None:
    read = house("name: on\nrate: 1e-3\nrooms: [yes, no, off, '1', \"true\", 12:30]\nwarm: true\ndoors: ~\n")
    assert read == House(name="on", rate=0.001, rooms=("yes", "no", "off", "1", "true", "12:30"), warm=True, doors=None)
    assert isinstance(house("name: a\nrate: 2").rate, float)
    assert house("name: a\ndoors: 1_000").doors == 1000
    assert house("name: a\nrate: -.5E+1").rate == -5.0


def test_whole_numbers_may_be_keys(house: Any) -> None:
    read = house("name: a\nsizes: {4: 1.5, 16: 2}\n")
    assert read.sizes == {4: 1.5, 16: 2.0}
    assert all(isinstance(key, int) for key in read.sizes)
    (message,) = mistakes(house, "name: a\nsizes:\n  4: 1\n  four: 2\n")
    assert message.startswith("house.yaml:4: sizes.four")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\nrate: 1\nname: b\n", ":3: 'name' is given twice. Keep one of them."),
        ("name: a\npet:\n  kind: cat\n  lives: 1\n  lives: 2\n", ":5: 'lives' is given twice."),
        ("name: a\nsizes: {4: 1, '4': 2}\n", ":2: '4' is given twice."),
        ("name: &a [1]\nrate: *a\n", ":2: the alias *a is not allowed. Write its value out."),
        ("name: &a\n  x: *a\n", ":2: the alias *a is not allowed."),
        ("name: {4: 1, 04: 2}\n", ":1: '4' is given twice. Keep one of them."),
        ("name: a\nrate: !!float 3\n", ":2: the tag tag:yaml.org,2002:float is not allowed. Remove it."),
        ("name: !!python/object/apply:os.system [ls]\n", ":1: the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("? [a, b]\n: c\n", ":1: keys must be plain names."),
        ("name: [a\n", "is not valid YAML"),
        ("- a\n- b\n", "must hold a mapping"),
        ("", "must hold a mapping"),
    ],
)
def test_what_is_no_plain_mapping_is_refused(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "house.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert told in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.yaml: cannot be read .*Name an existing recipe"):
        read_yaml(tmp_path / "nowhere.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(UserError, match="is not a text file"):
        read_yaml(tmp_path / "picture.png")


@pytest.mark.parametrize(
    "config",
    [
        House(name="a"),
        House(
            name="on",
            rooms=("yes", "null", "~", "", "1e-3", "08", "0x10", "1_0", ".5", "12:30", "a: b", "!x", "2020-01-01"),
        ),
        House(name="1e5", rate=1e-9, doors=0, sizes={4: 1e22, 1024: 0.1 + 0.2}, pet=Dog(bark=3.0)),
        House(name="two\nlines é 'quoted' \"twice\" " + "long " * 40, warm=True),
    ],
)
def test_there_and_back(house: Any, config: House) -> None:
    again = house(dump_yaml(config))
    assert again == config
    assert digest(again) == digest(config)


def test_equal_digests_mean_equal_values(house: Any) -> None:
    one = house("name: a\nrate: 1e-3\nsizes: {4: 1, 8: 2}\n")
    other = house("sizes: {8: 2.0, 4: 1.0}\nrate: .001\nname: 'a'\n")
    assert digest(one) == digest(other)
    for changed in (House(name="b"), House(name="a", rate=0.4), House(name="a", pet=Dog()), House(name="a", doors=1)):
        assert digest(changed) != digest(House(name="a"))
    assert digest({"a": (1, 2)}) == digest({"a": [1, 2]})
    assert len(digest(one)) == 64


def test_a_recipe_there_and_back_and_what_binds_a_run(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path, game={"learning_rate_by_resolution": {16: 1e-4}})
    recipe = load_recipe(path)
    assert recipe.game.learning_rate_by_resolution == {16: 1e-4}  # type: ignore[union-attr]
    assert parse(Recipe, YamlText(plain(recipe), {}), "") == recipe
    (tmp_path / "again.yaml").write_text(dump_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe

    bound = method_of(recipe)
    assert bound["game.learning_rate"] == 0.001
    assert bound["game.learning_rate_by_resolution.16"] == 1e-4
    assert {"seed", "data.resolution", "data.mirror", "training.precision"} <= set(bound)
    free = ("name", "runs", "game.total_kimg", "data.train.shards", "training.threads", "evaluation.samples")
    assert not set(free) & set(bound)
    assert set(bound) < set(flatten(plain(recipe)))


def test_flags_stand_above_the_recipe(tmp_path: Path) -> None:
    path = tiny_recipe(tmp_path)
    changed = load_recipe(path, ["--seed", "7", "--game.learning_rate", "2e-3", "--training.threads", "None"])
    assert (changed.seed, changed.game.learning_rate, changed.training.threads) == (7, 0.002, None)
    assert changed.game.latents == 8  # type: ignore[union-attr]  # the rest is the recipe's, not the default
    with pytest.raises(UserError, match="name must begin with"):
        load_recipe(tiny_recipe(tmp_path, name="../up"))
