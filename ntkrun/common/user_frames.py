"""Whose line an error comes from: users bring problems and networks of their own."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path

import torch


def cause(error: BaseException) -> str:
    """The type of an error, the first line of its message, and ``where`` it lies."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({_line(error.filename, error.lineno)})"
    text = str(error).splitlines()
    return (f"{type(error).__name__}: {text[0]}" if text else type(error).__name__) + where(error)


def where(error: BaseException) -> str:
    """``" (file:line)"`` of the user's own code that an error passed through last; nothing when there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(_LIBRARIES):
            return f" ({_line(frame.filename, frame.lineno)})"
    return ""


_LIBRARIES = (
    "<",  # code that lies in no file
    *(os.path.join(path, "") for path in (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(torch.__file__))),
    *(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)


def _line(filename: str, line: int | None) -> str:
    path = Path(filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
