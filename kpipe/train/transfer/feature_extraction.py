"""Feature extraction in one pass over the photos; an interruption loses one view at most.

for each view, and for validation:
    photos -> stem -> features.npy, streamed; labels.npy, weights.npy, bounds.npy
    in a temporary folder -> renamed

Training runs that need the same features may share a folder, also at the same time: each writes its
own temporary folder, and all use the first one to be complete.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from functools import partial
from pathlib import Path

import keras
import numpy as np

from kpipe.errors import TrainingError
from kpipe.keras_graph import require_graph
from kpipe.resume_identity import claim
from kpipe.train.training_data import TrainingData
from kpipe.train.transfer.feature_cache import CachedFeatures, FeatureConfig, view_name
from kpipe.train.transfer.feature_writer import TEMPORARY, FeatureWriter, Progress
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["extract_features", "remove_unused_features", "weights_digest"]


@names_wrong_kinds
def extract_features(
    stem: keras.Model,
    data: TrainingData,
    config: FeatureConfig,
    folder: str | Path,
    *,
    progress: Progress | None = None,
) -> CachedFeatures:
    """Compute features of the first epochs of the training data and of the validation data.

    The stem runs in inference mode, without dropout or stochastic depth. If the folder already
    holds some of the views, only the missing ones are computed.

    Args:
        stem: from `split_frozen`.
        data: the photos.
        config: which features to compute.
        folder: of these features only; name it by everything that the data depends on.
        progress: called as `progress(done, total)` with batches.

    Returns:
        The features. Train the tail on their `training_data(data)`.

    Raises:
        TrainingError: the folder holds features of another stem, data without labels or with too
            few batches, features that are not finite, or a full disk.
        OSError: the folder cannot be written.

    Example:
        >>> import keras
        >>> from kpipe.data import dataset, from_folder, split, steps
        >>> from kpipe.train import FeatureConfig, TrainingData
        >>> from kpipe.train import extract_features, split_frozen, unfreeze
        >>> photos = split(from_folder("photos"))
        >>> batches = dataset(photos, "train", image_size=32, batch_size=8)
        >>> data = TrainingData(lambda epoch: batches.repeat(), steps(photos, "train", 8))
        >>> model = keras.Sequential([
        ...     keras.Input((32, 32, 3)),
        ...     keras.layers.Conv2D(4, 3, strides=2),
        ...     keras.layers.GlobalAveragePooling2D(),
        ...     keras.layers.Dense(3, activation="softmax"),
        ... ])
        >>> layers = unfreeze(model, last=0)
        >>> stem, tail = split_frozen(model)
        >>> features = extract_features(stem, data, FeatureConfig(), "features")
        >>> batch, labels = next(iter(features.training_data(data).batches(0)))
        >>> batch.shape
        TensorShape([8, 4])
    """
    if len(require_graph(stem, TrainingError).outputs) != 1:
        raise TrainingError(
            f"{stem.name!r} has {len(stem.outputs)} outputs",
            expected="the stem from split_frozen, with one output",
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    os.utime(folder)
    for leftover in folder.glob(f"*{TEMPORARY}"):
        if _unused(leftover, hours=1):
            shutil.rmtree(leftover, ignore_errors=True)
    validation, steps = data.validation, data.steps_per_epoch
    for name, batches in (("training", data.batches(0)), ("validation", validation)):
        if batches is not None and not isinstance(batches.element_spec, tuple):
            raise TrainingError(
                f"the {name} data has no labels to store with the features",
                expected="(images, labels) or (images, labels, weights)",
                received=str(batches.element_spec),
            )
    identity = _identity(stem, steps, config)
    claim(folder / "about.json", identity, "other features", error=TrainingError)
    validation_steps = max(int(validation.cardinality()), 0) if validation is not None else 0
    total = config.views * steps + validation_steps
    writer = FeatureWriter(folder, stem, config.dtype, total, progress)
    for number in range(config.views):
        if not writer.skips(view_name(number), steps):
            epoch = data.batches(number).take(steps)
            names = partial(data.batch_names, number) if data.batch_names is not None else None
            writer.write(view_name(number), epoch, steps, names)
    if validation is not None and not writer.skips("validation", validation_steps):
        writer.write("validation", validation, None)
    return CachedFeatures(folder, config)


@names_wrong_kinds
def remove_unused_features(folder: Path) -> None:
    """Remove features that no training run has used for two weeks.

    Args:
        folder: holds the folders passed to `extract_features`; it may be missing.

    Example:
        >>> from pathlib import Path
        >>> from kpipe.train import remove_unused_features
        >>> remove_unused_features(Path("features"))
    """
    for cached in folder.glob("*/"):
        if _unused(cached, hours=14 * 24):
            shutil.rmtree(cached, ignore_errors=True)


def _unused(folder: Path, hours: float) -> bool:
    """Return whether a folder and its content have not been changed for that time."""
    try:
        last = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
    except OSError:  # another training run has just finished or removed it
        return False
    return time.time() - last > 3600 * hours


@names_wrong_kinds
def weights_digest(model: keras.Model) -> str:
    """Return the SHA-256 of a model's weights.

    Example:
        >>> import keras
        >>> from kpipe.train import weights_digest
        >>> norm = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> weights_digest(norm)[:8]
        '046460eb'
    """
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def _identity(stem: keras.Model, steps: int, config: FeatureConfig) -> dict[str, str]:
    return {
        "weights of the frozen part": weights_digest(stem),
        "shape": str(tuple(stem.output.shape)),
        "steps_per_epoch": str(steps),
        "dtype": config.dtype,
    }
