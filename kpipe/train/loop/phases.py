"""Fine-tuning in phases: the head first, then more of the backbone, each with its own settings.

    phase := config, which layers train, how fast each of them, and on what: photos, or features of
             the frozen part
    folder/phase-1, folder/phase-2, ...: checkpoints of each phase, and its features/ if it has any

Phase p starts from the best weights of phase p - 1, and from the epoch of the data after those of
the earlier phases. If training is interrupted and called again, finished phases restore their
result and the interrupted one resumes after its last epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.train.argument_checks import refuse_out_of_range
from kpipe.train.loop import checkpoint
from kpipe.train.loop.fitting import FitResult, fit
from kpipe.train.loop.training_config import TrainingConfig
from kpipe.train.optimizers.layer_decay import LayerDecay
from kpipe.train.training_data import TrainingData
from kpipe.train.transfer.batch_norm_momentum import adapt_bn_momentum
from kpipe.train.transfer.feature_cache import FeatureConfig, split_frozen
from kpipe.train.transfer.feature_extraction import extract_features
from kpipe.train.transfer.unfreezing import TrainableLayers, unfreeze
from kpipe.wrong_kinds import names_wrong_kinds, names_wrong_kinds_of_fields

__all__ = ["Phase", "fit_phases"]

_Callbacks: TypeAlias = Callable[[int, TrainableLayers], Sequence[keras.callbacks.Callback]]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class Phase:
    """One phase of fine-tuning.

    Args:
        config: how to train.
        last: which layers train, as for `unfreeze`: 0 for the head alone, None for all.
        features: which features of the frozen part to compute once and to train on; None to train
            on photos.
        freeze_norm: keep BatchNormalization layers frozen.
        layer_decay: factor of the learning rate from a block to the one below it, in (0, 1].
        backbone_factor: factor of the learning rate of all blocks but the head, in (0, 1].

    Raises:
        TrainingError: `last` or a factor is out of range.

    Example:
        >>> from kpipe.train import FeatureConfig, Phase, TrainingConfig
        >>> head = Phase(TrainingConfig(10, learning_rate=3e-3), 0, FeatureConfig(views=3))
        >>> all_layers = Phase(TrainingConfig(6, schedule="cosine"), last=None)
    """

    config: TrainingConfig
    last: int | None = 0
    features: FeatureConfig | None = None
    freeze_norm: bool = False
    layer_decay: float = 1.0
    backbone_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.last is not None:
            refuse_out_of_range("last", self.last, 0)
        LayerDecay(self.layer_decay, self.backbone_factor)  # refuses factors out of range


@names_wrong_kinds
def fit_phases(
    model: keras.Model,
    data: TrainingData,
    phases: Sequence[Phase],
    *,
    folder: str | Path | None = None,
    callbacks: _Callbacks = lambda number, layers: (),
    progress: Callable[[int, int], None] | None = None,
) -> FitResult:
    """Train a softmax classifier in place, phase by phase, and restore the best epoch of all.

    A phase may make a model worse, for example with a high learning rate on few photos. The best
    epoch has the lowest "val_loss" of all phases, the later of two equal ones; without validation
    it is the last.

    Args:
        model: a functional model, such as one from `classifier`.
        data: its epochs are counted through all phases.
        phases: at least one.
        folder: of checkpoints and features; None for none, if no phase trains on features.
        callbacks: (number of the phase, from 1; its trainable layers) -> new Keras callbacks.
        progress: called as `progress(done, total)` with batches while features are computed.

    Returns:
        As `fit`, with epochs counted through all phases. The history has the number of the phase
        as "phase", and NaN for what a phase does not report but another does.

    Raises:
        TrainingError: no phases, features without a folder, or as for `fit`.
        OSError: a checkpoint or features could not be written; earlier ones are kept.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split, steps
        >>> from kpipe.train import FeatureConfig, Phase, TrainingConfig, TrainingData, fit_phases
        >>> photos = split(from_folder("photos"))
        >>> batches = dataset(photos, "train", image_size=32, batch_size=8)
        >>> data = TrainingData(lambda epoch: batches.repeat(), steps(photos, "train", 8))
        >>> model = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.Conv2D(4, 3, strides=2),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(3, activation="softmax"),
        ... ])
        >>> head = Phase(TrainingConfig(epochs=2), 0, FeatureConfig())
        >>> result = fit_phases(model, data, [head], folder="training")
        >>> result.history["phase"]
        [1.0, 1.0]
    """
    if not phases:
        raise TrainingError("there are no phases to train", expected="1 or more", received="0")
    smoothings = {phase.config.label_smoothing for phase in phases}
    if len(smoothings) > 1 and data.validation is not None:
        raise TrainingError(
            "the validation losses of these phases cannot be compared to find the best epoch",
            expected="the same label_smoothing in all phases",
            received=", ".join(str(phase.config.label_smoothing) for phase in phases),
        )
    if folder is None and any(phase.features for phase in phases):
        raise TrainingError("features need a folder", fix="pass a folder to fit_phases")
    results: list[FitResult] = []
    best, values, epochs = 0, _values(model), 0
    for number, phase in enumerate(phases, 1):
        phase_callbacks = list(
            callbacks(number, unfreeze(model, phase.last, freeze_norm=phase.freeze_norm))
        )
        if (phase.layer_decay, phase.backbone_factor) != (1.0, 1.0):
            phase_callbacks.insert(0, LayerDecay(phase.layer_decay, phase.backbone_factor))
        adapt_bn_momentum(model, data.steps_per_epoch)
        trained, phase_data = model, data.after(epochs)
        phase_folder = Path(folder) / f"phase-{number}" if folder is not None else None
        if phase.features is not None and phase_folder is not None:
            stem, trained = split_frozen(model)
            phase_data = phase.features.source or phase_data
            features = extract_features(
                stem,
                phase_data,
                phase.features,
                phase.features.folder or phase_folder / "features",
                progress=progress,
            )
            phase_data = features.training_data(phase_data)
        results.append(
            fit(trained, phase_data, phase.config, folder=phase_folder, callbacks=phase_callbacks)
        )
        epochs += phase.config.epochs
        if _least_loss(results[-1]) <= _least_loss(results[best]):
            best, values = number - 1, _values(model)
    checkpoint.restore(model.variables, values, "model")
    return _joined(results, best)


def _values(model: keras.Model) -> list[np.ndarray]:
    return [np.array(variable.numpy()) for variable in model.variables]


def _least_loss(result: FitResult) -> float:
    losses = result.history.get("val_loss")
    return losses[result.best_epoch] if losses else math.inf


def _joined(results: Sequence[FitResult], best: int) -> FitResult:
    """Join the results of the phases; `best` is the index of the phase with the best epoch."""
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
