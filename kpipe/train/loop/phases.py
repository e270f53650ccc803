"""A training in phases: the head first, then more of the backbone, each phase on its own terms.

    phase := plan, which layers train, on what: photos, or features of the frozen part
    folder/phase-1, folder/phase-2, ...: checkpoints of each; features/ in those that train on them

Phase p goes on with the best weights of phase p - 1 and with the epochs of the data after those
that the phases before it plan. Called again after a cut, finished phases restore their result, and
the one that was cut goes on after its last epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from kpipe.errors import TrainingError
from kpipe.train.loop import checkpoint
from kpipe.train.loop.fitting import FitResult, fit
from kpipe.train.loop.training_config import TrainingConfig
from kpipe.train.transfer.batch_norm_momentum import adapt_bn_momentum
from kpipe.train.transfer.feature_cache import FeaturePlan, split_frozen
from kpipe.train.transfer.feature_extraction import extract_features
from kpipe.train.transfer.unfreezing import Unfrozen, unfreeze

__all__ = ["Phase", "fit_phases"]

_Data = Callable[[int], tf.data.Dataset]
_Describe = Callable[[int, int], Sequence[str]]
_Callbacks = Callable[[int, Unfrozen], Sequence[keras.callbacks.Callback]]


@dataclass(frozen=True)
class Phase:
    """A part of a training.

    Args:
        plan: how to train.
        last: which layers train, as for `unfreeze`: 0 for the head alone, None for all.
        features: None to train on photos; else what of the frozen part is computed once, before
            the first epoch.
    """

    plan: TrainingConfig
    last: int | None = 0
    features: FeaturePlan | None = None


def fit_phases(
    model: keras.Model,
    data: _Data,
    phases: Sequence[Phase],
    *,
    steps_per_epoch: int,
    validation: tf.data.Dataset | None = None,
    folder: str | Path | None = None,
    callbacks: _Callbacks = lambda number, trains: (),
    batch_names: _Describe | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Trains a softmax classifier in place, phase after phase, and leaves the best of all epochs.

    A phase may leave a network worse than it found it, as too high a rate does on few photos: the
    best epoch is that of the lowest "val_loss" in whichever phase, the later of two equal ones;
    without validation it is the last.

    Args:
        model: functional, made by `classifier` or alike.
        data: as for `fit`; its epochs are counted through all phases.
        phases: at least one.
        steps_per_epoch: batches in an epoch.
        validation: a finite dataset, or None.
        folder: where checkpoints and features go; needed for features.
        callbacks: called as each phase begins with its number, the first being 1, and with what
            trains in it; returns new callbacks for it.
        batch_names: as for `fit`, its epochs counted through all phases.
        progress: of the features, called as `progress(done, total)`, in batches.

    Returns:
        As of `fit`, epochs counted through all phases. The history has the number of the phase as
        "phase", and nan where a phase does not report what another one does.

    Raises:
        TrainingError: no phases, features without a folder, or as for `fit`.
        OSError: a checkpoint or features could not be written; what was there is kept.
    """
    if not phases:
        raise TrainingError("a training needs phases", expected="1 or more", received="none")
    if len({phase.plan.label_smoothing for phase in phases}) > 1 and validation is not None:
        raise TrainingError(
            "the losses of these phases cannot be compared, so that the best epoch is not known",
            expected="the same label_smoothing in all phases",
            received=", ".join(str(phase.plan.label_smoothing) for phase in phases),
        )
    if folder is None and any(phase.features for phase in phases):
        raise TrainingError("features need a folder to be kept in", fix="give fit_phases a folder")
    results: list[FitResult] = []
    best, values, begun = 0, _values(model), 0
    for number, phase in enumerate(phases, 1):
        watching = callbacks(number, unfreeze(model, phase.last))
        adapt_bn_momentum(model, steps_per_epoch)
        trained, batches, held = model, _after(begun, data), validation
        names = _named_after(begun, batch_names) if batch_names is not None else None
        place = Path(folder) / f"phase-{number}" if folder is not None else None
        if phase.features is not None and place is not None:
            stem, trained = split_frozen(model)
            features = extract_features(
                stem,
                batches,
                validation,
                steps_per_epoch=steps_per_epoch,
                plan=phase.features,
                folder=phase.features.folder or place / "features",
                batch_names=names,
                progress=progress,
            )
            batches = features.training
            held = features.validation() if validation is not None else None
            names = features.named(names) if names is not None else None
        results.append(
            fit(
                trained,
                batches,
                steps_per_epoch=steps_per_epoch,
                plan=phase.plan,
                validation=held,
                folder=place,
                callbacks=watching,
                batch_names=names,
            )
        )
        begun += phase.plan.epochs
        if _least_loss(results[-1]) <= _least_loss(results[best]):
            best, values = number - 1, _values(model)
    checkpoint.restore(model.variables, values, "model")
    return _joined(results, best)


def _after(begun: int, data: _Data) -> _Data:
    return lambda first_epoch: data(begun + first_epoch)


def _named_after(begun: int, batch_names: _Describe) -> _Describe:
    return lambda epoch, batch: batch_names(begun + epoch, batch)


def _values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in model.variables]


def _least_loss(result: FitResult) -> float:
    losses = result.history.get("val_loss")
    return losses[result.best_epoch] if losses else math.inf


def _joined(results: Sequence[FitResult], best: int) -> FitResult:
    """The phases as one training, the best epoch in one of them."""
    lengths = [len(next(iter(result.history.values()))) for result in results]
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    names = dict.fromkeys(name for result in results for name in result.history)
    history = {
        name: [
            value
            for result, length in zip(results, lengths, strict=True)
            for value in result.history.get(name, [math.nan] * length)
        ]
        for name in names
    }
    history["phase"] = [float(n) for n, length in enumerate(lengths, 1) for _ in range(length)]
    pairs = list(zip(starts, results, strict=True))
    switches = [start + r.switched_at for start, r in pairs if r.switched_at is not None]
    return FitResult(
        history=history,
        best_epoch=starts[best] + results[best].best_epoch,
        switched_at=min(switches, default=None),
        resumed_at=sum(result.resumed_at for result in results),
    )
