"""YAML as configurations are saved: mappings, lists, texts and numbers.

The rest of the language is turned down. Aliases can be made to grow without bound, deep nesting takes time and stack,
and tags build other things than values.
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import yaml
from omegaconf._utils import get_yaml_loader  # which texts are numbers is said nowhere else

DEPTH = 50
"""Most mappings and lists within each other."""
NODES = 20_000
"""Most keys and values."""
DIGITS = 100
"""Most characters of a number."""


class PlainError(ValueError):
    """A text that is not YAML, or not of this part of it.

    Args:
        problem: one line.
        line: where, from 1; 0 where it is not known.
    """

    def __init__(self, problem: str, line: int = 0) -> None:
        super().__init__(problem)
        self.line = line


def load_plain(text: str) -> Any:
    """What a YAML text says, by OmegaConf's rules for numbers; dates remain texts.

    Raises:
        PlainError: it is not YAML, or has aliases, tags, keys given twice, whole numbers beyond 2^63, or too many or
            too deeply nested values.
    """
    try:
        _check_structure(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise PlainError("not YAML", mark.line + 1 if mark else 0) from None
    except PlainError:
        raise
    except ValueError as error:  # digits that are none, as in 0x_
        raise PlainError(f"not YAML: {error}") from None


def _check_structure(text: str) -> None:
    """Go through a text without building anything; what may grow on building is turned down."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_Base)):
        if isinstance(event, yaml.AliasEvent):
            _turn_down("aliases are not read", event)
        if getattr(event, "tag", None) is not None:
            _turn_down("tags are not read", event)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEPTH:
            _turn_down(f"nested more than {DEPTH} deep", event)
        if count > NODES:
            _turn_down(f"more than {NODES} values", event)


def _turn_down(problem: str, place: Any) -> NoReturn:
    raise PlainError(problem, place.start_mark.line + 1)


_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    yaml_implicit_resolvers = get_yaml_loader().yaml_implicit_resolvers

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A mapping without keys given twice."""
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            _turn_down("a key is given twice", node)
        return mapping

    def construct_whole(self, node: Any) -> int:
        """A whole number that fits into a tensor and a table."""
        value = self.construct_yaml_int(node) if len(node.value) <= DIGITS else math.inf
        if abs(value) >= 2**63:
            _turn_down("a whole number beyond 2^63", node)
        return int(value)

    def construct_real(self, node: Any) -> float:
        """A number."""
        if len(node.value) > DIGITS:
            _turn_down(f"a number of more than {DIGITS} characters", node)
        return float(self.construct_yaml_float(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_real)
