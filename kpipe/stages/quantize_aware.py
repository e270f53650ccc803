"""QuantizeAware: TFMOT trains the network with the rounding of int8."""

from __future__ import annotations

from typing import Annotated, ClassVar

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.stages.fine_tune import Rate
from kpipe.stages.shared.model_folder import is_saved
from kpipe.stages.shared.tfmot import NEEDS, PACKAGES, begin_training, leave_model, train_by_tfmot

__all__ = ["QuantizeAware"]


@stage
class QuantizeAware(Stage):
    """Train with the rounding of int8, by TFMOT, so that the int8 file loses less.

    All layers train, but for normalizations that were frozen.

    Args:
        epochs: of training.
        learning_rate: of the training, at its beginning; it falls along a cosine.
        batch_size: photos in a step.
    """

    # 2: normalizations that were frozen stay so.
    version: ClassVar = 2
    needs: ClassVar = NEEDS
    gives: ClassVar = ("model",)
    publishes: ClassVar = ("model.keras",)
    packages: ClassVar = PACKAGES

    epochs: Annotated[int, Between(1)] = 2
    learning_rate: Rate = 1e-5
    batch_size: Annotated[int, Between(1)] = 32

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        from kpipe.sparsity import train_quantized

        model, photos = begin_training(self, context)
        aware = train_by_tfmot(self, context, train_quantized, model, photos)
        leave_model(aware, context, "int8-aware")
