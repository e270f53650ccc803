"""A plan adds everything joined with a request, or refuses it and names every offender."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import LayerChange, Rule, plan, rank, register_rule, remove_filters, same_channels
from tests.prune import nets
from tests.prune.masking import randomize, worst_difference


def test_a_residual_stage_is_one_group() -> None:
    model = nets.residual()
    made = plan(model, {"b_2": [1, 6]})
    stays = [0, 2, 3, 4, 5, 7]
    stage = {"stem", "a_pre", "a_pre_relu", "a_2", "a_add", "b_pre", "b_pre_relu", "b_2", "b_add"}
    stage |= {"c_short", "c_1", "c_1_bn", "c_1_relu", "c_add", "post", "pool", "dropout"}
    assert {name: kept.tolist() for name, kept in made.kept.items()} == dict.fromkeys(stage, stays)
    groups = {name: set(r.group.members) for name, r in rank(model).items()}
    assert groups == {"stem": {"stem", "a_2", "b_2", "c_1"}, "a_1": {"a_1"}, "b_1": {"b_1"}}


def test_a_depthwise_convolution_follows_its_input() -> None:
    made = plan(nets.lite(), {"b_expand": [0, 47]})
    names = {"expand", "expand_bn", "expand_relu", "pad", "dw", "dw_bn", "dw_relu"}
    assert set(made.kept) == {f"b_{name}" for name in names}
    assert made.kept["b_dw"].tolist() == list(range(1, 47))


def test_concatenation_shifts_and_flatten_repeats() -> None:
    made = plan(nets.NETS["concatenated"][0](), {"a": [0], "b": [3]})
    assert made.kept["b_cat"].tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    made = plan(nets.NETS["flattened"][0](), {"first": [1]})
    assert made.kept["flatten"].tolist() == [i for i in range(24) if i % 6 != 1]


def test_groups_of_a_grouped_convolution_stay_equally_wide() -> None:
    made = plan(nets.NETS["grouped"][0](), {"grouped": [1]})
    assert made.kept["grouped"].tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    assert made.kept["one_each"].tolist() == [c for c in range(24) if (c // 2) % 3 != 1]


def test_what_must_stay_is_named_with_its_reason() -> None:
    protected = plan(nets.NETS["layer normalized"][0](), {}).protected
    assert "LayerNormalization" in protected["norm"]
    assert "'norm'" in protected["first"]
    assert protected["predictions"] == "a model output"
    assert "'predictions'" in protected["logits"]
    protected = plan(nets.lite(), {}, ignored_layers=["stem"]).protected
    assert protected["stem"] == "listed in ignored_layers"


def test_every_offender_is_named() -> None:
    model = nets.lite()
    request = {"steem": [0], "stem": [8], "logits": [1], "b_add": [0], "head": ["x"]}
    with pytest.raises(PruneError) as caught:
        plan(model, request, ignored_layers=["c_add"])
    text = str(caught.value)
    for part in (
        "'steem' (did you mean 'stem'?)",
        "not [8]",
        "'logits' are protected",
        "'b_add' are protected",
        "'head' are not a list of integers",
    ):
        assert part in text


def test_a_layer_is_never_emptied() -> None:
    with pytest.raises(PruneError) as caught:
        plan(nets.residual(), {"a_1": range(6), "b_1": range(5)})
    assert "'a_1', 'a_1_bn'" in str(caught.value) and "b_1" not in str(caught.value)


def test_an_unknown_protected_name_is_refused() -> None:
    with pytest.raises(PruneError, match="'steem', 'hed'"):
        plan(nets.lite(), {}, ignored_layers=["steem", "hed"])


@keras.saving.register_keras_serializable("kpipe_tests")
class Scale(layers.Layer):
    """One number per channel."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x * self.gamma


@keras.saving.register_keras_serializable("kpipe_tests")
class Stranger(Scale):
    """A layer without a rule."""


