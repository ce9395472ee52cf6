"""Heat2d-CG of PINNacle: a plate with seventeen round holes that is heated through their rims."""

from pathlib import Path

import numpy as np

from ntkrun.geometry import Box, disc, rectangle
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import dirichlet, robin

BIG = [(-4, -9), (4, -9), (0, -6), (-4, -3), (4, -3), (0, 0), (-4, 3), (4, 3), (0, 6), (-4, 9), (4, 9)]
SMALL = [(-3.2, -6), (3.2, -6), (-3.2, 0), (3.2, 0), (-3.2, 6), (3.2, 6)]


class Heat2dCg(PDE):
    """u_t = u_xx + u_yy from 0 over 3 units of time; u_n = 5 - u at big holes, 1 - u at small ones, 0.1 - u outside."""

    def __init__(self):
        plate = rectangle(x=(-8.0, 8.0), y=(-12.0, 12.0))
        for centre in BIG:
            plate -= disc(centre, 1.0, "big")
        for centre in SMALL:
            plate -= disc(centre, 0.4, "small")
        self.domain = plate * Box.of(t=(0.0, 3.0))

    def terms(self):
        sides = self.domain.boundary("left", "right", "bottom", "top")
        return (
            Term("residual", (self.domain,), ("u_t", "u_xx", "u_yy"), lambda x, d: d.u_t - d.u_xx - d.u_yy),
            robin("big", self.domain.boundary("big"), 5.0),
            robin("small", self.domain.boundary("small"), 1.0),
            robin("sides", sides, 0.1),
            dirichlet("initial", self.domain.face("t", "low")),
        )

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])
