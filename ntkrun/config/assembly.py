"""Assembly of the parts of one run from its configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ntkrun.common.errors import ConfigError
from ntkrun.common.state_schema import StateError, read_state, schema_of
from ntkrun.common.torchrun import local_count, local_rank, several_processes
from ntkrun.common.user_frames import placed
from ntkrun.config.classes import is_own
from ntkrun.config.component import Component
from ntkrun.config.configuration import Configuration
from ntkrun.config.measured_data import check_point_names, point_counts, read_measurements
from ntkrun.config.schema import Settings
from ntkrun.diagnostics import NoDiagnostics
from ntkrun.geometry import TIME, Box, Region, mix_seed
from ntkrun.loggers import Guarded, Logger, Several
from ntkrun.network import (
    constrained,
    convert,
    feature_count,
    featured_domain,
    with_coefficients,
    with_features,
)
from ntkrun.network.coupling import remembering, shapeless
from ntkrun.network.separate import Part, side_by_side
from ntkrun.objective import Objective, RouteError
from ntkrun.objective.chunked import MEMORY, ChunkedObjective, points_at_a_time
from ntkrun.optimizer import Optimizer
from ntkrun.pde import PDE, ProblemError
from ntkrun.pde.measured import data_terms, held_apart
from ntkrun.runtime.distributed import present
from ntkrun.runtime.memory import check_fits, for_points, limit_memory, shortage
from ntkrun.storage.checkpoint import CheckpointError, load_network
from ntkrun.training.collocation import PointSource
from ntkrun.training.evaluation import Evaluator, SharedEvaluator
from ntkrun.training.held_out import HeldOut
from ntkrun.training.parts import TrainingParts
from ntkrun.training.time_marching import TimeWindow, chosen, frozen, window_edges
from ntkrun.weights import Sketched, Weighting

BEGINNING = 0.1  # of the time of a problem without other coordinates
COPIES = 4  # of the parameters: themselves, their gradient, and the two moments of most optimisers
DRAWN = 3  # numbers of 8 bytes per coordinate of a point: as drawn, as computed with, and in between


@dataclass(frozen=True, kw_only=True)
class Parts(TrainingParts):
    """What a configuration describes, built and checked.

    Attributes:
        settings: the top-level values of the configuration.
        grid: points per coordinate of an equispaced grid for the error.
        logger: where the numbers go besides the run's own tables.
        held_rows: measured values that are not trained on.
    """

    settings: Settings
    grid: int
    logger: Logger
    held_rows: int = 0

    @property
    def edges(self) -> list[float]:
        """Start and ends of the time windows; empty where there is one of all of time."""
        return window_edges(self.pde.domain, self.settings.equal_windows, self.ends)


@dataclass(frozen=True, kw_only=True)
class Marching:
    """How a run goes through time, as its start has decided it.

    Attributes:
        earlier: states of the networks of earlier time windows; the parts are those of the next window.
        ends: of the time windows so far and of the next one, where the run chooses them.
        growing: the part of the time, or of a window, that training begins with, if it is not all; ``auto`` where that
            is to be decided.
    """

    earlier: Sequence[Mapping[str, Any]] = ()
    ends: Sequence[float] = ()
    growing: float | Literal["auto"] | None = None


def assemble(configuration: Configuration, marching: Marching | None = None) -> Parts:
    """Build everything that a configuration describes.

    Args:
        configuration: of the run.
        marching: of a run that is under way.

    Raises:
        ConfigError: a value cannot be used.
    """
    limit_memory()
    try:
        return _assemble(configuration, marching)
    except (RuntimeError, MemoryError, OverflowError) as error:
        if marching is not None and marching.earlier:
            raise
        raise ConfigError(f"the run cannot be set up: {shortage(error) or str(error).splitlines()[0]}") from error


def _assemble(configuration: Configuration, marching: Marching | None) -> Parts:
    settings, setup = configuration.settings, configuration.setup
    whole = configuration.pde.build()
    if configuration.data:
        whole.measurements = read_measurements(configuration.data, whole)
    apart: dict[str, tuple[Region, ...]] = {}
    if setup.hold_out:
        apart = _hold_out(whole, setup.hold_out, settings)
    weighting, point_weights = configuration.weights.build(), configuration.point_weights.build()
    optimizer, schedule = configuration.optimizer.build(), configuration.schedule.build()
    diagnostics, logger = configuration.diagnostics.build(), build_logger(configuration.logger)
    observed = not isinstance(diagnostics, NoDiagnostics)
    if observed and settings.wants_windows:
        raise ConfigError(f"time_windows={settings.time_windows}: diagnostics observe one window only; leave them out")
    try:
        if marching is None:
            chooses = not observed and _chooses_windows(settings, whole, optimizer)
            marching = Marching(ends=[whole.domain.high[TIME]] if chooses else [], growing="auto")
        if marching.growing == "auto":
            marching = replace(marching, growing=_growing(settings, whole, optimizer))
        pde, network, networks = _networks(configuration, whole, marching)
        totals = point_counts(setup.points, pde)
        counts = {name: min(total, setup.batch or total) for name, total in totals.items()}
        objective = _objective(pde, network, settings, sum(counts.values()))
        check_point_names(setup.points, whole)
        _check_size(pde, counts, weighting, optimizer, objective)
        evaluator_class = Evaluator if objective.ranks.count == 1 else SharedEvaluator
        evaluator = evaluator_class(pde, network, objective.like, setup.grid)
    except ProblemError as error:
        raise ConfigError(placed(f"pde: {error}", error, type(whole))) from None
    except RouteError as error:
        raise ConfigError(f"kernel.{error}") from None
    try:
        points = PointSource(objective, totals, setup.sampling, setup.resample_every, settings.seed, setup.batch)
    except ValueError as error:
        raise ConfigError(f"pde.points: {error}") from None
    diagnostics.start(objective, settings.iterations)
    fixed_points = not points.epochs(0) if setup.batch else setup.resample_every is None
    starts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("weights: ", lambda: weighting.start(objective, settings.seed)),
        ("point_weights: ", lambda: point_weights.start(objective, fixed_points)),
        ("optimizer.", lambda: optimizer.start(network)),
        ("logger: ", logger.check),
    )
    for key, start in starts:
        try:
            start()
        except ValueError as error:
            raise ConfigError(f"{key}{error}") from None
    if point_weights.varying and getattr(weighting, "points", "training") != "training":
        raise ConfigError("weights.points: with point_weights, kernels are taken at the training points")
    edges = window_edges(whole.domain, settings.equal_windows, marching.ends)
    windowed = bool(edges) and whole.reference() is not None  # some may have no nodes
    return Parts(
        settings=settings,
        pde=whole,
        grid=setup.grid,
        objective=objective,
        weighting=weighting,
        point_weights=point_weights,
        optimizer=optimizer,
        schedule=schedule,
        points=points,
        evaluator=evaluator,
        diagnostics=diagnostics,
        logger=Guarded(logger),
        held_out=None if evaluator.knows or windowed else HeldOut(objective, points.counts, settings.seed, apart),
        earlier=networks,
        ends=tuple(marching.ends),
        held_rows=sum(part.least for region in apart.values() for part in region),
    )


def _hold_out(pde: PDE, share: float, settings: Settings) -> dict[str, tuple[Region, ...]]:
    """Take a share of its measured values from a problem; returns them as regions of the loss terms."""
    if settings.wants_windows:
        raise ConfigError(f"pde.hold_out={share:g}: with time_windows no network is the best; leave it out")
    try:
        pde.measurements, held = held_apart(pde.measurements, share, settings.seed)
    except ProblemError as error:
        raise ConfigError(f"pde.hold_out={share:g}: {error}") from None
    return {term.name: term.region for term in data_terms(held)}


def build_logger(loggers: Sequence[Component[Logger]]) -> Logger:
    """The logger of a configuration, or several as one.

    Raises:
        ConfigError: see ``Component.build``.
    """
    built = [each.build() for each in loggers]
    return built[0] if len(built) == 1 else Several(built)


def build_networks(
    configuration: Configuration, earlier: Sequence[Mapping[str, Any]] = (), ends: Sequence[float] = ()
) -> tuple[PDE, tuple[nn.Module, ...]]:
    """The problem on all of time and its network; with time windows, those of all windows so far.

    Args:
        configuration: of the run.
        earlier: states of the networks of earlier time windows.
        ends: of the windows so far, where the run chooses them.

    Raises:
        ConfigError: a value cannot be used.
    """
    whole = configuration.pde.build()
    try:
        _, network, networks = _networks(configuration, whole, Marching(earlier=earlier, ends=ends))
    except ProblemError as error:
        raise ConfigError(placed(f"pde: {error}", error, type(whole))) from None
    return whole, (*networks, network)


def _growing(settings: Settings, whole: PDE, optimizer: Optimizer) -> float | None:
    """The part of the time that training begins with; ``None`` for all of it."""
    if settings.growing_time != "auto":
        return settings.growing_time
    # Targets of loss or time may be reached on the way, and a network of another run has all of time.
    early = settings.stop.loss is not None or settings.stop.seconds is not None or settings.start_from is not None
    if whole.coordinates != (TIME,) or early or optimizer.gradient_steps(1):
        return None
    try:
        TimeWindow(whole, 0, 1, None, BEGINNING).terms()
    except ProblemError:
        return None
    return BEGINNING


def _chooses_windows(settings: Settings, whole: PDE, optimizer: Optimizer) -> bool:
    """Whether the run is to choose its time windows."""
    if settings.time_windows == "adaptive":
        if optimizer.gradient_steps(1):
            raise ConfigError(
                "time_windows=adaptive: the optimiser does not tell whether a window is solved; give a number"
            )
        TimeWindow(whole, 0, 1, None).terms()
        return True
    return (
        settings.time_windows == "auto"
        and settings.growing_time == "auto"
        and bool(_growing(settings, whole, optimizer))
    )


def _networks(
    configuration: Configuration, whole: PDE, marching: Marching
) -> tuple[PDE, nn.Module, tuple[nn.Module, ...]]:
    """The problem of the present time window, its network, and those of the windows before.

    A window's network starts with the parameters of the one before.
    """
    description, settings = configuration.network, configuration.settings
    ends, growing = marching.ends, marching.growing
    assert growing != "auto"
    count = settings.equal_windows
    if count == 1 and not chosen(whole.domain, ends) and growing is None:
        return whole, _first_network(description, settings, whole), ()
    pde = TimeWindow(whole, 0, count, None, growing, ends)
    network = _first_network(description, settings, pde)
    networks: list[nn.Module] = []
    for k, state in enumerate(marching.earlier, start=1):
        state = read_state(schema_of(network.state_dict()), state, f"earlier.{k - 1}")
        network.load_state_dict(state)
        networks.append(frozen(network))
        pde = TimeWindow(whole, k, count, network, growing, ends)
        network = _network(description, settings, pde)
        for name, parameter in network.named_parameters():
            parameter.data.copy_(state[name])
    return pde, network, tuple(networks)


def _first_network(description: Component[nn.Module], settings: Settings, pde: PDE) -> nn.Module:
    """The network of a run that is there already, where the configuration names one; else a new one."""
    network = _network(description, settings, pde)
    if settings.start_from is not None:
        own = network.state_dict()
        try:
            saved = load_network(Path(settings.start_from))
            network.load_state_dict(read_state(_of_any_precision(own, saved), saved, "network"))
        except (CheckpointError, StateError) as error:
            raise ConfigError(f"start_from={settings.start_from}: {error}") from None
    return network


def _of_any_precision(own: Mapping[str, Any], saved: Mapping[str, Any]) -> Any:
    """The schema of a network's state whose floats may be of another dtype; they are rounded to its own."""
    schema = dict(own)
    for name, value in own.items():
        other = saved.get(name)
        if isinstance(value, Tensor) and isinstance(other, Tensor) and other.dtype in (torch.float32, torch.float64):
            schema[name] = value.to(other.dtype) if value.is_floating_point() else value
    return schema_of(schema)


