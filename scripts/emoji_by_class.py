"""Emoji as one folder a category, from the npm package emoji-datasource-twitter (its art is CC BY 4.0).

    npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz
    python scripts/emoji_by_class.py package data/emoji-images

The package has 64-pixel PNGs in img/twitter/64 and the category of each in emoji.json. Those of other skin tones are
left out, being the same drawings again, and so is the category Component, which holds the skin tones themselves.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path


def main(package: Path, out: Path) -> None:
    """Copy the package's emoji to ``out/<category>/``."""
    emoji = [each for each in json.loads((package / "emoji.json").read_text()) if each["has_img_twitter"]]
    for each in emoji:
        if each["category"] != "Component":
            folder = out / each["category"]
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / "img/twitter/64" / each["image"], folder / each["image"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path, help="the unpacked package: holds emoji.json and img/")
    parser.add_argument("out", type=Path, help="folder to write")
    given = parser.parse_args()
    if not (given.package / "emoji.json").exists():
        sys.exit(f"{given.package}: holds no emoji.json, so it is not the package's folder.")
    main(given.package, given.out)
