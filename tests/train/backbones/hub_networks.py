"""Tiny networks of each convolutional family of KerasHub, with random weights, saved as presets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import pytest

from tests.prune.masking import randomize

keras_hub: Any = pytest.importorskip("keras_hub")

SIZE = 64
SCALE = [1 / 255 / deviation for deviation in (0.229, 0.224, 0.225)]
OFFSET = [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225]


def _mobilenet() -> keras.Model:
    """Return a MobileNetV3: padded grouped convolutions, squeeze-and-excite, raw operations."""
    return keras_hub.models.MobileNetBackbone(
        stackwise_expansion=[[16, 24], [32]],
        stackwise_num_blocks=[2, 1],
        stackwise_num_filters=[[16, 16], [24]],
        stackwise_kernel_size=[[3, 3], [5]],
        stackwise_num_strides=[[2, 1], [2]],
        stackwise_se_ratio=[[None, 0.25], [0.25]],
        stackwise_activation=[["relu", "relu"], ["hard_swish"]],
        stackwise_padding=[[1, 1], [2]],
        output_num_filters=64,
        input_num_filters=16,
        depthwise_filters=16,
        depthwise_stride=2,
        depthwise_residual=False,
        last_layer_filter=48,
        squeeze_and_excite=0.5,
    )


def _efficientnet(*kinds: str) -> keras.Model:
    count = len(kinds)
    return keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * count,
        stackwise_depth_coefficients=[1.0] * count,
        stackwise_kernel_sizes=[3] * count,
        stackwise_num_repeats=[2] * count,
        stackwise_input_filters=[8] * count,
        stackwise_output_filters=[8] * count,
        stackwise_expansion_ratios=[4] * count,
        stackwise_squeeze_and_excite_ratios=[0.25] * count,
        stackwise_strides=[1, 2, 2][:count],
        stackwise_block_types=list(kinds),
        stackwise_force_input_filters=[0] * count,
        stackwise_nores_option=[False] * count,
    )


def _resnet(block: str, *, deep_stem: bool = False, pre_activation: bool = False) -> keras.Model:
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[8, 8, 64] if deep_stem else [64],
        input_conv_kernel_sizes=[3, 3, 3] if deep_stem else [7],
        stackwise_num_filters=[64, 16],
        stackwise_num_blocks=[2, 2],
        stackwise_num_strides=[1, 2],
        block_type=block,
        use_pre_activation=pre_activation,
    )


def _cspnet(block: str, stage: str, **options: Any) -> keras.Model:
    given = {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 1,
        "stem_padding": "same",
        "stackwise_depth": [1, 2],
        "stackwise_strides": [2, 2],
        "stackwise_num_filters": [16, 32],
    }
    return keras_hub.models.CSPNetBackbone(
        **{**given, **options}, block_type=block, stage_type=stage
    )


def _hgnetv2() -> keras.Model:
    """Return one whose blocks are heavy, heavy and light, all with a learned scale and offset."""
    return keras_hub.models.HGNetV2Backbone(
        depths=[1, 1, 2],
        embedding_size=16,
        hidden_sizes=[16, 24, 32],
        stem_channels=[3, 8, 16],
        hidden_act="relu",
        use_learnable_affine_block=True,
        stackwise_stage_filters=[
            (16, 16, 16, 1, 2, 3),
            (16, 16, 24, 1, 2, 3),
            (24, 16, 32, 2, 2, 5),
        ],
        apply_downsample=[False, True, True],
        use_lightweight_conv_block=[False, False, True],
    )


NETWORKS: Mapping[str, Callable[[], keras.Model]] = {
    "mobilenet": _mobilenet,
    "hgnetv2": _hgnetv2,
    "efficientnet": lambda: _efficientnet("v1", "unfused"),
    "efficientnet v2": lambda: _efficientnet("fused", "unfused", "cba"),
    "resnet": lambda: _resnet("basic_block"),
    "resnet v2": lambda: _resnet("bottleneck_block", pre_activation=True),
    "resnet vd": lambda: _resnet("bottleneck_block_vd", deep_stem=True),
    "densenet": lambda: keras_hub.models.DenseNetBackbone(
        stackwise_num_repeats=[2, 2, 2], growth_rate=8
    ),
    "vgg": lambda: keras_hub.models.VGGBackbone(
        stackwise_num_repeats=[1, 1, 2], stackwise_num_filters=[8, 8, 16]
    ),
    "xception": lambda: keras_hub.models.XceptionBackbone(
        stackwise_conv_filters=[[16, 16], [32, 32], [32, 32, 32]],
        stackwise_pooling=[True, True, False],
    ),
    "darknet": lambda: _cspnet("dark_block", "dark", bottle_ratio=[0.5]),
    "csp darknet": lambda: _cspnet(
        "dark_block",
        "csp",
        bottle_ratio=(0.5, 1.0),
        block_ratio=(1.0, 0.5),
        expand_ratio=(2.0, 1.0),
        down_growth=True,
    ),
    "csp resnext": lambda: _cspnet(
        "bottleneck_block",
        "csp",
        groups=4,
        block_ratio=[0.5],
        cross_linear=True,
        stem_kernel_size=7,
        stem_strides=4,
        stem_padding="valid",
        stem_pooling="max",
        stackwise_strides=[1, 2],
    ),
}


def save(network: keras.Model, folder: Path) -> Any:
    """Write a preset with random weights, and return its image converter."""
    randomize(network)
    network.save_to_preset(str(folder))
    kind = type(network).__name__.replace("Backbone", "ImageConverter")
    made = getattr(keras_hub.layers, kind)(image_size=(32, 32), scale=SCALE, offset=OFFSET)
    made.save_to_preset(str(folder))
    made.image_size = None
    return made