def _network(description: Component[nn.Module], settings: Settings, pde: PDE) -> nn.Module:
    torch.manual_seed(settings.seed)
    generator = torch.Generator().manual_seed(mix_seed(settings.seed, 0))
    domain = featured_domain(pde.domain, count) if (count := feature_count(pde)) else pde.domain
    runtime = {"domain": domain, "outputs": len(pde.fields), "periods": pde.periods, "generator": generator}
    if is_own(description.cls.__module__):  # such can be built without memory, to see how large they are
        with torch.device("meta"), _Undrawn():
            shapes = description.build(**{**runtime, "generator": None})
        size = sum(p.numel() for p in shapes.parameters()) * getattr(torch, settings.dtype).itemsize
        check_fits(COPIES * size, "network", _device(settings.device))
        torch.manual_seed(settings.seed)
    network = _of_all_fields(description, pde, runtime)
    if module := shapeless(network):
        raise ConfigError(
            f"network: {module} of {type(network).__name__} has no shape before it has seen points; take the module "
            "that is given its sizes, with len(domain.coordinates) for the inputs of the network"
        )
    if module := remembering(network):
        raise ConfigError(
            f"network: {module} of {type(network).__name__} averages over the points that it has seen, so it changes "
            "without being trained; take LayerNorm, which sees one point at a time"
        )
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError("network: no trainable parameters")
    if complex_ones := [name for name, p in network.named_parameters() if p.is_complex() and p.requires_grad]:
        raise ConfigError(
            f"network: the trainable parameter {complex_ones[0]} is complex; train its real and imaginary parts as a "
            "real parameter, read through torch.view_as_complex"
        )
    if pde.constrains:
        network = constrained(network, pde)
    if pde.coefficients:
        network = with_coefficients(network, pde.coefficients)
    return convert(network, getattr(torch, settings.dtype), _device(settings.device))


