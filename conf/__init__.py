"""The configuration menu, installed as ``ntkrun.conf``."""
