"""Prune a model in rounds: rank, remove, retrain, repeat, until it costs what was asked.

    round 0   the original model: one evaluation
    round n   remove filters until the cost is at most  target ** (n / rounds)  of the original;
              refit what reads them, evaluate, finetune, evaluate, store; stop if the score fell by
              more than the tolerance

`kpipe.prune.loop.strategies` chooses what to remove in a round.

Every round starts from the stored file of the round before. So a loop that is killed and called
again reads the same files as one that was never killed, and ends with the same weights.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from kpipe.errors import PruneError
from kpipe.prune.dependencies.dependency_graph import DependencyGraph, build_dependencies
from kpipe.prune.dependencies.macs import count_params, graph_macs
from kpipe.prune.evaluation import Evaluate, Loss, finite, paired_loss
from kpipe.prune.graph.graph_reading import read
from kpipe.prune.loop.config import LoopConfig
from kpipe.prune.loop.reachability import check_reachable
from kpipe.prune.loop.rounds import Round, RoundStore
from kpipe.prune.loop.selection import Selection
from kpipe.prune.loop.strategies import LatencyStrategy, RankingStrategy, Strategy
from kpipe.prune.loop.targets import Latency, find_target
from kpipe.prune.ranking.candidate import Criterion
from kpipe.prune.surgery.planning import flat_copy
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["PruneResult", "prune_filters"]

Finetune = Callable[[keras.Model, int], keras.Model | None]


@dataclass(frozen=True)
class PruneResult:
    """The pruned model and the history of its rounds.

    Args:
        model: the model of the last round within the tolerance, not compiled.
        history: one row per round; the first is the original model.
        stopped: why the loop ended before its target; empty if it did not.

    Example:
        >>> import keras
        >>> from kpipe.prune import Selection, prune_filters
        >>> layers = [keras.layers.Dense(8, name="hidden"), keras.layers.Dense(2)]
        >>> model = keras.Sequential([keras.Input((3,)), *layers])
        >>> result = prune_filters(
        ...     model, params=0.6, rounds=1, finetune=lambda small, number: None,
        ...     evaluate=lambda small: 0.9, selection=Selection(round_to=1))
        >>> [(row.round, row.params) for row in result.history], result.stopped
        ([(0, 50), (1, 26)], '')
    """

    model: keras.Model
    history: tuple[Round, ...]
    stopped: str = ""


@names_wrong_kinds
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
    """Remove the least important filters and retrain, in rounds, until a target is met.

    The target is one of `macs`, `params` and `latency_ms`. The cost falls geometrically over the
    rounds. Each round ranks all groups globally and removes the lowest. Each round's model is saved
    without compile state and loaded again. Keras' random state is set from the seed and the round
    before each retraining, so with `macs` or `params` the result depends only on the arguments.

    For `latency_ms`, each round tries each group of filters at its next width and each residual
    block alone, and measures the loss they add and the milliseconds they save. It removes those
    that add the least loss for each millisecond (see `kpipe.prune.loop.latency_search`); the
    criterion chooses the filters within a group. Each trial takes a conversion and a measurement,
    so a round takes minutes. Measured times vary, and the choice varies with them.

    Args:
        model: a built Functional or Sequential model of fixed image size; not changed.
        macs: fraction of its multiply-accumulates to reach, in (0, 1); 0.50004 meets 0.5.
        params: fraction of its parameters to reach, in (0, 1); also met to four digits.
        latency_ms: milliseconds to reach, as `latency` measures them.
        latency: (uncompiled model) -> milliseconds, such as `kpipe.lite.latency`. With another
            target it is measured once a round, for the history.
        finetune: (uncompiled model, round from 1) -> the trained model, or None if trained in
            place.
        evaluate: (uncompiled model) -> a score on validation data, higher is better; or whether
            each validation image is predicted correctly, bool (images,), whose mean is the score.
        loss: (uncompiled model) -> a loss on validation data, for the trials of `latency_ms`; None
            uses the drop in `evaluate`, which is coarser if it is an accuracy.
        criterion: see `rank`.
        rounds: number of removals, each followed by a retraining.
        tolerance: how far the score may fall below that of the original model. The loop stops at
            the first round that falls further, and returns the model before it. If `evaluate`
            returns booleans, a fall that chance explains does not count: the model must be correct
            on significantly fewer of the same images (McNemar's exact test, one-sided, 5 %). None:
            no limit.
        selection: how filters are chosen; `Selection()` if None.
        calibration: batches of images as the model takes them, alone or first in tuples; a few
            hundred images are enough. On them, the layers that read removed filters are refitted
            before each retraining, see `refit_weights`, and the statistics of BatchNormalization
            are shifted, see `shift_statistics`. None leaves both.
        on_round: called with each row of the history once it is stored, and with the stored rows
            when the loop resumes.
        progress: called as `progress(done, total)` after each trial for `latency_ms`; it restarts
            with each search, of which a round has one or more.
        folder: where finished rounds are stored. Called again with the same arguments, the loop
            resumes after the last of them. Of a custom criterion, only the name is compared; of
            data, `latency`, `loss`, `evaluate` and `finetune`, nothing: pass another folder if they
            change.

    Raises:
        PruneError: before any training, a target that cannot be reached (naming the nearest that
            can), or a folder that holds another loop; later, an `evaluate` that returns no finite
            number, or a `finetune` that returns no model.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> from kpipe.prune import Selection, prune_filters
        >>> images, labels = np.random.default_rng(0).random((8, 8, 8, 3)), np.arange(8) % 2
        >>> conv, dense = keras.layers.Conv2D(8, 3), keras.layers.Dense(2)
        >>> layers = [conv, keras.layers.GlobalAveragePooling2D(), dense]
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
        >>> def finetune(small, number):
        ...     small.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        ...     small.fit(images, labels, verbose=0)
        >>> def evaluate(small):
        ...     return float((small(images).numpy().argmax(1) == labels).mean())
        >>> result = prune_filters(
        ...     model, macs=0.5, rounds=1, finetune=finetune, evaluate=evaluate,
        ...     selection=Selection(round_to=2))
        >>> result.history[-1].share
        0.5
    """
    if latency is not None:
        latency = _finite_latency(latency)
    target = find_target(macs, params, latency_ms, latency)
    if isinstance(calibration, Iterator):  # every round reads it from the start
        calibration = list(calibration)
    selection = selection or Selection()
    config = LoopConfig(target, criterion, selection, calibration, rounds, tolerance)

    def added_loss(smaller: keras.Model) -> float:
        if loss is None:
            return -finite(evaluate(smaller), "evaluate")
        return finite(loss(smaller), "loss")

    graph = read(model)
    identity = config.identity(model, graph)
    # A copy, because `evaluate` and `latency` may compile what they are given.
    original = build_dependencies(flat_copy(model, graph), selection.ignored_layers)
    strategy: Strategy
    if target.latency is None:
        strategy = RankingStrategy(original, config)
    else:
        strategy = LatencyStrategy(original, config, loss=added_loss, progress=progress)
    original_macs, cost = graph_macs(original.graph), target.cost(original)
    check_reachable(target, selection, cost, strategy.lowest_cost, len(original.protected))

    @functools.cache
    def reference() -> Any:
        return evaluate(original.model)

    def row(number: int, dependencies: DependencyGraph, before: float, result: Any) -> Round:
        filters = {group.name: len(group.units) for group in dependencies.groups}
        macs, small = graph_macs(dependencies.graph), dependencies.model
        time = None if latency is None else float(latency(small))
        share = macs / original_macs
        after, compared = finite(result, "evaluate"), paired_loss(reference, result)
        params = count_params(small)
        return Round(number, macs, share, params, before, after, filters, time, compared)

    with tempfile.TemporaryDirectory() as temporary:
        store = RoundStore(Path(temporary if folder is None else folder), identity, original)
        report = on_round or (lambda row: None)
        history = store.history()
        if not history:
            score = finite(reference(), "evaluate")
            history = store.save([row(0, original, score, reference())], None)
        for stored in history:
            report(stored)
        while len(history) <= rounds and not config.stop_reason(history):
            number = len(history)
            seed = selection.seed + number
            # Before the surgery: dropout layers draw their seeds when they are built.
            keras.utils.set_random_seed(seed)
            whole = build_dependencies(store.load_model(number - 1), selection.ignored_layers)
            small = strategy.reduce(whole, target.limit(cost, number / rounds), seed)
            before = finite(evaluate(small), "evaluate")
            returned = finetune(small, number)
            trained = small if returned is None else returned
            result = evaluate(_refuse_other(trained))
            dependencies = build_dependencies(trained, selection.ignored_layers)
            last = row(number, dependencies, before, result)
            history = store.save([*history, last], dependencies)
            report(last)
        stopped = config.stop_reason(history)
        chosen = len(history) - (2 if stopped else 1)
        return PruneResult(store.load_model(chosen), tuple(history), stopped)


def _refuse_other(model: Any) -> keras.Model:
    if not isinstance(model, keras.Model):
        raise PruneError(
            "finetune did not return a model",
            expected="a keras.Model, or None",
            received=repr(model),
        )
    return model


def _finite_latency(measure: Latency) -> Latency:
    """Return the measurement with a check that each result is finite."""

    def measured(model: keras.Model) -> float:
        return finite(measure(model), "latency")

    return measured
