"""The pages of the site that are made from the comments of the menu's YAML files."""

from __future__ import annotations

import re
from pathlib import Path

from ntkrun.cli.help import GROUPS, choices

CONF = Path(__file__).parents[1] / "conf"
LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+): ?(?P<value>[^#]*?)(?: *# (?P<comment>.*))?$")


def write_menu_pages(folder: Path) -> None:
    """Write one page per group of the menu, with every choice, its keys, their defaults and what they mean."""
    folder.mkdir(exist_ok=True)
    for group, meaning in GROUPS.items():
        lines = [f"# {group}", "", f"{meaning[0].upper()}{meaning[1:]}: `{group}=NAME`.", ""]
        for name in choices(group):
            lines += _choice(group, name, (CONF / group / f"{name}.yaml").read_text(encoding="utf-8"))
        (folder / f"{group}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _choice(group: str, name: str, text: str) -> list[str]:
    first, *rest = text.removeprefix("# @package _global_\n").splitlines()
    lines = [f"## {group}={name}", "", _escaped(first.removeprefix("# ")), ""]
    rows = list(_rows(rest))
    if rows:
        lines += ["| key | default | meaning |", "|---|---|---|"]
        lines += [
            f"| `{key}` | {f'`{value}`' if value else ''} | {_escaped(comment)} |" for key, value, comment in rows
        ]
    return [*lines, ""]


def _rows(lines: list[str]) -> list[tuple[str, str, str]]:
    """Keys with their values and comments, nested ones with dots."""
    rows: list[tuple[str, str, str]] = []
    parents: list[tuple[int, str]] = []
    for line in lines:
        found = LINE.match(line)
        if not found or found["key"] == "_target_":
            continue
        indent = len(found["indent"])
        parents = [(depth, key) for depth, key in parents if depth < indent]
        key = ".".join([*(key for _, key in parents), found["key"]])
        value, comment = found["value"].strip(), found["comment"] or ""
        if not value:
            parents.append((indent, found["key"]))
        if value or comment:
            rows.append((key, value.replace("|", "\\|"), comment))
    return rows


def _escaped(text: str) -> str:
    return re.sub(r"([|*_<>$`\[\]])", r"\\\1", text)
