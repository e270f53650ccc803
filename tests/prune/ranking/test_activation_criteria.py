"""Criteria that look at activations, compared with NumPy on a small network."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import rank
from tests.prune import nets
from tests.prune.masking import randomize

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.normal(size=(12, 6, 5, 3)).astype("float32")
LABELS = RANDOM.integers(0, 4, 12)
BATCHES = [(IMAGES[:8], LABELS[:8]), (IMAGES[8:], LABELS[8:])]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    pixels = keras.Input((6, 5, 3))
    x = layers.Conv2D(5, 3, 2, padding="same", name="first", use_bias=False)(pixels)
    x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.ReLU(name="first_relu")(x)
    x = layers.Conv2D(6, (3, 2), padding="same", name="second")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return randomize(keras.Model(pixels, layers.Dense(4, "softmax", name="answer")(x)), 3)


def inner(model: keras.Model, name: str) -> np.ndarray:
    return keras.Model(model.input, model.get_layer(name).output)(IMAGES).numpy()


def scores(model: keras.Model, criterion: str, data=BATCHES, **kwargs) -> dict[str, np.ndarray]:
    found = rank(model, criterion, data, normalize="none", **kwargs)
    return {name: ranking.scores for name, ranking in found.items()}


def test_mean_activation_is_read_after_normalization_and_relu(model: keras.Model) -> None:
    found = scores(model, "mean_activation")
    for name, outlet in (("first", "first_relu"), ("second", "second")):
        expected = np.abs(inner(model, outlet)).mean((0, 1, 2))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_apoz_is_the_share_that_is_not_above_zero(model: keras.Model) -> None:
    found = scores(model, "apoz")
    for name, outlet in (("first", "first_relu"), ("second", "second")):
        zeros = (inner(model, outlet) <= 0).mean((0, 1, 2))
        assert zeros.max() > 0
        np.testing.assert_allclose(found[name], 1 - zeros, rtol=1e-6)


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("shares", [False, True])
def test_taylor_is_gradient_times_activation_of_each_image(
    model: keras.Model, shares: bool, frozen: bool
) -> None:
    # The loss after the second convolution, written out: mean over positions, dense, softmax.
    z = inner(model, "second")
    kernel, bias = (w.numpy() for w in model.get_layer("answer").weights)
    logits = z.mean((1, 2)) @ kernel + bias
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.eye(4)[LABELS]
    gradient = (softmax - truth) @ kernel.T / (z.shape[1] * z.shape[2])
    expected = np.abs((gradient[:, None, None] * z).mean((1, 2))).mean(0)
    data = [(x, truth[y0 : y0 + len(x)]) for x, y0 in ((IMAGES[:8], 0), (IMAGES[8:], 8))]
    model.trainable = not frozen
    try:
        found = scores(model, "taylor", data if shares else BATCHES)["second"]
    finally:
        model.trainable = True
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_reconstruction_is_what_is_missing_of_the_next_layers_output(model: keras.Model) -> None:
    found = scores(model, "reconstruction", [x for x, _ in BATCHES])
    for name, source, reader in (("first", "first_relu", "second"), ("second", "pool", "answer")):
        x, layer = inner(model, source), model.get_layer(reader)
        kernel = layer.weights[0]
        missing = []
        for channel in range(x.shape[-1]):
            alone = np.zeros_like(x)
            alone[..., channel] = x[..., channel]
            y = tf.nn.conv2d(alone, kernel, 1, "SAME") if x.ndim == 4 else alone @ kernel.numpy()
            missing.append(np.square(y).sum(-1).mean())
        np.testing.assert_allclose(found[name], np.divide(missing, sum(missing)), rtol=1e-4)


@pytest.mark.parametrize("name", ["separable", "grouped", "transposed"])
def test_reconstruction_knows_how_each_layer_reads_its_channels(name: str) -> None:
    model = randomize(nets.NETS[name][0](), 2)
    reader = {"separable": "second", "grouped": "grouped", "transposed": "second"}[name]
    layer = model.get_layer(reader)
    x = keras.Model(model.input, layer.input)(RANDOM.normal(size=(4, 8, 8, 3))).numpy()
    x = RANDOM.normal(size=x.shape).astype("float32")  # kernel positions that are uncorrelated
    zero = np.zeros_like(x)
    missing = []
    for channel in range(x.shape[-1]):
        alone = zero.copy()
        alone[..., channel] = x[..., channel]
        missing.append(np.square(layer(alone) - layer(zero)).sum(-1).mean())
    from kpipe.prune.graph.graph_reading import read
    from kpipe.prune.ranking.reconstruction_errors import channel_errors, second_moments

    (operation,) = read(model).find([reader])
    errors = channel_errors(operation, second_moments(operation, tf.constant(x)).numpy())
    tolerance = 0.25 if name == "transposed" else 1e-4  # borders and overlaps
    np.testing.assert_allclose(
        errors / errors.sum(), np.divide(missing, sum(missing)), rtol=tolerance
    )


def test_reconstruction_measures_the_part_that_a_layer_reads() -> None:
    pixels = keras.Input((6, 5, 3))
    x = layers.Conv2D(5, 3, activation="relu", name="first")(pixels)
    parts = [
        layers.Conv2D(4, 1, name=name)(part)
        for name, part in zip(("left", "right"), keras.ops.split(x, [2], -1), strict=True)
    ]
    pooled = layers.GlobalAveragePooling2D()(layers.Concatenate()(parts))
    net = randomize(keras.Model(pixels, layers.Dense(3)(pooled)), 3)
    mean = np.square(keras.Model(pixels, x)(IMAGES)).mean((0, 1, 2))
    found = scores(net, "reconstruction", IMAGES)
    for name, layer, part in (("first", "left", mean[:2]), ("first#2", "right", mean[2:])):
        errors = part * np.square(net.get_layer(layer).kernel[0, 0]).sum(1)
        np.testing.assert_allclose(found[name], errors / errors.sum(), rtol=1e-5)


@pytest.mark.parametrize("both", [False, True])
def test_reconstruction_knows_what_the_gates_of_a_recurrent_layer_read(both: bool) -> None:
    pixels = keras.Input((6, 5, 3))
    x = layers.Dense(4, name="first")(layers.Reshape((6, 15))(pixels))
    reader = layers.LSTM(3, return_sequences=True)
    reader = layers.Bidirectional(reader) if both else reader
    net = randomize(keras.Model(pixels, layers.Dense(2)(layers.Flatten()(reader(x)))), 3)
    weights = np.concatenate([w.numpy() for w in reader.weights if w.name == "kernel"], -1)
    mean = np.square(keras.Model(pixels, x)(IMAGES)).mean((0, 1))
    errors = mean * np.square(weights).sum(1)
    found = scores(net, "reconstruction", IMAGES)["first"]
    np.testing.assert_allclose(found, errors / errors.sum(), rtol=1e-5)


def test_bn_scale_is_gamma_and_what_has_none_is_not_judged(model: keras.Model) -> None:
    with pytest.warns(UserWarning, match="cannot score the filters of second"):
        found = scores(model, "bn_scale", None)
    gamma = model.get_layer("first_bn").gamma.numpy()
    assert list(found) == ["first"]
    np.testing.assert_allclose(found["first"], np.abs(gamma), rtol=1e-6)


def test_the_filter_in_the_middle_is_nearest_to_the_geometric_median(model: keras.Model) -> None:
    found = scores(model, "geometric_median", None)["second"]
    rows = np.moveaxis(model.get_layer("second").kernel.numpy(), -1, 0).reshape(6, -1)
    expected = [sum(np.linalg.norm(row - other) for other in rows) for row in rows]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_layers_used_twice_and_nested_models_are_measured() -> None:
    for name in ("shared layer", "nested", "residual", "raw operations"):
        model = randomize(nets.NETS[name][0](), 1)
        images = RANDOM.uniform(0, 1, (4, 8, 8, 3)).astype("float32")
        for criterion in ("apoz", "mean_activation", "reconstruction"):
            assert rank(model, criterion, [images]), (name, criterion)
    twice = randomize(nets.NETS["shared layer"][0](), 1)
    found = scores(twice, "mean_activation", [images])["first"]
    relu = twice.get_layer("relu")
    calls = [node.output_tensors[0] for node in relu._inbound_nodes]
    first, second = keras.Model(twice.input, calls)(images)
    once = keras.Model(twice.input, twice.get_layer("first_relu").output)(images)
    of_twice = np.mean([np.abs(x).mean((0, 1, 2)) for x in (first, second)], axis=0)
    expected = (np.abs(once).mean((0, 1, 2)) + of_twice) / 2
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("data", [None, []])
def test_a_criterion_without_the_data_it_needs_says_so(model: keras.Model, data) -> None:
    with pytest.raises(PruneError, match="no images"):
        rank(model, "apoz", data)


def test_taylor_without_labels_says_so(model: keras.Model) -> None:
    with pytest.raises(PruneError, match="needs labels"):
        rank(model, "taylor", [IMAGES])


def test_a_generator_serves_as_data(model: keras.Model) -> None:
    expected = scores(model, "apoz")
    found = scores(model, "apoz", (pair for pair in BATCHES))
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("criterion", ["reconstruction", "mean_activation"])
def test_half_precision_scores_like_single(model: keras.Model, criterion: str) -> None:
    half = keras.models.clone_model(
        model,
        clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "dtype": "mixed_float16"}
        ),
    )
    half.set_weights(model.get_weights())
    data = [3000 * np.repeat(IMAGES, 8, axis=0)]  # enough to overflow a sum of halves
    expected, found = (scores(net, criterion, data) for net in (model, half))
    assert set(found) == set(expected)
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=0.05, atol=0.02 * values.max())


def test_images_by_the_name_of_the_only_input_are_taken(model: keras.Model) -> None:
    named = [({"pixels": images}, labels) for images, labels in BATCHES]
    for criterion in ("taylor", "mean_activation"):
        expected, found = scores(model, criterion), scores(model, criterion, named)
        for name, values in found.items():
            np.testing.assert_array_equal(values, expected[name])


def test_a_model_of_several_inputs_cannot_be_measured() -> None:
    one, other = nets.image(), keras.Input((8, 8, 3), name="other")
    x = layers.Conv2D(4, 3)(layers.Add()([one, other]))
    model = keras.Model([one, other], layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    with pytest.raises(PruneError, match="2 inputs"):
        rank(model, "mean_activation", BATCHES)


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_batches_of_tensorflow_are_taken_in_any_type(model: keras.Model, kind: str) -> None:
    images = (100 * np.abs(IMAGES)).astype(kind)
    batches = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(4)
    for criterion in ("apoz", "reconstruction", "taylor"):
        expected = scores(model, criterion, [(images.astype("float32"), LABELS)])
        for name, found in scores(model, criterion, batches).items():
            np.testing.assert_allclose(found, expected[name], rtol=1e-4, atol=1e-7)
    alone = scores(model, "apoz", tf.constant(images))
    np.testing.assert_allclose(alone["first"], scores(model, "apoz", images)["first"])


def test_taylor_of_a_single_probability_is_that_of_two_classes(model: keras.Model) -> None:
    pixels = keras.Input((6, 5, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, activation="relu", name="c")(pixels))
    answer = layers.Dense(1, "sigmoid", name="answer")
    one = randomize(keras.Model(pixels, answer(x)), 4)
    both = keras.ops.concatenate([1 - one.output, one.output], -1)
    labels = LABELS % 2
    expected = scores(keras.Model(pixels, both), "taylor", [(IMAGES, labels)])["c"]
    found = scores(one, "taylor", [(IMAGES, labels)])["c"]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert found.max() > 0


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_of_no_class_are_refused(model: keras.Model, label: int) -> None:
    with pytest.raises(PruneError, match="labels do not fit"):
        rank(model, "taylor", [(IMAGES, np.full(12, label))])


def test_images_of_other_channels_are_refused(model: keras.Model) -> None:
    with pytest.raises(PruneError, match="do not fit"):
        rank(model, "apoz", np.zeros((4, 6, 5, 4), "float32"))
