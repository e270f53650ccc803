"""How photos are drawn, shuffled and changed in training, and at which epoch to begin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kpipe.class_indices import refuse_class_weights
from kpipe.data.augmentation.augmenter import Augmenter
from kpipe.data.augmentation.mixing import Mixer
from kpipe.data.balancing.sampling import Sampling
from kpipe.errors import DataError
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["TrainingOptions"]


@names_wrong_kinds_of_fields
@dataclass(frozen=True)
class TrainingOptions:
    """How photos are drawn, shuffled and changed in training, and at which epoch to begin.

    Args:
        seed: seed of every draw, in [-2**63, 2**63).
        augmenter: changes each photo; by default, photos are not augmented.
        first_epoch: number of epochs that are already done.
        sampling: which photos an epoch shows, and how often; by default, each photo once.
        mixer: mixes the photos of a batch and their labels, which become float32
            (batch, classes).
        class_weight: {class index: factor in the loss}. Batches then have a third item, Keras'
            sample weights; do not pass the weights to `fit` too.
        bootstrap: seed of a bootstrap sample, in [0, 2**63): of each class as many photos as it
            has, drawn with replacement, the same in all epochs. By default, all photos.

    Raises:
        DataError: if a seed, the epoch or a class weight is out of range.

    Example:
        >>> from kpipe.data import Augmenter, Sampling, TrainingOptions
        >>> options = TrainingOptions(
        ...     seed=7, augmenter=Augmenter(flip="horizontal"), sampling=Sampling("oversample")
        ... )
        >>> options.first_epoch
        0
    """

    seed: int = 0
    augmenter: Augmenter | None = None
    first_epoch: int = 0
    sampling: Sampling | None = None
    mixer: Mixer | None = None
    class_weight: Mapping[int, float] | None = None
    bootstrap: int | None = None

    def __post_init__(self) -> None:
        for name, low in (("seed", -(2**63)), ("first_epoch", 0), ("bootstrap", 0)):
            value = getattr(self, name)
            if (name, value) != ("bootstrap", None) and not low <= value < 2**63:
                raise DataError(
                    f"{name}={value!r} is out of range",
                    expected=f"an integer of at least {low} and below 2**63",
                )
        refuse_class_weights(self.class_weight, DataError)
