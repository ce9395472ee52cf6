"""Configurations as objects: schema, classes that configurations name, assembly."""

from ntkrun.config import menu  # noqa: F401  registers a resolver that the menu's list of defaults needs
