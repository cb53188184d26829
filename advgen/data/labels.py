"""Class labels and groups of images, as tables give them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advgen.data.tars import check_name
from advgen.errors import UserError

_FILE = ("file", "filename", "file_name", "path", "image", "name")
_LABEL = ("label", "class", "category")


@dataclass(frozen=True)
class Labels:
    """Labels by image name.

    Attributes:
        classes: names of the classes, in the order of the labels.
        label: index of the class, by name of the image.
        group: of the image, where the table says one.
        table: where they stand, for messages; empty for those that come with each image.
    """

    classes: tuple[str, ...] = ()
    label: Mapping[str, int] = field(default_factory=dict)
    group: Mapping[str, str] = field(default_factory=dict)
    table: str = ""

    @classmethod
    def of_texts(cls, where: str, texts: Mapping[str, str], group: Mapping[str, str] | None = None, table: str = ""):
        """Labels from what was written for each image: whole numbers from 0 on, or names, which are sorted.

        Raises:
            UserError: fewer than two classes, or numbers that leave most classes empty.
        """
        known = {text.strip() for text in texts.values()}
        if all(text.isascii() and text.isdigit() for text in known) and known:
            digits = {text: text.lstrip("0") or "0" for text in known}
            longest = max(digits.values(), key=lambda some: (len(some), some))  # int() refuses thousands of digits
            if len(longest) > 5 or int(longest) >= 1 << 16:
                shown = longest if len(longest) < 20 else f"{longest[:9]}... ({len(longest):,} digits)"
                raise UserError(f"{where}: has label {shown}; labels are the numbers of classes, from 0 on.")
            highest = int(longest)
            classes = tuple(str(number) for number in range(highest + 1))
            numbers = {text: int(some) for text, some in digits.items()}
        else:
            classes = tuple(sorted(known))
            numbers = {text: number for number, text in enumerate(classes)}
        if len(classes) < 2:
            raise UserError(f"{where}: gives {len(classes)} classes; at least two are needed. Set labels to 'none'.")
        labels = {name: numbers[text.strip()] for name, text in texts.items()}
        return cls(classes, labels, group or {}, table)


def read_table(where: str, data: bytes) -> Labels:
    """Labels from a ``dataset.json`` (``{"labels": [[file, label], ...]}`` or a mapping) or a CSV with a header.

    Args:
        where: the file, for messages; its ending says which kind.
        data: its content.

    Raises:
        UserError: no such table, a file that stands twice with other labels, or a name that leads out of the folder.
    """
    try:
        text = data.decode("utf-8-sig")
        rows = _from_json(where, json.loads(text)) if where.lower().endswith(".json") else _from_csv(where, text)
    except (ValueError, RecursionError, csv.Error) as error:
        raise UserError(f"{where}: is no readable table ({error}).") from None
    texts: dict[str, str] = {}
    groups: dict[str, str] = {}
    for name, label, group in rows:
        check_name(where, name)
        if texts.setdefault(name, label) != label:
            raise UserError(f"{where}: {name} stands there twice, with labels '{texts[name]}' and '{label}'.")
        if group:
            groups[name] = group
    if not texts:
        raise UserError(f"{where}: holds no labels. Set labels to 'none' if there are none.")
    return Labels.of_texts(where, texts, groups, where)


def _from_json(where: str, value: Any) -> list[tuple[str, str, str]]:
    pairs = value.get("labels", value) if isinstance(value, dict) else value
    if isinstance(pairs, dict):
        pairs = list(pairs.items())
    if not isinstance(pairs, list):
        raise UserError(f'{where}: is no dataset.json; {{"labels": [["a/1.png", 0], ...]}} is expected.')
    rows = []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise UserError(f"{where}: {pair!r} is no pair of file and label.")
        if isinstance(pair[1], bool) or not isinstance(pair[1], (int, str)):
            raise UserError(f"{where}: the label of {pair[0]} is {pair[1]!r}, neither a number nor a name.")
        rows.append((pair[0], str(pair[1]), ""))
    return rows


def _from_csv(where: str, text: str) -> list[tuple[str, str, str]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    names = {name.strip().lower(): name for name in reader.fieldnames or [] if name}
    file = next((names[name] for name in _FILE if name in names), None)
    label = next((names[name] for name in _LABEL if name in names), None)
    if file is None or label is None:
        raise UserError(f"{where}: its first line must name the columns file and label; it names {', '.join(names)}.")
    rows = []
    for line, row in enumerate(reader, 2):
        if not row[file] or not row[label]:
            raise UserError(f"{where}: line {line} lacks its {'file' if not row[file] else 'label'}.")
        rows.append((row[file].strip(), row[label].strip(), (row.get(names.get("group", "")) or "").strip()))
    return rows
