"""Removal is exact: each operation equals the masked old model on the kept channels."""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import Plan, count_macs, plan, rank, remove_filters
from tests.prune import nets
from tests.prune.masking import random_request, randomize, run, worst_difference


def photos(model: keras.Model, seed: int = 0) -> np.ndarray:
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(seed).uniform(0, 255, shape).astype("float32")


def check_exact(model: keras.Model, seed: int) -> tuple[Plan, keras.Model]:
    randomize(model, seed)
    request = random_request(model, seed)
    made = plan(model, request)
    new = remove_filters(model, made)
    assert worst_difference(model, new, made.kept, photos(model)) < 1e-4
    assert (new.count_params(), count_macs(new)) == (made.params_after, made.macs_after)
    for layer, channels in request.items():
        assert not set(channels) & set(made.kept.get(layer, []))
    return made, new


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", nets.NETS)
def test_every_operation_equals_the_masked_original(name: str, seed: int) -> None:
    build, removable = nets.NETS[name]
    model = build()
    if name in (
        "nested",
        "frames",
    ):  # a plan that removes nothing opens it, which must not change it
        flat = remove_filters(model, plan(model, {}))
        randomize(flat, seed)
        for old, new in zip(model.weights, flat.weights, strict=True):
            old.assign(new)
        image = photos(model)
        np.testing.assert_allclose(model(image), flat(image), rtol=1e-5, atol=1e-6)
        model = flat
    check_exact(model, seed)
    free = {member for r in rank(model).values() for member in r.group.members}
    assert removable <= free
    assert not free & {"logits", "predictions"}


def test_the_check_sees_a_leak() -> None:
    model = randomize(nets.lite())
    made = plan(model, {"a_expand": [0, 5]})
    new = remove_filters(model, made)
    leaky = {k: v for k, v in made.kept.items() if k in ("a_expand", "a_dw")}
    # Masking only the convolutions lets the beta of the normalization through.
    image = photos(model)
    outputs = [run(model, image, kept)["predictions"][0] for kept in (made.kept, leaky)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3
    np.testing.assert_allclose(outputs[0], new(image), rtol=1e-4, atol=1e-6)


def test_the_old_model_still_predicts_and_shares_nothing() -> None:
    model = randomize(nets.residual())
    image = photos(model)
    before, weights = np.asarray(model(image)), [w.numpy() for w in model.weights]
    new = remove_filters(model, plan(model, {"stem": [0, 1, 2]}))
    for weight in new.weights:
        weight.assign(weight + 1.0)
    assert np.array_equal(before, model(image))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(weights, model.weights, strict=True))
    assert not {id(w) for w in model.variables} & {id(w) for w in new.variables}
    assert [op.name for op in new.operations] == [op.name for op in model.operations]
    assert new.name == model.name


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own save
def test_saved_loaded_and_trained_it_is_an_ordinary_model(tmp_path: Path) -> None:
    model = randomize(nets.lite())
    new = remove_filters(model, plan(model, random_request(model, 4)))
    image = photos(model)
    new.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    assert np.array_equal(new(image), loaded(image))
    loaded.compile("sgd", "sparse_categorical_crossentropy")
    before = [w.numpy() for w in loaded.trainable_weights]
    loaded.train_on_batch(image, np.array([0, 3]))
    moved = [
        not np.array_equal(a, b.numpy())
        for a, b in zip(before, loaded.trainable_weights, strict=True)
    ]
    assert sum(moved) > len(moved) / 2


def test_trainable_flags_and_dtype_policies_are_carried_over() -> None:
    inputs = nets.image()
    x = layers.Conv2D(8, 3, name="frozen", trainable=False)(inputs)
    x = layers.Conv2D(8, 3, name="half", dtype="mixed_float16")(x)
    model = nets.classifier(inputs, layers.BatchNormalization(name="norm")(x))
    model.get_layer("norm").trainable = False
    new = remove_filters(model, plan(model, {"frozen": [0], "half": [1, 2]}))
    trainable = {layer.name: layer.trainable for layer in new.layers}
    assert trainable == {layer.name: layer.trainable for layer in model.layers}
    assert new.get_layer("half").dtype_policy.name == "mixed_float16"


