"""Wave2d-CG of PINNacle: waves in a medium of two random speeds."""

from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import RegularGridInterpolator

from ntkrun.geometry import Box
from ntkrun.pde import PDE, Reference, Term
from ntkrun.pde.conditions import neumann

AXIS = np.linspace(-1, 1, 256)


class Wave2dCg(PDE):
    """u_xx + u_yy = u_tt / c on [-1, 1]^2 x [0, 5], u_n = 0 at the sides, released from a bump.

    c is 12 where a Gaussian random field with a spectrum like 1/|k|^4 is positive and 1 elsewhere, given at 256 x 256
    nodes and linear in between; the suite keeps its field in a file, here another is drawn by its rule.
    """

    def __init__(self):
        self.domain = Box.of(x=(-1.0, 1.0), y=(-1.0, 1.0), t=(0.0, 5.0))
        self.medium = RegularGridInterpolator((AXIS, AXIS), medium())

    def terms(self):
        start = self.domain.face("t", "low")
        return (
            Term("residual", (self.domain,), ("u_xx", "u_yy", "u_tt"), self.equation),
            neumann("boundary", self.domain.boundary()),
            Term("initial", (start,), ("u",), lambda x, d: d.u - self.bump(x)),
            Term("velocity", (start,), ("u_t",), lambda x, d: d.u_t),
        )

    def equation(self, x, d):
        c = torch.from_numpy(self.medium(torch.stack([x.x, x.y], dim=1).cpu().numpy())).to(x.x)
        return d.u_xx + d.u_yy - d.u_tt / c

    def bump(self, x):
        return torch.exp(-((x.x + 0.5) ** 2 + x.y**2) / (2 * 0.3**2))

    def reference(self):
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            return Reference({c: file[c] for c in "xyt"}, file["values"])


def medium():
    """The medium at the nodes, [x, y]."""
    draw = np.random.default_rng(0)
    k = np.fft.fftfreq(len(AXIS), 1 / len(AXIS))
    square = k[:, None] ** 2 + k**2
    square[0, 0] = np.inf
    noise = draw.normal(size=square.shape) + 1j * draw.normal(size=square.shape)
    return np.where(np.fft.ifft2(noise / square).real > 0, 12.0, 1.0)