@keras.saving.register_keras_serializable("kpipe_tests")
class WiderConv(layers.Conv2D):
    """A subclass of a known layer: another kind, so it is protected too."""


def _with(layer: layers.Layer) -> keras.Model:
    inputs = nets.image()
    x = nets.conv(inputs, 6, "first")
    return nets.classifier(inputs, nets.conv(layer(x), 5, "last"))


@pytest.mark.filterwarnings("ignore:no rule counts:UserWarning")
def test_an_unknown_layer_is_protected_on_both_sides_and_carried_over() -> None:
    for layer in (Stranger(name="odd"), WiderConv(6, 3, name="odd")):
        model = randomize(_with(layer))
        made = plan(model, {"last": [0]})
        assert type(layer).__name__ in made.protected["odd"]
        assert "'odd'" in made.protected["first"]
        with pytest.raises(PruneError, match="protected"):
            plan(model, {"first": [0]})
        image = np.ones((1, 8, 8, 3), "float32")
        assert worst_difference(model, remove_filters(model, made), made.kept, image) < 1e-4


def test_a_registered_rule_makes_a_custom_layer_removable() -> None:
    def prune(layer: Any, inputs: Any, output: Any) -> LayerChange:
        return LayerChange({}, {"gamma": {0: output}})

    register_rule(Scale, Rule(same_channels, prune))
    model = randomize(_with(Scale(name="own")))
    made = plan(model, {"first": [0, 3]})
    assert made.kept["own"].tolist() == [1, 2, 4, 5]
    image = np.ones((1, 8, 8, 3), "float32")
    assert worst_difference(model, remove_filters(model, made), made.kept, image) < 1e-4


def test_weights_that_a_rule_does_not_know_protect_the_layer() -> None:
    model = nets.lite()
    model.get_layer("head").enable_lora(2)
    reason = plan(model, {}).protected["head"]
    assert reason == "it has LoRA weights; merge them into its kernel first"


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own save
def test_saved_weights_have_lora_merged(tmp_path: Path) -> None:
    tuned, plain = nets.lite(), nets.lite()
    tuned.get_layer("head").enable_lora(2)
    randomize(tuned).save_weights(tmp_path / "merged.weights.h5")
    plain.load_weights(tmp_path / "merged.weights.h5")
    image = np.ones((1, 8, 8, 3), "float32")
    np.testing.assert_allclose(plain(image), tuned(image), rtol=1e-4, atol=1e-6)
    assert plan(plain, {"head": [0]}).kept["head"].size == 31


def test_a_quantized_layer_is_protected_and_said_to_be_quantized() -> None:
    model = nets.lite()
    model.get_layer("logits").quantize("int8")
    protected = plan(model, {}).protected
    assert "it is quantized" in protected["head"]  # what it reads stays, too


class Subclassed(keras.Model):
    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x


class Tied(layers.Layer):
    def __init__(self, other: layers.Layer, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.other = other

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return x * keras.ops.mean(self.other.kernel)

    def get_config(self) -> dict[str, object]:
        return super().get_config()


def test_models_that_cannot_be_read_are_refused() -> None:
    inputs = nets.image()
    first = layers.Conv2D(6, 3, name="a")
    tied = nets.classifier(inputs, Tied(first, name="b")(first(inputs)))
    open_axis = keras.Input((None, None, 3))
    flat = keras.Model(open_axis, layers.Flatten(name="flat")(open_axis))
    channels_first = keras.Sequential(
        [keras.Input((3, 8, 8)), layers.MaxPooling2D(data_format="channels_first", name="cf")]
    )
    for model, text in (
        (Subclassed(), "no graph"),
        (keras.Sequential([layers.Dense(3)]), "no graph"),
        (tied, "'a', 'b' share a weight"),
        (flat, "'flat' has a last axis of unknown size"),
        (channels_first, "'cf' is channels_first"),
    ):
        with pytest.raises(PruneError, match=text):
            plan(model, {})
