"""Where the families may be cut: at the blocks that their authors named."""

from __future__ import annotations

import itertools

import keras
import pytest

from kpipe.errors import TrainingError
from kpipe.train import backbone, classifier, find_blocks


def starts(model: keras.Model) -> list[str]:
    """The first layer with weights of each block."""
    return [next(layer.name for layer in b.layers if layer.weights) for b in find_blocks(model)]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("MobileNet", {"alpha": 0.25}, ["conv_dw_12", "conv_dw_13"]),
        ("MobileNetV2", {"alpha": 0.35}, ["block_15_expand", "block_16_expand", "Conv_1"]),
        ("MobileNetV3Small", {}, ["expanded_conv_9_expand", "expanded_conv_10_expand", "conv_1"]),
        ("EfficientNetB0", {}, ["block6d_expand_conv", "block7a_expand_conv", "top_conv"]),
        ("EfficientNetLite0", {}, ["block6d_expand_conv", "block7a_expand_conv", "top_conv"]),
        ("VGG16", {}, ["block5_conv1", "block5_conv2", "block5_conv3"]),
        ("ResNet50V2", {}, ["conv5_block2_preact_bn", "conv5_block3_preact_bn"]),
    ],
)
def test_blocks_are_those_of_the_authors(
    name: str, options: dict[str, float], expected: list[str]
) -> None:
    model = classifier(backbone(name, image_size=32, weights=None, **options), 3)
    assert starts(model)[-len(expected) - 1 :] == [*expected, "head_logits"]


def test_every_layer_is_in_one_block_and_the_counts_add_up() -> None:
    model = classifier(backbone("MobileNetV2", image_size=32, weights=None, alpha=0.35), 3)
    blocks = find_blocks(model)
    assert [layer for block in blocks for layer in block.layers] == model.layers
    for block, above in itertools.pairwise(blocks):
        assert block.last == above.last + len(block.layers)
    assert blocks[-1].last == 0


def test_a_subclassed_model_is_refused() -> None:
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(TrainingError, match="no graph of layers"):
        find_blocks(Own())
