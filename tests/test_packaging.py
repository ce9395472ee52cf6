"""The source distribution holds all that the wheel is made from."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from ntkrun import __version__

ROOT = Path(__file__).parents[1]


def build(kind: str, sources: Path, place: Path) -> Path:
    """Build a distribution by the project's own build backend."""
    place.mkdir()
    code = f"import setuptools.build_meta as b; print(b.build_{kind}({str(place)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=sources, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (file,) = place.iterdir()
    return file


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_checkout_that_is_only_on_the_path_finds_its_menu(tmp_path: Path) -> None:
    """Without ``site``, so that neither an installed package nor the finder of an editable one is there."""
    installed = [place for place in sys.path if place.endswith("site-packages")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *installed])}
    command = [sys.executable, "-S", "-m", "ntkrun", "--cfg", "job", "pde=wave"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "_target_: ntkrun.pde.Wave" in done.stdout


def test_the_source_distribution_builds_the_same_wheel(tmp_path: Path) -> None:
    sources = tmp_path / "sources"
    for name in ("ntkrun", "conf"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, sources)
    data = {path.relative_to(sources).as_posix() for path in sources.rglob("*") if path.suffix in (".yaml", ".npz")}
    archive = build("sdist", sources, tmp_path / "sdist")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    again = tmp_path / "unpacked" / f"ntkrun-{__version__}"
    wheel, from_sdist = build("wheel", sources, tmp_path / "one"), build("wheel", again, tmp_path / "other")
    assert wheel.name == from_sdist.name
    assert wheel.name.startswith(f"ntkrun-{__version__}-")
    assert contents(wheel) == contents(from_sdist)
    packed = {name.removeprefix("ntkrun/") if name.startswith("ntkrun/conf/") else name for name in contents(wheel)}
    assert packed >= data


def named_extras(text: str) -> set[str]:
    """Extras of the project that a text tells its reader to install."""
    named = re.findall(r"(?:ntkrun|(?<![\w/.])\.)\[([a-z][a-z_,]*)\]", text)
    return {extra for names in named for extra in names.split(",")}


def test_every_extra_that_is_named_somewhere_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    places = [ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / ".ci").iterdir()]
    for folder in ("docs", "ntkrun", "conf", "scripts", ".github"):
        places += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".yaml", ".yml", "")]
    named = {extra for path in places if path.is_file() for extra in named_extras(path.read_text(errors="ignore"))}
    assert {"shapes", "benchmark", "dev"} <= named
    assert named <= declared
