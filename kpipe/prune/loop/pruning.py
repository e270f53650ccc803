"""Rank, remove the lowest, retrain, again, until the model costs what was asked.

    round 0   the model as it is: one evaluation
    round n   cost at most  share ** (n / rounds)  of the model's own; remove, evaluate, finetune,
              evaluate, store; stop where the score fell by more than the tolerance

What is removed to meet the cost of a round is chosen by `kpipe.prune.loop.removals`.

Every round starts from the stored file of the one before, so a loop that was killed and called
again goes through the same files as one that never was, and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import numbers
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import build_dependencies
from kpipe.prune.dependencies.macs import count_macs, count_params
from kpipe.prune.graph.tracing import read
from kpipe.prune.loop.removals import RankedRemoval, Removal, TriedRemoval
from kpipe.prune.loop.rounds import Round, RoundStore
from kpipe.prune.loop.selection import Selection
from kpipe.prune.loop.targets import Latency, Target, find_target
from kpipe.prune.ranking.ranking import Criterion, find_criterion
from kpipe.prune.scores import loss_of, score_of
from kpipe.prune.surgery.block_removal import Loss
from kpipe.prune.surgery.planning import copied

__all__ = ["PruneResult", "prune_filters"]

Finetune = Callable[[keras.Model, int], keras.Model | None]
Evaluate = Callable[[keras.Model], float]


@dataclass(frozen=True)
class PruneResult:
    """The smallest model and how it came about.

    Args:
        model: the model of the last round that is within the tolerance, not compiled.
        history: one row per round, the model as it was first.
        stopped: why the loop ended before its target; empty where it did not.
    """

    model: keras.Model
    history: tuple[Round, ...]
    stopped: str = ""


@dataclass(frozen=True)
class _Request:
    target: Target
    rounds: int
    criterion: str | Criterion
    tolerance: float | None
    selection: Selection

    def __post_init__(self) -> None:
        find_criterion(self.criterion)
        counted = isinstance(self.rounds, numbers.Integral) and self.rounds >= 1
        tolerance = 0 if self.tolerance is None else self.tolerance
        if not counted or not isinstance(tolerance, numbers.Real) or not tolerance >= 0:
            raise PruneError(
                "the loop has no target it could reach",
                expected="a whole number of rounds, at least one, and a tolerance of 0 or more",
                received=f"rounds={self.rounds!r}, tolerance={self.tolerance!r}",
            )

    def identity(self, model: keras.Model) -> dict[str, Any]:
        """What a stored loop must have been asked for, and of which model, to be continued."""
        chosen = self.selection
        name = getattr(self.criterion, "__qualname__", str(self.criterion))
        digest = hashlib.sha256()
        for operation in read(model).operations:
            digest.update(f"{operation.name} {operation.kind}".encode())
        for weight in model.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return {
            "target": [self.target.argument, float(self.target.value)],
            "rounds": int(self.rounds),
            "criterion": name,
            "tolerance": self.tolerance,
            "round_to": chosen.round_to,
            "min_filters_fraction": chosen.min_filters_fraction,
            "normalize": chosen.normalize,
            "max_pruning_ratio": dict(chosen.max_pruning_ratio),
            "ignored_layers": sorted(chosen.ignored_layers),
            "seed": chosen.seed,
            "blocks": chosen.blocks if self.target.latency is not None else None,
            "model": digest.hexdigest(),
        }

    def fallen(self, history: Sequence[Round]) -> str:
        """How far the last round fell below the tolerance; empty where it did not."""
        first, last = history[0].after, history[-1].after
        if self.tolerance is None or last >= first - self.tolerance:
            return ""
        return (
            f"round {history[-1].round} scores {last:.4g}, more than {self.tolerance:g} below the "
            f"{first:.4g} of the model as it was"
        )


def prune_filters(
    model: keras.Model,
    *,
    macs: float | None = None,
    params: float | None = None,
    latency_ms: float | None = None,
    latency: Latency | None = None,
    finetune: Finetune,
    evaluate: Evaluate,
    loss: Loss | None = None,
    criterion: str | Criterion = "l1",
    rounds: int = 3,
    tolerance: float | None = None,
    selection: Selection | None = None,
    calibration: Iterable[Any] | None = None,
    on_round: Callable[[Round], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> PruneResult:
    """Removes the filters that matter least and retrains, in rounds, down to what is asked.

    One of `macs`, `params` and `latency_ms` is the target. The cost falls geometrically over the
    rounds. Each round ranks all groups globally, removes the lowest, and goes through a stored
    file, without compile state. Keras' random state is set from the seed and the round before each
    retraining, so with `macs` or `params` the result is a function of the arguments.

    For `latency_ms`, each round tries removals alone, each group of filters at its next width and
    each residual block, and measures the loss they add and the milliseconds they save; then those
    go that add least for each millisecond (see `kpipe.prune.loop.latency_search`). The criterion
    says which filters of a group go. That takes a conversion and a measurement for each, some
    minutes a round. Times differ from one measurement to the next, and with them the choice.

    Args:
        model: a built Functional or Sequential model of fixed image size; left as it is.
        macs: share of its multiply-accumulates to reach, in (0, 1).
        params: share of its parameters to reach, in (0, 1).
        latency_ms: milliseconds to reach, as `latency` measures them.
        latency: (uncompiled model) -> milliseconds, such as `kpipe.lite.latency`. Beside another
            target it is asked once a round, for the history.
        finetune: (uncompiled model, round from 1) -> the trained model, or None if trained in
            place.
        evaluate: (uncompiled model) -> a score on validation data, higher is better.
        loss: (uncompiled model) -> a loss on validation data, by which removals are tried for
            `latency_ms`; None for what `evaluate` loses, which tells less where it is an accuracy.
        criterion: see `rank`.
        rounds: removals, each followed by a retraining.
        tolerance: how far the score may fall below that of the model as it was; the loop stops at
            the first round that falls further, and gives the one before. None for any.
        selection: how filters are chosen; `Selection()` if None.
        calibration: batches of images as the model takes them, alone or first in tuples; on them
            the statistics of BatchNormalization are shifted by what each removal changed, see
            `shift_statistics`. A few hundred are enough. None leaves the statistics as they were.
        on_round: called with each row of the history once it is stored, and with those that were
            stored before the loop was taken up again.
        progress: called as `progress(done, total)` after each removal that is tried for
            `latency_ms`; anew in each pass, of which a round has one or more.
        folder: where finished rounds are kept. Called again with the same arguments, the loop goes
            on after the last of them. A criterion of one's own is known by its name only, data,
            `latency`, `loss`, `evaluate` and `finetune` not at all: after a change of these, give
            another folder.

    Raises:
        PruneError: before anything is trained, a target that cannot be reached (naming the nearest
            that can), or a folder that holds another loop; later, an `evaluate` that gives no
            finite number, or a `finetune` that gives no model.
    """
    if not isinstance(selection, Selection | None):
        raise PruneError(
            "how filters are chosen is said by a Selection",
            expected="kpipe.prune.Selection(min_filters_fraction=0.1)",
            received=repr(selection),
        )
    asked = find_target(macs, params, latency_ms, latency)
    request = _Request(asked, rounds, criterion, tolerance, selection or Selection())
    if isinstance(calibration, Iterator):  # every round reads it from the start
        calibration = list(calibration)

    def lost(smaller: keras.Model) -> float:
        if loss is None:
            return -_scored(smaller, evaluate)
        return loss_of(loss(smaller))

    identity = request.identity(model)
    # `evaluate` and `latency` may compile what they are given.
    model = copied(model)
    chosen = (model, asked, request.selection, criterion, calibration)
    removal: Removal
    if asked.latency is None:
        removal = RankedRemoval(*chosen)
    else:
        removal = TriedRemoval(*chosen, loss=lost, progress=progress)
    original, cost = count_macs(model), asked.cost(model)
    _check(request, cost, removal)
    with tempfile.TemporaryDirectory() as passing:
        store = RoundStore(Path(passing if folder is None else folder), identity, model)
        tell = on_round or (lambda row: None)
        history = store.history()
        if not history:
            value = _scored(model, evaluate)
            row = _row(0, model, original, (value, value), request, latency)
            history = store.keep([row], None)
        for row in history:
            tell(row)
        while len(history) <= rounds and not request.fallen(history):
            number = len(history)
            # Before the surgery: dropout layers draw their seeds when they are made.
            keras.utils.set_random_seed(request.selection.seed + number)
            whole = store.model(number - 1)
            limit = asked.limit(cost, number / rounds)
            small = removal.down(whole, limit, request.selection.seed + number)
            before = _scored(small, evaluate)
            answer = finetune(small, number)
            trained = small if answer is None else answer
            scores = (before, _scored(trained, evaluate))
            row = _row(number, trained, original, scores, request, latency)
            history = store.keep([*history, row], trained)
            tell(row)
        stopped = request.fallen(history)
        last = len(history) - (2 if stopped else 1)
        return PruneResult(store.model(last), tuple(history), stopped)


def _scored(model: keras.Model, evaluate: Evaluate) -> float:
    if not isinstance(model, keras.Model):
        raise PruneError(
            "finetune gave no model", expected="a keras.Model, or None", received=repr(model)
        )
    return score_of(evaluate(model))


def _check(request: _Request, cost: float, removal: Removal) -> None:
    """Refuses a target that the model meets as it is, or that no removal reaches."""
    target, chosen = request.target, request.selection
    if target.limit(cost) >= cost:
        raise PruneError(
            "the model costs no more than that as it is",
            expected=f"{target.argument} below {cost:.4g}",
            received=f"{target.argument}={target.value}",
        )
    lowest, protected = removal.lowest(), len(removal.protected)
    if lowest > target.limit(cost):
        raise PruneError(
            f"the model cannot be cut to {target.argument}={target.value:.4g}",
            expected=f"{target.told(lowest, cost)}, the nearest that can be reached with "
            f"round_to={chosen.round_to} and min_filters_fraction={chosen.min_filters_fraction}",
            received=f"{target.argument}={target.value}",
            fix="ask for more, or lower min_filters_fraction or round_to"
            + (f"; {protected} layers are protected" if protected else ""),
        )


def _row(
    number: int,
    model: keras.Model,
    original: int,
    scores: tuple[float, float],
    request: _Request,
    latency: Latency | None,
) -> Round:
    dependencies = build_dependencies(read(model), request.selection.ignored_layers)
    filters = {group.name: len(group.units) for group in dependencies.groups}
    cost = count_macs(model)
    took = None if latency is None else float(latency(model))
    return Round(number, cost, cost / original, count_params(model), *scores, filters, took)