def _of_all_fields(description: Component[nn.Module], pde: PDE, runtime: Mapping[str, Any]) -> nn.Module:
    """A network of all fields, those that depend on some of the coordinates alone each by one of its own.

    The problem's features are read by the network of those that depend on all of them.
    """
    shared = tuple(field for field in pde.fields if field not in pde.depends)
    parts = []
    if shared:
        network = description.build(**{**runtime, "outputs": len(shared)})
        network = with_features(network, pde) if feature_count(pde) else network
        if not pde.depends:
            return network
        every = tuple(range(len(pde.coordinates)))
        parts.append(Part(network, every, tuple(map(pde.fields.index, shared))))
    for field, letters in pde.depends.items():
        coordinates = tuple(c for c in pde.coordinates if c in letters)
        domain = Box({c: pde.domain.low[c] for c in coordinates}, {c: pde.domain.high[c] for c in coordinates})
        periods = {c: period for c, period in pde.periods.items() if c in coordinates}
        network = description.build(**{**runtime, "domain": domain, "outputs": 1, "periods": periods})
        parts.append(Part(network, tuple(map(pde.coordinates.index, coordinates)), (pde.fields.index(field),)))
    return side_by_side(parts)


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are that random numbers would be drawn into.

    For tensors without memory, which have room for none: drawing them there would load torch's compiler, in 1.6 s.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ in ("normal_", "uniform_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def _check_size(
    pde: PDE, counts: Mapping[str, int], weighting: Weighting, optimizer: Optimizer, objective: Objective
) -> None:
    """Turn down more points, probes or matrices than fit into memory, before any are drawn or made."""
    row = DRAWN * 8 * len(pde.coordinates)
    check_fits(row * sum(counts.values()), f"pde.points={counts}")
    own = getattr(weighting, "points", None)
    if isinstance(own, int):
        check_fits(row * own * len(counts), f"weights.points={own}")
    if isinstance(weighting, Sketched):
        sketch, like = weighting.sketch, objective.like
        points = [own if isinstance(own, int) else counts.get(name, 0) for name in objective.names]
        rows = max(n * m for n, m in zip(points, objective.components, strict=True))
        size = like.element_size() * sketch.numbers(objective.layout.size, rows)
        check_fits(size, f"weights.sketch_size={sketch.size}", str(like.device))
    rows = objective.residual_rows(counts)
    what = f"optimizer: {type(optimizer).__name__} with {rows} rows and {objective.layout.size} parameters"
    check_fits(8 * optimizer.matrix_entries(rows, objective.layout.size), what, str(objective.like.device))


