"""What a terminal can show."""

from __future__ import annotations

import os
from typing import TextIO


def shows_colour(stream: TextIO) -> bool:
    """Whether colours are wanted: on a terminal that has them, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shows_unicode(stream: TextIO) -> bool:
    """Whether characters beyond ASCII can be written."""
    return (getattr(stream, "encoding", None) or "ascii").lower().replace("-", "") in ("utf8", "utf16", "utf32")
