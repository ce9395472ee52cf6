"""The pages of the site that are made from the comments of the menu's YAML files."""

from __future__ import annotations

import re
from pathlib import Path

from ntkrun.cli.help import GROUPS, choice_keys, choices

CONF = Path(__file__).parents[1] / "conf"


def write_menu_pages(folder: Path) -> None:
    """Write one page per group of the menu, with every choice, its keys, their defaults and what they mean."""
    folder.mkdir(exist_ok=True)
    for group, meaning in GROUPS.items():
        lines = [f"# {group}", "", f"{meaning[0].upper()}{meaning[1:]}: `{group}=NAME`.", ""]
        for name in choices(group):
            lines += _choice(group, name, (CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
        (folder / f"{group}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _choice(group: str, name: str, text: str) -> list[str]:
    first = text.removeprefix("# @package _global_\n").splitlines()[0]
    lines = [f"## {group}={name}", "", _escaped(first.removeprefix("# ")), ""]
    rows = choice_keys(CONF / group / f"{name}.yaml")
    if rows:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{key}` | {f'`{value}`'.replace('|', chr(92) + '|') if value else ''} | {_escaped(comment)} |"
            for key, value, comment in rows
        ]
    return [*lines, ""]


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<>$`\[\]])", r"\\\1", text)
