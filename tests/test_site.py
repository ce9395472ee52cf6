"""The pages of the site that are made from the menu's files, against a YAML parser."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from ntkrun.cli.help import GROUPS, choices

ROOT = Path(__file__).parents[1]


def leaves(node: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "_target_":
            yield f"{prefix}{key}"


def test_every_key_of_the_menu_is_on_its_page(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("menu_pages", ROOT / "docs" / "menu_pages.py")
    assert specification is not None
    assert specification.loader is not None
    pages = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(pages)
    pages.write_menu_pages(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(GROUPS)
    for group in GROUPS:
        page = (tmp_path / f"{group}.md").read_text(encoding="utf-8")
        sections = dict(re.findall(rf"^## {group}=(\S+)\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))
        assert list(sections) == choices(group)
        for name, section in sections.items():
            values = yaml.safe_load((ROOT / "conf" / group / f"{name}.yaml").read_text(encoding="utf-8")) or {}
            listed = re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE)
            for key in leaves(values):  # or the key above it, whose value is a mapping in one line
                assert key == "defaults" or any(f"{key}.".startswith(f"{each}.") for each in listed), key
        assert all(line.count("|") - line.count("\\|") == 4 for line in page.splitlines() if line.startswith("|"))


def test_every_page_is_in_the_table_of_contents() -> None:
    listed = re.findall(r"^[a-z][\w/*]*(?:\.ipynb)?$", (ROOT / "docs" / "index.md").read_text("utf-8"), re.MULTILINE)
    there = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").glob("**/*.md")}
    there = {name for name in there if not name.startswith(("_generated", "index"))}
    there |= {path.name for path in (ROOT / "docs").glob("*.ipynb")}
    assert {name for name in there if not any(fnmatch(name, each) for each in listed)} == set()


def test_no_line_of_a_page_is_a_comment() -> None:
    """The site leaves out lines that begin with a per cent sign; GitHub does not."""
    for path in (ROOT / "docs").glob("**/*.md"):
        assert not re.findall(r"^ *%.*", path.read_text(encoding="utf-8"), re.MULTILINE), path
