"""Records of a run besides its losses, errors and weights."""

from ntkrun.diagnostics.base import Diagnostics, NoDiagnostics
from ntkrun.diagnostics.spectrum import Spectrum

__all__ = ["Diagnostics", "NoDiagnostics", "Spectrum"]
