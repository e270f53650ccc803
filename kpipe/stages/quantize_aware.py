"""QuantizeAware: quantization-aware training with TFMOT."""

from __future__ import annotations

from typing import ClassVar

from kpipe.core.stage import Context, stage
from kpipe.stages.compression.teachers import TeacherChoice
from kpipe.stages.compression.tfmot_stage import TfmotStage
from kpipe.stages.shared.field_types import LearningRate, LossWeight, PositiveInt
from kpipe.stages.shared.model_folder import is_saved

__all__ = ["QuantizeAware"]


@stage
class QuantizeAware(TfmotStage):
    """Train with emulated int8 rounding, so that the int8 file loses less accuracy.

    All layers train except normalizations that were frozen.

    Args:
        epochs: number of epochs.
        teacher: whose predictions it learns beside the labels: "model" for the network before this
            training, "ensemble", "auto" for the one with the lower cross-entropy on validation, or
            None.
        soft_target_weight: weight of these predictions in the loss, 0 or more, relative to the
            labels.
        learning_rate: initial learning rate, which falls along a cosine.
        batch_size: photos in a training step.

    Example:
        >>> from kpipe.stages import QuantizeAware
        >>> QuantizeAware(epochs=3, teacher="ensemble").validation_errors()
        []
    """

    # 2: normalizations that were frozen stay frozen.
    # 3: learns from a teacher
    version: ClassVar = 3

    epochs: PositiveInt = 2
    teacher: TeacherChoice = "auto"
    soft_target_weight: LossWeight = 1.0
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
        trained = self.train(context, train_quantized, model, self.taught(context, photos))
        self.save(trained, context, "int8-aware")
