"""How good a model is on the validation split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kpipe.stages.photos.photo_dataset import PhotoDataset

if TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = ["Validation"]


@dataclass(frozen=True)
class Validation:
    """The accuracy and the loss of a model on the validation photos."""

    photos: PhotoDataset

    def correct(self, model: keras.Model) -> np.ndarray:
        """Return whether each photo is predicted correctly, bool (photos,)."""
        return self._predict(model).argmax(axis=1) == self._labels

    def accuracy(self, model: keras.Model) -> float:
        """Return the accuracy, in [0, 1]."""
        return float(self.correct(model).mean())

    def loss(self, model: keras.Model) -> float:
        """Return the mean cross-entropy."""
        import keras
        import numpy as np

        predictions = self._predict(model)
        losses = keras.losses.sparse_categorical_crossentropy(self._labels, predictions)
        return float(np.mean(losses))

    @property
    def _labels(self) -> np.ndarray:
        return self.photos.manifest.labels("validation")

    def _predict(self, model: keras.Model) -> np.ndarray:
        return model.predict(self.photos.evaluation_dataset("validation"), verbose=0)
