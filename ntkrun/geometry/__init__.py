"""Regions in space and time, and points drawn from them."""

from ntkrun.geometry.box import Box
from ntkrun.geometry.region import Draws, Method, Region, mix_seed
from ntkrun.geometry.sampler import Sampler, share_out, shares_by_measure
from ntkrun.geometry.table import Table

__all__ = ["Box", "Draws", "Method", "Region", "Sampler", "Table", "mix_seed", "share_out", "shares_by_measure"]
