"""Locates the user frame of a traceback: users bring problems and networks of their own."""

from __future__ import annotations

import inspect
import os
import re
import sysconfig
import traceback
from pathlib import Path


def cause(error: BaseException) -> str:
    """The type of an error, the first line of its message, and ``where`` it lies."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{type(error).__name__}: {error.msg} ({_line(error.filename, error.lineno)})"
    first = message(error).strip().partition("\n")[0]
    return (f"{type(error).__name__}: {first}" if first else type(error).__name__) + where(error)


def message(error: BaseException) -> str:
    """What an error says; nothing where it cannot even say that."""
    try:
        return str(error)
    except BaseException as trouble:  # of a class that users bring
        return f"its message cannot be had, {type(trouble).__name__}"


def where(error: BaseException) -> str:
    """``" (file:line)"`` of the user's own code that an error, or what it came from, passed through last.

    Nothing where there is none.
    """
    each: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if each is None:
            break
        if place := _last_place(each):
            return f" ({place})"
        each = each.__cause__ or each.__context__
    return ""


def written(function: object) -> str:
    """``" (file:line)"`` where a function of the user's own begins; nothing for others."""
    code = getattr(function, "__code__", None)
    if code is None or _of_a_library(code.co_filename):
        return ""
    return f" ({_line(code.co_filename, code.co_firstlineno)})"


def placed(text: str, error: BaseException, cls: type) -> str:
    """A message that ends with a place in the user's own code: its own, the error's, or that where a class begins.

    As it is where there is none.
    """
    if re.search(r"\([^()]+:\d+\)$", text):
        return text
    if place := where(error):
        return text + place
    try:
        filename, line = inspect.getsourcefile(cls), inspect.getsourcelines(cls)[1]
    except (OSError, TypeError):  # of a class that was made without a file
        return text
    return text if filename is None or _of_a_library(filename) else f"{text} ({_line(filename, line)})"


def from_user_code(error: BaseException) -> bool:
    """Whether an error itself, and not only what it came from, passed through the user's own code."""
    return bool(_last_place(error))


def _last_place(error: BaseException) -> str:
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not _of_a_library(frame.filename):
            return _line(frame.filename, frame.lineno)
    return ""


def _of_a_library(filename: str) -> bool:
    return filename.startswith(_LIBRARIES) or not _INSTALLED.isdisjoint(Path(filename).parts)


LONGEST_CHAIN = 10
_INSTALLED = {"site-packages", "dist-packages"}
_LIBRARIES = (
    "<",  # code that lies in no file
    os.path.join(os.path.dirname(os.path.dirname(__file__)), ""),
    *(os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "platstdlib", "purelib", "platlib")),
)


def _line(filename: str, line: int | None) -> str:
    path = Path(filename)
    return f"{path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}:{line}"
