"""EfficientNet-Lite0, -Lite1 and -Lite2: classifiers for phones that `keras.applications` lacks.

    stem 3x3/2, 32 -> blocks -> top 1x1, 1280 -> pool -> dense
    block  := [expand 1x1] -> depthwise kxk/s -> project 1x1 [+ input, where shapes agree]
    stage  :   1    2    3    4    5    6    7
    output :  16   24   40   80  112  192  320   channels of Lite0
    kernel :   3    3    5    3    5    5    3
    stride :   1    2    2    2    1    2    1   of the first block
    blocks :   1    2    2    3    3    4    1   of Lite0

They are EfficientNet-B0 to -B2 (Tan and Le 2019, arXiv 1905.11946) without squeeze-and-excite and
with ReLU6, so that they quantize well. Lite1 is deeper, and Lite2 is deeper and wider, but for the
stem, the top and the depth of the first and the last stage. The published weights were trained with
TensorFlow and "same" padding.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras

from kpipe.errors import WeightsError
from kpipe.train.backbones.efficientnet_lite_weights import assign_tensors
from kpipe.train.backbones.torch_file import read_torch_file
from kpipe.train.backbones.weights_files import efficientnet_lite_file
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2"]

# (output channels, kernel, stride of the first block, blocks, expansion)
_STAGES = (
    (16, 3, 1, 1, 1),
    (24, 3, 2, 2, 6),
    (40, 5, 2, 2, 6),
    (80, 3, 2, 3, 6),
    (112, 5, 1, 3, 6),
    (192, 5, 2, 4, 6),
    (320, 3, 1, 1, 6),
)


@dataclass(frozen=True)
class _Variant:
    """How one network scales Lite0.

    Args:
        number: of its name.
        width: factor of the channels, rounded to multiples of 8.
        depth: factor of the blocks of a stage, rounded up.
        dropout: before the dense layer of the top.
    """

    number: int
    width: float
    depth: float
    dropout: float

    @property
    def title(self) -> str:
        return f"EfficientNetLite{self.number}"

    def blocks(self) -> Iterator[tuple[str, int, int, int, int]]:
        """Yield name, output channels, kernel, stride and expansion of each block."""
        for stage, (filters, kernel, stride, count, expansion) in enumerate(_STAGES, 1):
            if 1 < stage < len(_STAGES):
                count = math.ceil(count * self.depth)
            for index in range(count):
                name = f"block{stage}{'abcde'[index]}"
                yield name, self._scaled(filters), kernel, 1 if index else stride, expansion

    def _scaled(self, filters: int) -> int:
        wide = filters * self.width
        rounded = int(wide + 4) // 8 * 8
        return rounded if rounded >= 0.9 * wide else rounded + 8


_LITE0 = _Variant(0, 1.0, 1.0, 0.2)
_LITE1 = _Variant(1, 1.0, 1.1, 0.2)
_LITE2 = _Variant(2, 1.1, 1.2, 0.3)


@names_wrong_kinds
def EfficientNetLite0(
    include_top: bool = True,
    weights: str | Path | None = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] = (224, 224, 3),
    pooling: str | None = None,
    classes: int = 1000,
    name: str = "efficientnet_lite0",
) -> keras.Model:
    """Build EfficientNet-Lite0 as a flat functional model that preprocesses its input.

    Args:
        include_top: whether to end in global pooling and softmax probabilities `(batch, classes)`.
        weights: "imagenet", the path of a Keras weights file, or None for random weights.
        input_tensor: a tensor to build on, in place of a new input of `input_shape`.
        input_shape: `(height, width, 3)`, RGB in [0, 255]. The published weights were trained at
            224 pixels; any size works.
        pooling: without the top, "avg" or "max" to end in `(batch, 1280)`.
        classes: the number of classes of the top; 1000 with "imagenet".
        name: the name of the model.

    Returns:
        A model whose first layer computes `(pixel - 127) / 128`.

    Raises:
        WeightsError: the weights are unavailable or do not fit.

    Example:
        >>> from kpipe.train import EfficientNetLite0
        >>> base = EfficientNetLite0(include_top=False, weights=None, input_shape=(64, 64, 3))
        >>> base.output_shape
        (None, 2, 2, 1280)
    """
    return _build(_LITE0, include_top, weights, input_tensor, input_shape, pooling, classes, name)


@names_wrong_kinds
def EfficientNetLite1(
    include_top: bool = True,
    weights: str | Path | None = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] = (240, 240, 3),
    pooling: str | None = None,
    classes: int = 1000,
    name: str = "efficientnet_lite1",
) -> keras.Model:
    """Build EfficientNet-Lite1, five blocks deeper than Lite0.

    Arguments and errors are those of `EfficientNetLite0`. The published weights were trained at
    240 pixels.

    Example:
        >>> from kpipe.train import EfficientNetLite1
        >>> base = EfficientNetLite1(include_top=False, weights=None, input_shape=(64, 64, 3))
        >>> base.count_params()
        4189344
    """
    return _build(_LITE1, include_top, weights, input_tensor, input_shape, pooling, classes, name)


@names_wrong_kinds
def EfficientNetLite2(
    include_top: bool = True,
    weights: str | Path | None = "imagenet",
    input_tensor: keras.KerasTensor | None = None,
    input_shape: tuple[int | None, int | None, int] = (260, 260, 3),
    pooling: str | None = None,
    classes: int = 1000,
    name: str = "efficientnet_lite2",
) -> keras.Model:
    """Build EfficientNet-Lite2, as deep as Lite1 and a tenth wider.

    Arguments and errors are those of `EfficientNetLite0`. The published weights were trained at
    260 pixels.

    Example:
        >>> from kpipe.train import EfficientNetLite2
        >>> base = EfficientNetLite2(include_top=False, weights=None, input_shape=(64, 64, 3))
        >>> base.count_params()
        4869168
    """
    return _build(_LITE2, include_top, weights, input_tensor, input_shape, pooling, classes, name)


def _build(
    variant: _Variant,
    include_top: bool,
    weights: str | Path | None,
    input_tensor: keras.KerasTensor | None,
    input_shape: tuple[int | None, int | None, int],
    pooling: str | None,
    classes: int,
    name: str,
) -> keras.Model:
    if weights == "imagenet" and include_top and classes != 1000:
        raise WeightsError(
            "ImageNet weights with a top have 1000 classes",
            expected="classes=1000",
            received=f"classes={classes}",
            fix="use include_top=False and `kpipe.train.classifier`, or weights=None",
        )
    if pooling not in ("avg", "max", None):
        raise WeightsError(
            "unknown pooling", expected='"avg", "max" or None', received=repr(pooling)
        )
    if min((side for side in input_shape if side is not None), default=1) < 1:
        raise WeightsError(
            "input_shape is out of range",
            expected="(height, width, 3), each 1 or more, or None for any size",
            received=str(input_shape),
        )
    if weights not in ("imagenet", None) and not os.path.isfile(weights):
        raise WeightsError(
            f"no weights file at {weights}",
            expected="a .weights.h5 or .h5 file",
            fix='check the path, or use weights="imagenet"',
        )
    inputs = keras.Input(input_shape) if input_tensor is None else input_tensor
    x = keras.layers.Rescaling(1 / 128, offset=-127 / 128, name="rescaling")(inputs)
    x = _convolution(x, 32, 3, 2, "stem_conv", "stem_bn")
    x = keras.layers.ReLU(6.0, name="stem_activation")(x)
    for block, filters, kernel, stride, expansion in variant.blocks():
        x = _block(x, filters, kernel, stride, expansion, block)
    x = _convolution(x, 1280, 1, 1, "top_conv", "top_bn")
    x = keras.layers.ReLU(6.0, name="top_activation")(x)
    if include_top:
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
        x = keras.layers.Dropout(variant.dropout, name="top_dropout")(x)
        x = keras.layers.Dense(classes, activation="softmax", name="predictions")(x)
    elif pooling == "avg":
        x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    elif pooling == "max":
        x = keras.layers.GlobalMaxPooling2D(name="max_pool")(x)
    source = inputs if input_tensor is None else keras.utils.get_source_inputs(input_tensor)[0]
    model = keras.Model(source, x, name=name)
    if weights == "imagenet":
        assign_tensors(
            model,
            [block for block, *_ in variant.blocks()],
            read_torch_file(efficientnet_lite_file(variant.number)),
        )
    elif weights is not None:
        _load(model, variant, Path(weights))
    return model


def _convolution(
    x: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str, norm: str
) -> keras.KerasTensor:
    x = keras.layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=name)(x)
    return keras.layers.BatchNormalization(epsilon=1e-3, name=norm)(x)


def _block(
    inputs: keras.KerasTensor, filters: int, kernel: int, stride: int, expansion: int, name: str
) -> keras.KerasTensor:
    """Add an inverted residual block: expand, filter each channel, project."""
    channels = inputs.shape[-1]
    x = inputs
    if expansion > 1:
        x = _convolution(x, channels * expansion, 1, 1, f"{name}_expand_conv", f"{name}_expand_bn")
        x = keras.layers.ReLU(6.0, name=f"{name}_expand_activation")(x)
    x = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, name=f"{name}_dwconv"
    )(x)
    x = keras.layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_activation")(x)
    x = _convolution(x, filters, 1, 1, f"{name}_project_conv", f"{name}_project_bn")
    if stride == 1 and filters == channels:
        x = keras.layers.Add(name=f"{name}_add")([x, inputs])
    return x


def _load(model: keras.Model, variant: _Variant, path: Path) -> None:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Skipping")  # these weights would stay random
            model.load_weights(path)
    except (OSError, ValueError, UserWarning) as error:
        raise WeightsError(
            f"the weights in {path} do not fit {variant.title}", received=str(error)
        ) from error