def _objective(pde: PDE, network: nn.Module, settings: Settings, points: int) -> Objective:
    """The objective, in chunks where all ``points`` at once are too many, or shared out among processes."""
    memory = settings.kernel.memory_mib * 2**20
    whole = Objective(pde, network, settings.kernel.route, memory, time.perf_counter)
    given = settings.trainer.chunk_size
    size = points_at_a_time(whole, for_points(MEMORY, str(whole.like.device))) if given == "auto" else given
    ranks = present()
    if ranks.count == 1 and (points <= size or (given == "auto" and not whole.pointwise)):
        return whole
    if whole.pointwise:
        return ChunkedObjective(pde, network, whole.route, memory, size, ranks, time.perf_counter)
    what = f"trainer.chunk_size={given}" if ranks.count == 1 else f"network, shared by {ranks.count} processes"
    raise ConfigError(
        f"{what}: the points of {type(network).__name__} cannot be taken apart; "
        "its residuals at one point depend on other points"
    )


def _device(name: str) -> str:
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("device=cuda: no CUDA device is available; allowed here are auto and cpu")
    if name == "cpu" or not available:
        return "cpu"
    if not several_processes():
        return "cuda"
    if torch.cuda.device_count() < local_count():
        raise ConfigError(
            f"device={name}: {local_count()} processes on a machine with {torch.cuda.device_count()} CUDA devices; "
            "start one process per device, or take device=cpu"
        )
    torch.cuda.set_device(local_rank())
    return f"cuda:{local_rank()}"
