"""The table of rules speaks of layers that exist, and its activations are truly channelwise."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import PruneError
from kpipe.prune import kind_of, register
from kpipe.prune.channel_rules import CHANNEL_RULES
from kpipe.prune.filter_rules import FILTER_RULES
from kpipe.prune.rules import CHANNELWISE_ACTIVATIONS
from tests.prune import nets


@pytest.mark.parametrize("kind", sorted(k for k in CHANNEL_RULES | FILTER_RULES if "layers." in k))
def test_layer_kinds_are_keras_layers(kind: str) -> None:
    assert kind_of(getattr(keras.layers, kind.removeprefix("layers."))) == kind


def test_operation_kinds_are_what_keras_operations_are() -> None:
    x = nets.image()
    made = [
        x + x,
        x - x,
        x * 2,
        x / 2,
        abs(x),
        -x,
        keras.ops.maximum(x, 0),
        keras.ops.minimum(x, 0),
        keras.ops.reshape(x, (-1, 3)),
        keras.ops.concatenate([x, x]),
        keras.ops.mean(x, 1),
        keras.ops.sum(x, 1),
        keras.ops.max(x, 1),
        keras.ops.min(x, 1),
        keras.ops.sqrt(x),
        keras.ops.square(x),
        keras.ops.exp(x),
        keras.ops.clip(x, 0, 1),
        keras.ops.divide(x, 2),
        keras.ops.max_pool(x, 2),
        keras.ops.average_pool(x, 2),
        keras.ops.softmax(x),
    ]
    names = "relu relu6 leaky_relu elu selu celu gelu silu hard_silu sigmoid hard_sigmoid"
    names += " log_sigmoid softplus softsign squareplus tanh hard_tanh"
    made += [getattr(keras.ops, name)(x) for name in names.split()]
    kinds = {kind_of(tensor._keras_history.operation) for tensor in made}
    assert {kind for kind in CHANNEL_RULES if kind.startswith("ops.")} == kinds


@pytest.mark.parametrize("name", sorted(CHANNELWISE_ACTIVATIONS))
def test_a_channelwise_activation_treats_each_channel_alone(name: str) -> None:
    activation = keras.activations.get(name)
    image = np.random.default_rng(0).normal(0, 3, (1, 4, 4, 3)).astype("float32")
    alone = image * np.array([1, 0, 0], "float32")
    whole, apart = (np.asarray(activation(keras.ops.convert_to_tensor(x))) for x in (image, alone))
    np.testing.assert_array_equal(whole[..., 0], apart[..., 0])


def test_what_is_registered_must_be_a_rule() -> None:
    with pytest.raises(PruneError, match="not a rule"):
        register("layers.Conv2D", lambda site: site)  # type: ignore[arg-type]