def test_what_a_normalization_was_adapted_to_is_carried_over() -> None:
    inputs = nets.image()
    normalization = layers.Normalization(name="adapted")
    x = layers.Conv2D(4, 1, name="first")(normalization(inputs))
    model = keras.Model(inputs, layers.Conv2D(2, 1, name="last")(x))
    image = photos(model)
    normalization.adapt(image)
    new = remove_filters(model, plan(model, {}))
    np.testing.assert_allclose(new(image), model(image), rtol=1e-5, atol=1e-6)
    check_exact(model, 1)


def test_the_first_group_of_single_channels_can_go() -> None:
    inputs = nets.image()
    x = layers.Conv2D(4, 1, name="first")(inputs)
    x = layers.Conv2D(8, 3, groups=4, name="grouped")(x)
    model = randomize(nets.classifier(inputs, x))
    made = plan(model, {"first": [0, 2]})
    new = remove_filters(model, made)
    assert new.get_layer("grouped").groups == 2
    assert worst_difference(model, new, made.kept, photos(model)) < 1e-4


def test_sequential_and_several_inputs_and_outputs() -> None:
    stack = keras.Sequential([nets.image(), layers.Conv2D(6, 3, name="a"), layers.Conv2D(5, 3)])
    new = remove_filters(stack, plan(stack, {"a": [0, 3]}))
    assert new.get_layer("a").filters == 4 and new.output_shape == stack.output_shape

    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 2), name="right")
    joined = layers.Concatenate(name="cat")(
        [layers.Conv2D(4, 3, name="l")(left), layers.Conv2D(4, 3, name="r")(right)]
    )
    first = layers.Conv2D(2, 1, name="first")(joined)
    model = keras.Model({"left": left, "right": right}, {"sum": first, "raw": joined})
    with pytest.raises(PruneError, match="model output"):
        plan(model, {"l": [0]})
    model = keras.Model({"left": left, "right": right}, {"sum": first})
    made = plan(model, {"l": [0], "r": [1, 2]})
    np.testing.assert_array_equal(made.kept["cat"], [1, 2, 3, 4, 7])
    new = remove_filters(model, made)
    batch = {"left": np.ones((1, 8, 8, 3), "float32"), "right": np.ones((1, 8, 8, 2), "float32")}
    assert new(batch)["sum"].shape == (1, 6, 6, 2)


def test_a_plan_of_another_model_is_refused() -> None:
    made = plan(nets.lite(), {"stem": [0]})
    with pytest.raises(PruneError, match="another model"):
        remove_filters(nets.residual(), made)


def test_custom_functions_in_memory_are_used_again() -> None:
    """A configuration holds only the name, for which Keras would use its own function."""
    scale = 127.5

    def mish(x: object) -> object:
        return keras.ops.flip(x, -1)

    pixels = nets.image()
    x = layers.Lambda(lambda t: keras.ops.cos(t / scale))(pixels)
    x = layers.Conv2D(6, 3, activation=mish, name="own")(x)
    x = layers.TimeDistributed(layers.Lambda(lambda t: t * scale))(x)
    model = nets.classifier(pixels, x)
    images = np.random.default_rng(0).uniform(0, 255, (2, *model.input_shape[1:]))
    np.testing.assert_array_equal(_copied(model)(images), model(images))


def _copied(model: keras.Model) -> keras.Model:
    return remove_filters(model, plan(model, {}))


