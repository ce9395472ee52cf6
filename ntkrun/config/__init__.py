"""Configurations as objects: schema, classes that configurations name, assembly."""
