"""Regions in space and time, and points drawn from them."""

from ntkrun.geometry.box import Box, Face
from ntkrun.geometry.hyperball import HyperBall, hyperball
from ntkrun.geometry.mesh import Mesh, mesh
from ntkrun.geometry.planar import Planar, disc, polygon, rectangle, shape
from ntkrun.geometry.pool import Pool
from ntkrun.geometry.region import TIME, Draws, Method, Region, mix_seed
from ntkrun.geometry.rule import Measured, Rule
from ntkrun.geometry.sampler import Sampler, TermPoints, share_out, shares_by_measure
from ntkrun.geometry.shape import Domain, Product, Shape
from ntkrun.geometry.solid import Solid, ball, block
from ntkrun.geometry.table import Table

__all__ = [
    "TIME",
    "Box",
    "Domain",
    "Draws",
    "Face",
    "HyperBall",
    "Measured",
    "Mesh",
    "Method",
    "Planar",
    "Pool",
    "Product",
    "Region",
    "Rule",
    "Sampler",
    "Shape",
    "Solid",
    "Table",
    "TermPoints",
    "ball",
    "block",
    "disc",
    "hyperball",
    "mesh",
    "mix_seed",
    "polygon",
    "rectangle",
    "shape",
    "share_out",
    "shares_by_measure",
]
