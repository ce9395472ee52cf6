"""The training loop."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ntkrun.common.state_schema import Generator, read_state, schema_of
from ntkrun.network import JetNetwork, coefficient_values
from ntkrun.objective.batch import Batch
from ntkrun.pde.continuation import UNTIL
from ntkrun.point_weights import Capped
from ntkrun.runtime.distributed import present
from ntkrun.runtime.signals import StopRequest
from ntkrun.steps.cost_model import CompileChoice
from ntkrun.steps.eager import StepError, Stepper
from ntkrun.steps.factory import make_stepper
from ntkrun.storage.checkpoint import save_best, save_checkpoint
from ntkrun.training.evaluation import Errors, EvaluationStopped
from ntkrun.training.few_points import COUNT_LESS, FOLLOWS, held_by_few
from ntkrun.training.finite_checks import DivergenceError, all_finite, check_evaluation
from ntkrun.training.parts import LoopSettings, TrainingParts
from ntkrun.training.progress import Progress
from ntkrun.training.progress_bar import bar_class
from ntkrun.training.records import Metrics, Records
from ntkrun.training.time_marching import growing
from ntkrun.training.weight_log import WeightLog
from ntkrun.weights import NTKWeighting

log = logging.getLogger(__name__)

CHECKED = (10, 100, 1000)  # steps that are compared with their operations, besides those before checkpoints
HISTORY = 1024  # steps whose losses may wait for a check


@dataclass(frozen=True)
class Row:
    """A row of metrics.csv that is begun before its step.

    Attributes:
        metrics: what it says of the network.
        before: the state that the step changes, where it may have to be taken back.
    """

    metrics: Metrics
    before: Mapping[str, Any] | None


class Trainer:
    """The training loop of one run, or of one of its time windows.

    Args:
        parts: what is trained, how, and what observes it.
        loop: how long, and what is done how often.
        records: where rows go.
        directory: where checkpoints go.
        should_stop: asked before every step, and while errors are computed.
        choice: which steps are compiled.
        progress: how far the run has come.
        configuration: identifies the run, part of the checkpoint.

    Attributes:
        late: that its time is up, if it is.
        reached: whether a target has ended it.
    """

    def __init__(
        self,
        parts: TrainingParts,
        loop: LoopSettings,
        records: Records,
        directory: Path,
        should_stop: StopRequest,
        choice: CompileChoice,
        progress: Progress,
        configuration: str = "",
    ) -> None:
        self.parts = parts
        self.loop = loop
        self.records = records
        self.directory = directory
        self.should_stop = should_stop
        self.choice = choice
        self.progress = progress
        self.configuration = configuration
        self.objective = parts.objective
        self.weighting, self.point_weights = parts.weighting, parts.point_weights
        self.optimizer, self.schedule = parts.optimizer, parts.schedule
        self.points, self.evaluator, self.diagnostics = parts.points, parts.evaluator, parts.diagnostics
        self.held_out = parts.held_out
        self.earlier = tuple(network.state_dict() for network in parts.earlier)  # part of the checkpoint

    def fit(self) -> str | None:
        """Train until the end, until a target is reached or time is up, or until asked to stop.

        Returns:
            What ended the run, empty for its last step; ``None`` where it was asked to stop.

        Raises:
            DivergenceError: a loss, weight, gradient or parameter is not finite, or a compiled step not what it should
                be. The last checkpoint stays as it was.
        """
        progress = self.progress
        self._unchecked: list[tuple[int, torch.Tensor]] = []
        self._weight_log = WeightLog(self.objective.names, self.records)
        self._best: dict[str, Any] | None = None
        self.late = self._time_is_up() if progress.step else ""
        self.reached = False
        ended: str | None = None
        with self._bar() as bar:
            self._stepper = self._make_stepper(bar)
            try:
                while ended is None and not (not self._at_end() and self.should_stop()):
                    ended = self._close(bar) if self._at_end() else self._step(bar)
            except EvaluationStopped:  # before the step of its row
                while not self.should_stop():  # until all processes of the run have agreed
                    pass
            if progress.step or progress.first_window:  # else the end of the window before is saved, with its row
                self.save()
        return ended

    def _at_end(self) -> bool:
        """Whether the last step is done, or there is nothing left to gain by more, or no time for it."""
        return self.progress.step >= self.loop.iterations or bool(self._ended())

    def _ended(self) -> str:
        """Why the run ends before its last step; empty where it may go on."""
        on_the_way = growing(self.objective.pde) is not None and self.progress.step < UNTIL * self.loop.iterations
        return self.late if on_the_way else self.optimizer.ended() or self.points.ended or self.late

    def _time_is_up(self) -> str:
        """That the seconds of the run, or its windows so far, have passed; all its processes go by those of one."""
        limit = self.loop.seconds
        if limit is None:
            return ""
        share = limit * min(1.0, (self.progress.window + 1) / self.loop.windows)
        elapsed = present().broadcast(self.progress.elapsed)
        return f"{elapsed:.4g} seconds have passed, stop.seconds={limit:g}" if elapsed >= share else ""

    def _step(self, bar: tqdm[Any]) -> str | None:
        """One optimiser step; returns the target that was reached before it, if one was."""
        progress, step = self.progress, self.progress.step
        with progress.phase("training"):
            self._start_step()
            weigh = partial(self.point_weights.elsewhere, self.objective)
            plain = self.points.at(step, self.weighting.weights, weigh, watch=self.optimizer.wants_rows)
            if step and self.points.drawn_at == step:
                self.optimizer.points_drawn()
        # The end of the window before has its row.
        logged = step % self.loop.log_every == 0 and (step or progress.first_window)
        row = self._start_row() if logged else None
        with progress.phase("diagnostics"):
            self.diagnostics.observe(step, self.objective, plain)
        start, elsewhere = time.perf_counter(), progress.elapsed
        self.point_weights.update(self.objective, plain)
        batch = self.point_weights.apply(self.objective, plain)
        if step == 0 and isinstance(self.weighting, NTKWeighting):
            batch = self._cap_traces(self.weighting, plain, batch)
        self.weighting.rows_at_hand = self.optimizer.wants_rows
        request = self.weighting.request(step, self.objective, batch)
        # What a weighting may do before the pass belongs to an update, and so does a rule that makes one in the pass.
        changed = bool(request.update or request.rule) or self.points.drawn_at == step or self.point_weights.varying
        if step in CHECKED or (step + 1) % self.loop.checkpoint_every == 0 or step + 1 == self.loop.iterations:
            self._stepper.check_next()
        try:
            evaluation = self._stepper.step(request, batch, self._factor(), changed)
        except StepError as error:
            raise DivergenceError(f"step {progress.total_steps}: {error}") from error
        update = self.weighting.take(request, evaluation)
        self._watch(progress.total_steps, evaluation.losses)
        if self._stepper.halted:
            self._check_losses()
        if update is not None:
            self._weight_log.add(progress.total_steps, progress.elapsed, update)
            progress.seconds["weight_updates"] += update.seconds or 0.0
            progress.updates += 1
        progress.seconds["training"] += time.perf_counter() - start - (progress.elapsed - elsewhere)
        if row is not None:
            self._finish_steps()
            with progress.phase("logging"):
                losses, weights = evaluation.losses.tolist(), evaluation.weights.tolist()
                if not all(map(math.isfinite, losses)):
                    self._check_losses()
                self._weight_log.write(progress.total_steps)
                check_evaluation(progress.total_steps, self.objective.names, weights, evaluation.gradient)
                target = self._log(row, losses, weights, bar)
            if target is not None:
                self._take_back(row)
                progress.updates -= update is not None
                self.reached = True
                return target
            self.late = self._time_is_up()
        if report := self.optimizer.report():
            self.records.step(progress.total_steps, progress.elapsed, report)
        progress.step += 1
        bar.update()
        if progress.step % self.loop.checkpoint_every == 0 and progress.step < self.loop.iterations:
            self.save()
        return None

    def _cap_traces(self, weighting: NTKWeighting, plain: Batch, batch: Batch) -> Batch:
        """The batch of the first step; points that hold most of a trace count less where point weights do that."""
        few = held_by_few(self.objective, batch)
        caps = isinstance(self.point_weights, Capped) and weighting.points == "training"
        if self.progress.total_steps == 0:
            for text in few.values():
                log.warning("%s", text + (COUNT_LESS if caps else FOLLOWS))
        if not (few and isinstance(self.point_weights, Capped) and caps):
            return batch
        self.point_weights.cap(few)
        self.point_weights.update(self.objective, plain)
        return self.point_weights.apply(self.objective, plain)

    def _close(self, bar: tqdm[Any]) -> str:
        """The row of the last step."""
        progress = self.progress
        self._start_step()
        plain = self.points.batch or self.points.at(progress.step)
        # Point weights are those of the present residuals, but a run that is made longer takes note of these itself.
        before = copy.deepcopy(self.point_weights.state_dict())
        self.point_weights.update(self.objective, plain)
        batch = self.point_weights.apply(self.objective, plain)
        losses = self.objective.losses(batch)
        row = self._start_row()
        self._watch(progress.total_steps, losses)
        with progress.phase("logging"):
            self._check_losses()
            self._log(row, losses.tolist(), self.weighting.weights.tolist(), bar)
        self.point_weights.load_state_dict(before)
        with progress.phase("diagnostics"):
            self.diagnostics.observe(progress.step, self.objective, plain)
        return self._ended() if progress.step < self.loop.iterations else ""

    def _start_step(self) -> None:
        """Tell residuals how far the training is, and the network which step it is, for what it draws anew in each."""
        self.objective.progress.fill_(self.progress.step / max(1, self.loop.iterations))
        if isinstance(self.objective.network, JetNetwork):
            self.objective.network.start_step(self.progress.step)

    def _factor(self) -> float:
        """The schedule's factor of the learning rate at the present step."""
        horizon = self.optimizer.horizon(self.loop.iterations)
        return self.schedule.factor(min(self.progress.step, horizon), horizon)

    def _make_stepper(self, bar: tqdm[Any]) -> Stepper:
        def announce(starts: bool) -> None:
            bar.set_description("compiling" if starts else self._window_name())

        def measured() -> AbstractContextManager[None]:
            return self.progress.phase("compilation")

        return make_stepper(self.objective, self.optimizer, self.choice, measured, announce)

    def save(self) -> None:
        """Flush the tables, write the best network if there is a new one, and a checkpoint.

        Raises:
            DivergenceError: the state is not worth keeping.
        """
        self._finish_steps()
        with self.progress.phase("saving"):
            self._check()
            self.records.flush()
            if self._best is not None:
                save_best(self.directory, self._best)
                self._best = None
            tables = self.records.state_dict(self.progress.total_steps)
            state = {**self.state_dict(), "tables": tables, "configuration": self.configuration}
            save_checkpoint(self.directory, state)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to resume; the schedule is a function of the step and holds no state."""
        return {
            "progress": dict(vars(self.progress)),
            "network": self.objective.network.state_dict(),
            "earlier": [dict(state) for state in self.earlier],
            "optimizer": self.optimizer.state_dict(),
            **self._weights_state(),
            "points": self.points.state_dict(),
            "diagnostics": self.diagnostics.state_dict(),
            "random": torch.get_rng_state(),
        }

    def _weights_state(self) -> dict[str, Any]:
        return {"weighting": self.weighting.state_dict(), "point_weights": self.point_weights.state_dict()}

    def _window_name(self) -> str | None:
        return f"window {self.progress.window + 1} of {self.loop.windows}" if self.loop.windows > 1 else None

    def _bar(self) -> tqdm[Any]:
        return bar_class()(
            desc=self._window_name(),
            total=self.loop.iterations,
            initial=self.progress.step,
            disable=None if self.loop.show_bar else True,
            unit="it",
            dynamic_ncols=True,
        )

    def _watch(self, step: int, losses: torch.Tensor) -> None:
        """Keep the losses of a step until the next check, without waiting for the device."""
        self._unchecked.append((step, losses))
        if len(self._unchecked) == HISTORY:
            self._check_losses()

    def _check(self) -> None:
        """Find what is not finite of losses and parameters before the coming step; write weight updates."""
        parameters = self.objective.trainable
        losses = [torch.stack([each for _, each in self._unchecked])] if self._unchecked else []
        numbers = [*losses, *(p.detach() for p in parameters.values())]
        finite = all_finite(torch.cat([each.flatten() for each in numbers]))
        self._check_losses(finite)
        if bad := [name for name, p in parameters.items() if not finite and not all_finite(p.detach())]:
            raise DivergenceError(f"step {self.progress.total_steps}: parameter {', '.join(bad)} is not finite")

    def _check_losses(self, finite: bool = False) -> None:
        """Find the first step since the last check with a loss that is not finite; write weight updates.

        Args:
            finite: all are known to be.
        """
        if not self._unchecked:
            return
        steps = [step for step, _ in self._unchecked]
        losses = None if finite else torch.stack([each for _, each in self._unchecked])
        if losses is None or all_finite(losses):
            self._weight_log.write(steps[-1])
            self._unchecked.clear()
            return
        first = int((~torch.isfinite(losses)).any(1).nonzero()[0])
        self._weight_log.write(steps[first])
        pairs = zip(self.objective.names, torch.isfinite(losses[first]).tolist(), strict=True)
        bad = [name for name, each in pairs if not each]
        text = f"step {steps[first]}: the loss of term {', '.join(bad)} is not finite"
        raise DivergenceError(text + self._reason(bad[0], steps[first]))

    def _reason(self, term: str, step: int) -> str:
        """Where the residual of a term is not finite; how to find out where the parameters have been moved since."""
        present = step == self.progress.total_steps
        if not present or not all(all_finite(p.detach()) for p in self.objective.trainable.values()):
            return "; resumed with trainer.compile=false, the run names the point" if self.choice.pays() else ""
        bad = self.objective.bad_row(self.points.batch, self.objective.names.index(term))
        return "" if bad is None else f", first at {bad}"

    def _start_row(self) -> Row:
        """What a row of metrics.csv says of the network before its step, which may move the parameters in one go."""
        progress = self.progress
        self._finish_steps()
        due = progress.step % self.loop.evaluate_every < self.loop.log_every or self._at_end()
        errors, held_out = self._evaluate() if due or self.loop.targets else (None, None)
        self._show()
        # A run that ends here may be resumed with other targets, and then takes this step anew.
        before = None
        if self.loop.targets and not self._at_end():
            moving = {"network": self.objective.network.state_dict(), "optimizer": self.optimizer.state_dict()}
            before = copy.deepcopy({**moving, **self._weights_state()})
        metrics = Metrics(
            errors=errors,
            held_out=held_out,
            rate=self.optimizer.rate(self._factor()),
            coefficients=coefficient_values(self.objective.network),
            epochs=self.points.epochs(progress.step),
        )
        return Row(metrics, before)

    def _evaluate(self) -> tuple[Errors | None, Sequence[float] | None]:
        """Errors of the network as it is, or its losses at held-out points; it is kept if it is the best so far."""
        progress = self.progress
        with progress.phase("logging"):
            self._check()
        with progress.phase("evaluation"):
            errors = self.evaluator.error(self.should_stop.heard)
            held_out = self.held_out.losses() if self.held_out is not None else None
            best = False
            if errors is not None:
                best = progress.saw_errors(errors)
            elif held_out is not None:
                best = progress.saw_losses(held_out, self.weighting.weights.tolist())
            if best and self.loop.keep_best:
                self._best = self._as_best(errors, held_out)
        return errors, held_out

    def _show(self) -> None:
        """Hand the solution to the logger where it wants a picture along the run."""
        every = -(-self.loop.iterations // self.records.pictures) if self.records.pictures else 0
        if not every or self._at_end() or self.progress.step % every >= self.loop.log_every:
            return
        with self.progress.phase("logging"):
            solution = self.evaluator.solution(self.should_stop.heard)
            self.records.picture(self.progress.total_steps, solution.arrays(self.objective.pde))

    def _as_best(self, errors: Errors | None, held_out: Sequence[float] | None) -> dict[str, Any]:
        """What ``best.pt`` holds."""
        network = {name: value.detach().clone() for name, value in self.objective.network.state_dict().items()}
        state: dict[str, Any] = {"step": self.progress.total_steps, "network": network}
        if errors is not None:
            return {**state, "error": errors.total, "errors": dict(errors.fields)}
        assert held_out is not None
        return {**state, "error": None, "held_out_losses": dict(zip(self.objective.names, held_out, strict=True))}

    def _finish_steps(self) -> None:
        """Wait for the device, so that its seconds count for training and not for what looks at the results."""
        if self.objective.like.device.type == "cuda":
            with self.progress.phase("training"):
                torch.cuda.synchronize(self.objective.like.device)

    def _take_back(self, row: Row) -> None:
        """Undo the step that a row belongs to."""
        assert row.before is not None
        self.objective.network.load_state_dict(row.before["network"])
        self.optimizer.load_state_dict(row.before["optimizer"])
        self.weighting.load_state_dict(row.before["weighting"])
        self.point_weights.load_state_dict(row.before["point_weights"])

    def _log(self, row: Row, losses: Sequence[float], weights: Sequence[float], bar: tqdm[Any]) -> str | None:
        """Write a row of metrics.csv; returns the target that is reached, if one is."""
        progress = self.progress
        total = sum(w * loss for w, loss in zip(weights, losses, strict=True))
        least = self.point_weights.least()
        self.records.metrics(progress.total_steps, progress.elapsed, losses, weights, least, row.metrics)
        tenth = max(1, self.loop.iterations // 10)
        told = progress.step % tenth < self.loop.log_every or self._at_end()
        if told or not bar.disable:
            shown = {"loss": f"{total:.2e}"}
            shown |= self._latest(row.metrics)
            if "damping" in (report := self.optimizer.report()):
                shown["damping"] = f"{report['damping']:.1e}"
            shown["weights"] = "/".join(f"{w:.3g}" for w in weights)
            bar.set_postfix(shown, refresh=False)
            if told:
                end = progress.first_step + self.loop.iterations
                text = ", ".join(f"{k} {v}" for k, v in shown.items())
                log.info("step %d of %d: %s", progress.total_steps, end, text)
        return self.loop.targets.reached(row.metrics.errors, total)

    def _latest(self, row: Metrics) -> dict[str, str]:
        """The latest errors or loss at held-out points in words, with their step where it is not that of the row."""
        progress = self.progress
        when = f" at step {progress.error_step}" * (row.errors is None and row.held_out is None)
        if progress.error is not None:
            fields = self.objective.pde.fields
            each = ", ".join(f"{f} {e:.1e}" for f, e in zip(fields, progress.errors, strict=False) if e is not None)
            return {"rel_l2": f"{progress.error:.2e}{f' ({each})' * (len(fields) > 1)}{when}"}
        return {"held_out_loss": f"{progress.held_out:.2e}{when}"} if progress.held_out is not None else {}


def restore(parts: TrainingParts, state: Mapping[str, Any]) -> Progress:
    """Put what ``Trainer.state_dict`` gave into the parts of a run; returns how far that run had come.

    Raises:
        StateError: the state is not one of such parts; nothing of it is loaded.
    """
    progress = Progress(**read_state(Progress.state_schema(), state.get("progress"), "progress"))
    schema = {
        "network": schema_of(parts.objective.network.state_dict()),
        "optimizer": parts.optimizer.state_schema(),
        "weighting": parts.weighting.state_schema(),
        "point_weights": parts.point_weights.state_schema(parts.points.counts),
        "points": parts.points.state_schema(progress.step),
        "diagnostics": parts.diagnostics.state_schema(),
        "random": Generator(),
    }
    read = {name: read_state(each, state.get(name), name) for name, each in schema.items()}
    parts.objective.network.load_state_dict(read["network"])
    parts.optimizer.load_state_dict(read["optimizer"])
    parts.weighting.load_state_dict(read["weighting"])
    parts.point_weights.load_state_dict(read["point_weights"])
    parts.points.load_state_dict(read["points"])
    parts.diagnostics.load_state_dict(read["diagnostics"])
    torch.set_rng_state(read["random"])
    return progress
