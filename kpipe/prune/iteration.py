"""Rank, remove the lowest, retrain, again, until the model costs what was asked.

    round 0   the model as it is: one evaluation
    round n   macs at most  share ** (n / rounds)  of the model's own; remove, evaluate, finetune,
              evaluate, store

Every round starts from the stored file of the one before, so a loop that was killed and called
again goes through the same files as one that never was, and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kpipe.errors import PruneError
from kpipe.prune.criteria import Criterion, find_criterion, score
from kpipe.prune.graph import read
from kpipe.prune.groups import couple
from kpipe.prune.macs import count_macs, count_params
from kpipe.prune.rounds import Round, Store
from kpipe.prune.selection import floors, least_macs, select
from kpipe.prune.surgery import plan_units, remove_filters

__all__ = ["PruneResult", "Selection", "prune_filters"]

Finetune = Callable[[keras.Model, int], keras.Model | None]
Evaluate = Callable[[keras.Model], float]


@dataclass(frozen=True)
class Selection:
    """How the filters that go are chosen.

    Args:
        multiple: filters left in each group are a multiple of it, because odd counts can run
            slower than the unpruned model; a group of no more filters than that stays whole.
        floor: share of each group's filters that stay in any case, in [0, 1].
        normalize: how scores are compared across layers: "mean", "max" or "none", see `rank`.
        protect: layers whose filters must stay.
        data: handed to the criterion.
        seed: of the criterion and of Keras' random state at the start of each round.
    """

    multiple: int = 8
    floor: float = 0.1
    normalize: str = "mean"
    protect: tuple[str, ...] = ()
    data: Any = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.multiple < 1 or not 0 <= self.floor <= 1:
            raise PruneError(
                "the selection cannot be made",
                expected="multiple at least 1 and floor in [0, 1]",
                received=f"multiple={self.multiple}, floor={self.floor}",
            )


@dataclass(frozen=True)
class PruneResult:
    """The smallest model and how it came about.

    Args:
        model: the model of the last round, not compiled.
        history: one row per round, the model as it was first.
    """

    model: keras.Model
    history: tuple[Round, ...]


@dataclass(frozen=True)
class _Request:
    macs: float
    rounds: int
    criterion: str | Criterion
    selection: Selection

    def digest(self, model: keras.Model) -> str:
        """What a stored loop must have been asked for, to be continued."""
        chosen = self.selection
        name = getattr(self.criterion, "__qualname__", str(self.criterion))
        request = [float(self.macs), int(self.rounds), name, chosen.multiple, chosen.floor]
        request += [chosen.normalize, sorted(chosen.protect), chosen.seed]
        total = hashlib.sha256(json.dumps(request).encode())
        for operation in read(model).operations:
            total.update(f"{operation.name} {operation.kind}".encode())
        for weight in model.weights:
            total.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return total.hexdigest()


def prune_filters(
    model: keras.Model,
    *,
    macs: float,
    finetune: Finetune,
    evaluate: Evaluate,
    criterion: str | Criterion = "l1",
    rounds: int = 3,
    selection: Selection | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> PruneResult:
    """Removes the filters that matter least and retrains, in rounds, down to a share of the MACs.

    The share falls geometrically over the rounds. Each round ranks all groups globally, removes the
    lowest, and goes through a stored file, without compile state. Keras' random state is set from
    the seed and the round before each retraining, so the result is a function of the arguments.

    Args:
        model: a built Functional or Sequential model of fixed image size; left as it is.
        macs: share of its multiply-accumulates to reach, in (0, 1).
        finetune: (uncompiled model, round from 1) -> the trained model, or None if trained in
            place.
        evaluate: (uncompiled model) -> a score on validation data, kept in the history.
        criterion: see `rank`.
        rounds: removals, each followed by a retraining.
        selection: how filters are chosen; `Selection()` if None.
        folder: where finished rounds are kept. Called again with the same arguments, the loop goes
            on after the last of them. A criterion of one's own is known by its name only, data and
            `finetune` not at all: after a change of these, give another folder.

    Raises:
        PruneError: before anything is trained, a share that cannot be reached (naming the nearest
            that can), or a folder that holds another loop.
    """
    request = _Request(macs, rounds, criterion, selection or Selection())
    original, least = _feasible(model, request)
    with tempfile.TemporaryDirectory() as passing:
        store = Store(Path(passing if folder is None else folder), request.digest(model), model)
        history = store.history()
        if not history:
            value = float(evaluate(model))
            row = _row(0, model, original, (value, value), request)
            history = store.keep([row], None)
        current = store.model(len(history) - 1)
        for number in range(len(history), rounds + 1):
            # Before the surgery: dropout layers draw their seeds when they are made.
            keras.utils.set_random_seed(request.selection.seed + number)
            small = _removed(current, request, original, least, number)
            before = float(evaluate(small))
            answer = finetune(small, number)
            trained = small if answer is None else answer
            row = _row(number, trained, original, (before, float(evaluate(trained))), request)
            history = store.keep([*history, row], trained)
            current = store.model(number)
        return PruneResult(current, tuple(history))


def _feasible(model: keras.Model, request: _Request) -> tuple[int, dict[str, int]]:
    """(multiply-accumulates of the model, units each group keeps at least)."""
    find_criterion(request.criterion)
    if not 0 < request.macs < 1 or request.rounds < 1:
        raise PruneError(
            "the loop has no target it could reach",
            expected="macs, a share of the model's own, in (0, 1), and at least one round",
            received=f"macs={request.macs}, rounds={request.rounds}",
        )
    original, chosen = count_macs(model), request.selection
    coupling = couple(read(model), chosen.protect)
    least = floors(coupling.groups, chosen.floor, chosen.multiple)
    nearest_macs = least_macs(coupling, least)
    if nearest_macs > request.macs * original:
        # Rounded up, so that the share named here is one that can be asked for.
        share = math.ceil(nearest_macs / original * 1e4) / 1e4
        raise PruneError(
            f"the model cannot be cut to {request.macs:.4g} of its multiply-accumulates",
            expected=f"macs of at least {share:.4f}, the nearest that can be reached with "
            f"multiple={chosen.multiple} and floor={chosen.floor}",
            received=f"macs={request.macs}",
            fix="ask for more, or lower the floor or the multiple"
            + (f"; {len(coupling.protected)} layers are protected" if coupling.protected else ""),
        )
    return original, least


def _removed(
    model: keras.Model, request: _Request, original: int, least: dict[str, int], number: int
) -> keras.Model:
    chosen = request.selection
    coupling = couple(read(model), chosen.protect)
    rankings = score(
        coupling,
        model,
        request.criterion,
        chosen.data,
        normalize=chosen.normalize,
        seed=chosen.seed + number,
    )
    target = int(original * request.macs ** (number / request.rounds))
    marks = select(coupling, rankings, target, least, chosen.multiple)
    return remove_filters(model, plan_units(coupling, marks))


def _row(
    number: int,
    model: keras.Model,
    original: int,
    scores: tuple[float, float],
    request: _Request,
) -> Round:
    coupling = couple(read(model), request.selection.protect)
    filters = {group.name: len(group.units) for group in coupling.groups}
    cost = count_macs(model)
    return Round(number, cost, cost / original, count_params(model), *scores, filters)
