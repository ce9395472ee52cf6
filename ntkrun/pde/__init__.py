"""Problems: an equation with its conditions, as loss terms."""

from ntkrun.pde.advection import Advection
from ntkrun.pde.allen_cahn import AllenCahn
from ntkrun.pde.base import PDE, Coefficient, Columns, ProblemError, Reference, Term
from ntkrun.pde.beam import Beam
from ntkrun.pde.burgers import Burgers
from ntkrun.pde.burgers_inverse import BurgersInverse
from ntkrun.pde.cavity import Cavity
from ntkrun.pde.conductivity import Conductivity
from ntkrun.pde.continuation import continuation
from ntkrun.pde.cylinder import Cylinder
from ntkrun.pde.diffusion import Diffusion
from ntkrun.pde.diffusion_inverse import DiffusionInverse
from ntkrun.pde.dispersive import KortewegDeVries, KuramotoSivashinsky
from ntkrun.pde.helmholtz import Helmholtz
from ntkrun.pde.integral import Integral, integral
from ntkrun.pde.klein_gordon import KleinGordon
from ntkrun.pde.laplace_hole import LaplaceHole
from ntkrun.pde.navier_stokes import Kovasznay, TaylorGreen
from ntkrun.pde.ode import Lorenz, LotkaVolterra, VanDerPol
from ntkrun.pde.poisson import Poisson
from ntkrun.pde.poisson2d import Poisson2D
from ntkrun.pde.poisson_high import Poisson5D, Poisson10D
from ntkrun.pde.poisson_l import PoissonL
from ntkrun.pde.regression import Regression
from ntkrun.pde.schroedinger import Schroedinger
from ntkrun.pde.vortices_inverse import VorticesInverse
from ntkrun.pde.wave import Wave

__all__ = [
    "PDE",
    "Advection",
    "AllenCahn",
    "Beam",
    "Burgers",
    "BurgersInverse",
    "Cavity",
    "Coefficient",
    "Columns",
    "Conductivity",
    "Cylinder",
    "Diffusion",
    "DiffusionInverse",
    "Helmholtz",
    "Integral",
    "KleinGordon",
    "KortewegDeVries",
    "Kovasznay",
    "KuramotoSivashinsky",
    "LaplaceHole",
    "Lorenz",
    "LotkaVolterra",
    "Poisson",
    "Poisson2D",
    "Poisson5D",
    "Poisson10D",
    "PoissonL",
    "ProblemError",
    "Reference",
    "Regression",
    "Schroedinger",
    "TaylorGreen",
    "Term",
    "VanDerPol",
    "VorticesInverse",
    "Wave",
    "continuation",
    "integral",
]
