"""QuantizeAware: quantization-aware training with TFMOT."""

from __future__ import annotations

from typing import ClassVar

from kpipe.core.stage import Context, stage
from kpipe.stages.shared.field_types import LearningRate, PositiveInt
from kpipe.stages.shared.model_folder import is_saved
from kpipe.stages.shared.tfmot_stage import TfmotStage

__all__ = ["QuantizeAware"]


@stage
class QuantizeAware(TfmotStage):
    """Train with emulated int8 rounding, so that the int8 file loses less accuracy.

    All layers train except normalizations that were frozen.

    Args:
        epochs: number of epochs.
        learning_rate: initial learning rate, which falls along a cosine.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import QuantizeAware
        >>> QuantizeAware(epochs=3)
        QuantizeAware(epochs=3, learning_rate=1e-05, batch_size=32)
    """

    # 2: normalizations that were frozen stay frozen.
    version: ClassVar = 2

    epochs: PositiveInt = 2
    learning_rate: LearningRate = 1e-5
    batch_size: PositiveInt = 32

    def run(self, context: Context) -> None:
        if is_saved(context.folder):
            return
        import keras

        from kpipe.prune import plan, remove_filters
        from kpipe.sparsity import train_quantized

        model, photos = self.load(context)
        if any(isinstance(layer, keras.Model) for layer in model.layers):
            # TFMOT takes no nested models, which ConvNeXt has. This opens them.
            model = remove_filters(model, plan(model, {}))
        trained = self.train(context, train_quantized, model, photos)
        self.save(trained, context, "int8-aware")
