"""From configuration to objects: schema, classes that configurations name, assembly."""
