"""Recipes: frozen dataclasses filled from YAML, every mistake told at once with its place.

YAML is read by its core schema only (no tags, aliases or duplicate keys, ``1e-3`` is a number) and keeps the line
of each key, so that a message can name it. Values are checked in strict mode: a string is never taken for
a number.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from advgen.errors import UserError

T = TypeVar("T")
Key = tuple[str | int, ...]


@dataclass_transform(frozen_default=True, kw_only_default=True)
def configuration(cls: type[T]) -> type[T]:
    """Make ``cls`` a frozen keyword-only dataclass that refuses unknown keys and loose types."""
    cls.__pydantic_config__ = {"extra": "forbid", "strict": True}  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


@dataclass(frozen=True)
class YamlText:
    """Plain values of a YAML file and the line (from 1) on which each key stands."""

    values: Any
    lines: Mapping[Key, int]


def read_yaml(path: Path) -> YamlText:
    """Read a YAML mapping.

    Raises:
        UserError: the file is missing, is no YAML mapping, uses a tag or an alias, or repeats a key.
    """
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}). Name an existing recipe (*.yaml).") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file. Name a recipe (*.yaml).") from None
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            line = event.start_mark.line + 1  # pyright: ignore[reportOptionalMemberAccess]
            if (tag := getattr(event, "tag", None)) is not None:
                raise UserError(f"{path}:{line}: the tag {tag} is not allowed. Remove it.")
            if isinstance(event, yaml.AliasEvent):  # an alias may hold itself, or grow without bounds
                raise UserError(f"{path}:{line}: the alias *{event.anchor} is not allowed. Write its value out.")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: is not valid YAML: {getattr(error, 'problem', None) or error}.") from None
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path}: must hold a mapping of keys to values.")
    lines: dict[Key, int] = {}

    def value_of(node: Any, key: Key) -> Any:
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                name = key_node.value
                line = key_node.start_mark.line + 1
                if not isinstance(name, str):
                    raise UserError(f"{path}:{line}: keys must be plain names.")
                if isinstance(number := _scalar(name, plain=True), int) and not isinstance(number, bool):
                    name = str(number)  # 4 and 04 are one key
                if name in result:
                    raise UserError(f"{path}:{line}: '{name}' is given twice. Keep one of them.")
                lines[*key, name] = line
                result[name] = value_of(value_node, (*key, name))
            return result
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                lines[*key, index] = item.start_mark.line + 1
            return [value_of(item, (*key, index)) for index, item in enumerate(node.value)]
        return _scalar(node.value, plain=node.style is None)

    return YamlText(value_of(node, ()), lines)


def _scalar(text: str, plain: bool) -> Any:
    """A scalar by YAML 1.2's core schema; PyYAML's own 1.1 rules read ``1e-3`` as text and ``on`` as true."""
    if not plain:
        return text
    if text in ("", "~", "null"):
        return None
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"[-+]?[0-9]+(_[0-9]+)*", text):
        return int(text)
    if re.fullmatch(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", text) and math.isfinite(float(text)):
        return float(text)
    return text


def parse(kind: type[T], text: YamlText, where: str) -> T:
    """Check ``text`` against the dataclass ``kind``.

    Raises:
        UserError: lists every mistake with file, line, path and the nearest known name.
    """
    import pydantic

    try:
        return pydantic.TypeAdapter(kind).validate_json(json.dumps(text.values))
    except pydantic.ValidationError as error:
        mistakes = [_mistake(kind, text, where, item) for item in error.errors(include_url=False)]
        raise UserError("\n".join(mistakes)) from None


def _mistake(kind: Any, text: YamlText, where: str, item: Any) -> str:
    path = _without_tags(item["loc"], text.values)
    line = next((text.lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in text.lines), None)
    place = f"{where}:{line}" if line else where
    dotted = ".".join(str(part) for part in path) or "(top level)"
    if item["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_names(kind, path[:-1], text.values)
        near = difflib.get_close_matches(str(path[-1]), known, n=1)
        way_out = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(sorted(known))}."
        return f"{place}: {dotted}: unknown key; {way_out}"
    if item["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{place}: {dotted}: is required but missing. Add it."
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        return f"{place}: {dotted}.kind: must be one of {item['ctx'].get('expected_tags', 'the known kinds')}."
    message = item["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(item["input"], (dict, list)) else f" (given: {item['input']!r})"
    return f"{place}: {dotted}: {message[:1].lower()}{message[1:]}{shown}"


def _without_tags(location: tuple[Any, ...], values: Any) -> Key:
    """pydantic puts the tag of a discriminated union into an error's path; the file has no such level."""
    path: list[str | int] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if isinstance(values, Mapping) and part not in values and not last and values.get("kind") == part:
            continue
        path.append(part)
        if (isinstance(values, Mapping) and part in values) or (
            isinstance(values, list) and isinstance(part, int) and part < len(values)
        ):
            values = values[part]
    if len(path) > 1 and isinstance(values, Mapping) and path[-1] == values.get("kind"):
        path.pop()  # a mistake of the union's member as a whole
    return tuple(path)


def _known_names(kind: Any, path: Key, values: Any) -> list[str]:
    """Field names of the dataclass at ``path``; a union's member is chosen by its ``kind``."""
    for part in path:
        member = _dataclass_of(kind, values)
        if member is None:
            return []
        kind = typing.get_type_hints(member, include_extras=True).get(str(part))
        values = values.get(part) if isinstance(values, Mapping) else None
    member = _dataclass_of(kind, values)
    return [field.name for field in dataclasses.fields(member)] if member else []


def _dataclass_of(kind: Any, values: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _dataclass_of(typing.get_args(kind)[0], values)
    if origin in (typing.Union, types.UnionType):
        members = [m for m in map(lambda k: _dataclass_of(k, values), typing.get_args(kind)) if m]
        tag = values.get("kind") if isinstance(values, Mapping) else None
        for member in members:
            hints = typing.get_type_hints(member)
            if "kind" in hints and tag in typing.get_args(hints["kind"]):
                return member
        return members[0] if members else None
    return kind if dataclasses.is_dataclass(kind) else None


def plain(config: Any) -> Any:
    """The configuration as plain values for YAML or JSON: dataclasses become mappings, tuples lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    if isinstance(config, Mapping):
        return {str(key): plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return config


def dump_yaml(config: Any) -> str:
    """The configuration as YAML text that :func:`read_yaml` and :func:`parse` read back to an equal object."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes what :func:`_scalar` would take for something else; PyYAML leaves ``1e-3`` and ``08`` bare."""

    def text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if _scalar(text, plain=True) == text else "'"
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, text_node)
    return yaml.dump(plain(config), Dumper=Dumper, sort_keys=False, width=120)


def digest(config: Any) -> str:
    """SHA-256 (hex) of the plain values; equal configurations have equal digests."""
    text = json.dumps(plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; one that is empty stays as it is."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, name + "."))
        else:
            flat[name] = value
    return flat