def test_what_trains_inside_of_a_layer_is_carried_over() -> None:
    tokens = keras.Input((6, 4))
    attention, last = layers.MultiHeadAttention(1, 2), layers.Dense(3)
    model = keras.Model(tokens, last(attention(tokens, tokens)))
    attention.query_dense.trainable = False
    last.kernel.trainable = False
    copy = _copied(model)
    trained = [[w.path.split("/", 1)[-1] for w in m.trainable_weights] for m in (model, copy)]
    assert trained[0] == trained[1] and len(trained[0]) == len(model.weights) - 3


def test_the_alpha_of_lora_is_carried_over() -> None:
    given, dense = keras.Input((6,)), layers.Dense(8)
    model = keras.Model(given, layers.Dense(3)(dense(given)))
    dense.enable_lora(2, lora_alpha=5)
    dense.lora_kernel_b.assign(np.random.default_rng(0).normal(size=(2, 8)))
    x = np.random.default_rng(1).normal(size=(4, 6)).astype("float32")
    np.testing.assert_allclose(_copied(model)(x), model(x), rtol=1e-6)


def test_a_vocabulary_that_was_adapted_is_carried_over() -> None:
    words, lookup = keras.Input((4,), dtype="int32"), layers.IntegerLookup()
    lookup.adapt(np.array([3, 3, 7, 5]))
    x = layers.Embedding(5, 6)(lookup(words))
    model = keras.Model(words, layers.Dense(3)(layers.Flatten()(x)))
    given = np.array([[3, 5, 7, 9]], "int32")
    np.testing.assert_array_equal(_copied(model)(given), model(given))


def test_an_initializer_with_one_constant_per_channel_is_allowed(tmp_path: Path) -> None:
    first = keras.initializers.Constant([1.0, 2.0, 3.0, 4.0])
    pixels = nets.image()
    conv = layers.Conv2D(4, 1, bias_initializer=first, name="conv")
    model = keras.Model(pixels, layers.Conv2D(2, 1)(conv(pixels)))
    small = remove_filters(model, plan(model, {"conv": [0]}))
    np.testing.assert_array_equal(small.get_layer("conv").bias, [2, 3, 4])
    small.save(tmp_path / "small.keras")
    keras.models.load_model(tmp_path / "small.keras")


def test_what_no_output_depends_on_is_neither_counted_nor_ranked() -> None:
    pixels = keras.Input((8, 8, 4))
    made = [layers.Conv2D(16, 3, name=name)(pixels) for name in ("used", "unused")]
    inner, image = keras.Model(pixels, made), nets.image()
    used, _ = inner(layers.Conv2D(4, 1, name="conv")(image))
    model = keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(used)))
    made_plan, copy = plan(model, {}), _copied(model)
    assert (made_plan.macs_after, made_plan.params_after) == (count_macs(copy), copy.count_params())
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    assert {"conv", "used"} == rank(model, "apoz", [images]).keys()


def test_a_mask_handed_to_a_nested_model_is_refused_by_name() -> None:
    tokens = keras.Input((6, 4))
    inner = keras.Model(tokens, layers.GlobalAveragePooling1D()(tokens), name="inner")
    given, mask = keras.Input((6, 4)), keras.Input((6,), dtype="bool")
    with pytest.warns(UserWarning, match="does not support masking"):  # Keras, of the model inside
        model = keras.Model([given, mask], layers.Dense(3)(inner(given, mask=mask)))
    with pytest.raises(PruneError, match="'inner' has a mask"):
        plan(model, {})


def test_channels_are_a_flat_list_of_layers_that_exist() -> None:
    with pytest.raises(PruneError, match="not a list of integers"):
        plan(nets.lite(), {"a_expand": [[1], [2]]})
    with pytest.raises(PruneError, match="no layer 5"):
        plan(nets.lite(), {5: [1]})


def test_an_activation_that_cannot_be_serialized_is_refused_by_layer() -> None:
    pixels = nets.image()
    own = functools.partial(keras.activations.relu, max_value=2.0)
    model = keras.Model(pixels, layers.Conv2D(4, 1, activation=own, name="conv")(pixels))
    with pytest.raises(PruneError, match="'conv'"):
        plan(model, {})
