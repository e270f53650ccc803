from __future__ import annotations

import keras
import numpy as np
import pytest
import tf_keras

from kpipe.errors import SparsityError
from kpipe.keras_internals import CustomScaleLayer, LayerScale
from kpipe.sparsity import layer_mapping, to_keras, to_tf_keras
from kpipe.sparsity.bridge.twins import fuse_normalizations
from tests.sparsity.conftest import pixels, seeded, shared_between_models, small_classifier


def outputs_agree(model: keras.Model, size: int = 16) -> tf_keras.Model:
    """Both ways, with and without a template; the twin is returned."""
    images = pixels(2, size)
    expected = np.asarray(model(images, training=False))
    assert np.ptp(expected) > 1e-3  # a constant would agree with anything
    twin = to_tf_keras(model)
    np.testing.assert_allclose(twin(images, training=False), expected, atol=1e-5, rtol=1e-5)
    for back in (to_keras(twin, model), to_keras(twin)):
        np.testing.assert_allclose(back(images, training=False), expected, atol=1e-5, rtol=1e-5)
        assert [layer.name for layer in back.layers] == [layer.name for layer in model.layers]
        assert back.name == model.name
    return twin


def normalized() -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3)(inputs)
    x = keras.layers.BatchNormalization(momentum=0.9, name="of_images")(x)
    x = keras.layers.Conv2D(8, 3)(keras.layers.ReLU()(x))
    x = keras.layers.BatchNormalization(momentum=0.9)(x)
    x = keras.layers.Dense(6)(keras.layers.GlobalAveragePooling2D()(x))
    return seeded(keras.Model(inputs, keras.layers.BatchNormalization(name="of_rows")(x)))


def test_normalizations_compute_the_same_bits_and_learn_the_same_statistics() -> None:
    model, images = normalized(), pixels(6)
    twin = to_tf_keras(model)
    np.testing.assert_array_equal(twin(images, training=False), model(images, training=False))
    np.testing.assert_array_equal(twin(images, training=True), model(images, training=True))
    for ours, theirs in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-6, atol=1e-7)


def test_fused_normalizations_answer_alike() -> None:
    model, images = normalized(), pixels(6)
    twin = to_tf_keras(model)
    fuse_normalizations(twin, True)
    assert twin.get_layer("of_images").fused and not twin.get_layer("of_rows").fused
    found, expected = twin(images, training=False), model(images, training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def image_model(outputs) -> keras.Model:
    inputs = keras.Input((16, 16, 3), name="image")
    return seeded(keras.Model(inputs, outputs(inputs)))


def with_values(layer):
    """A Normalization as it is after `adapt`."""
    layer.adapt(pixels(4))
    return layer


LAYERS = {
    "conv2d": lambda: keras.layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
    "grouped": lambda: keras.layers.Conv2D(6, 3, groups=3, dilation_rate=2, use_bias=False),
    "depthwise": lambda: keras.layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2),
    "separable": lambda: keras.layers.SeparableConv2D(5, 3, activation="swish"),
    "batch_norm": lambda: keras.layers.BatchNormalization(momentum=0.9, epsilon=0.01, scale=False),
    "layer_norm": lambda: keras.layers.LayerNormalization(epsilon=0.01),
    "relu6": lambda: keras.layers.ReLU(6.0, negative_slope=0.1, threshold=0.5),
    "elu": lambda: keras.layers.ELU(0.5),
    "softmax": lambda: keras.layers.Softmax(),
    "gelu": lambda: keras.layers.Activation("gelu"),
    "hard_sigmoid": lambda: keras.layers.Activation("hard_sigmoid"),
    "zero_padding": lambda: keras.layers.ZeroPadding2D(((1, 2), (0, 3))),
    "cropping": lambda: keras.layers.Cropping2D(((1, 2), (0, 3))),
    "up_sampling": lambda: keras.layers.UpSampling2D(2, interpolation="bilinear"),
    "max_pooling": lambda: keras.layers.MaxPooling2D(3, 2, padding="same"),
    "average_pooling": lambda: keras.layers.AveragePooling2D(3, 2, padding="same"),
    "global_max": lambda: keras.layers.GlobalMaxPooling2D(keepdims=True),
    "global_average": lambda: keras.layers.GlobalAveragePooling2D(keepdims=True),
    "rescaling": lambda: keras.layers.Rescaling([0.1, 0.2, 0.3], offset=np.array([1.0, 2, 3])),
    "reshape": lambda: keras.layers.Reshape((8, -1, 3)),
    "permute": lambda: keras.layers.Permute((2, 1, 3)),
    "flatten": lambda: keras.layers.Flatten(),
    "dropout": lambda: keras.layers.Dropout(0.5),
    "spatial_dropout": lambda: keras.layers.SpatialDropout2D(0.5),
    "dense": lambda: keras.layers.Dense(4, activation="tanh"),
    "einsum": lambda: keras.layers.EinsumDense("abcd,de->abce", (None, None, 5), bias_axes="e"),
    "transpose": lambda: keras.layers.Conv2DTranspose(
        4, 3, strides=2, padding="same", output_padding=1
    ),
    "group_norm": lambda: keras.layers.GroupNormalization(3, epsilon=0.01),
    "unit_norm": lambda: keras.layers.UnitNormalization(),
    "normalization": lambda: with_values(keras.layers.Normalization()),
    "given_normalization": lambda: keras.layers.Normalization(mean=[1, 2, 3], variance=[4, 5, 6]),
    "inverse": lambda: keras.layers.Normalization(mean=1.0, variance=4.0, invert=True),
    "leaky_relu": lambda: keras.layers.LeakyReLU(0.17),
    "prelu": lambda: keras.layers.PReLU(shared_axes=[1, 2]),
    "layer_scale": lambda: LayerScale(0.1, 3),
    "resizing": lambda: keras.layers.Resizing(9, 21, crop_to_aspect_ratio=True),
    "center_crop": lambda: keras.layers.CenterCrop(7, 9),
    "adaptive_pooling": lambda: keras.layers.AdaptiveAveragePooling2D(3),
    "identity": lambda: keras.layers.Identity(),
    "one_dimension": lambda: keras.Sequential(
        [
            keras.layers.Reshape((16, 48)),
            keras.layers.ZeroPadding1D(3),
            keras.layers.Conv1D(8, 3, padding="same", groups=2),
            keras.layers.DepthwiseConv1D(3, depth_multiplier=2),
            keras.layers.SeparableConv1D(6, 3),
            keras.layers.MaxPooling1D(2),
            keras.layers.UpSampling1D(3),
            keras.layers.Cropping1D(1),
            keras.layers.Conv1DTranspose(5, 3, strides=2),
            keras.layers.AveragePooling1D(3),
            keras.layers.SpatialDropout1D(0.3),
            keras.layers.GlobalAveragePooling1D(keepdims=True),
        ]
    ),
    "three_dimensions": lambda: keras.Sequential(
        [
            keras.layers.Reshape((4, 4, 16, 3)),
            keras.layers.ZeroPadding3D(1),
            keras.layers.Conv3D(4, 3),
            keras.layers.Conv3DTranspose(4, 3, strides=2),
            keras.layers.MaxPooling3D(2),
            keras.layers.AveragePooling3D(2, 1),
            keras.layers.UpSampling3D(2),
            keras.layers.Cropping3D(1),
            keras.layers.SpatialDropout3D(0.3),
            keras.layers.GlobalMaxPooling3D(),
            keras.layers.RepeatVector(3),
        ]
    ),
    "augmentation": lambda: keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal", seed=1),
            keras.layers.RandomRotation(0.1, "nearest"),
            keras.layers.RandomTranslation(0.1, 0.2, fill_mode="constant", fill_value=3.0),
            keras.layers.RandomZoom((-0.1, 0.2), seed=2),
            keras.layers.GaussianNoise(0.2),
            keras.layers.GaussianDropout(0.2),
            keras.layers.AlphaDropout(0.2),
        ]
    ),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_each_kind_of_layer_computes_the_same(kind):
    outputs_agree(image_model(lambda x: LAYERS[kind]()(keras.layers.Rescaling(1 / 255)(x))))


def test_merges_with_settings_compute_the_same():
    def outputs(x):
        x = keras.layers.Reshape((16, 48))(keras.layers.Rescaling(1 / 255)(x))
        x = keras.layers.Dot((1, 1), normalize=True)([x, keras.layers.Dense(5)(x)])
        return CustomScaleLayer(0.2)([x, keras.layers.Dense(5)(x)])

    outputs_agree(image_model(outputs))


def test_attention_computes_the_same():
    def outputs(x):
        x = keras.layers.Reshape((16, 48))(keras.layers.Rescaling(1 / 255)(x))
        y = keras.layers.Dense(5)(x)
        return keras.layers.MultiHeadAttention(2, 3, value_dim=4)(x, y, key=y + 1.0)

    outputs_agree(image_model(outputs))


MERGES = ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]


@pytest.mark.parametrize("kind", MERGES)
def test_each_kind_of_merge_computes_the_same(kind):
    def branches(x):
        x = keras.layers.Rescaling(1 / 255)(x)
        return getattr(keras.layers, kind)()([x, keras.layers.Conv2D(3, 1)(x)])

    outputs_agree(image_model(branches))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x + 1.5,
        lambda x: 2.0 * x,
        lambda x: x * x - x,
        lambda x: keras.ops.flip(x, axis=2),
        lambda x: x[:, 2:-1, ::2],
        lambda x: keras.ops.concatenate([x, keras.ops.relu(x - 9.0)], axis=-1),
        lambda x: keras.ops.mean(x, axis=(1, 2), keepdims=True),
    ],
)
def test_raw_operations_compute_the_same(operation):
    outputs_agree(image_model(lambda x: keras.layers.Conv2D(2, 1)(operation(x))))


def test_whole_classifier_agrees_with_every_layer_named_the_same():
    model = small_classifier()
    twin = outputs_agree(model)
    assert [layer.name for layer in twin.layers] == [layer.name for layer in model.layers]


def test_nested_shared_and_sequential_models_agree():
    shared = keras.layers.Conv2D(3, 1, name="shared")
    inner = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 3, padding="same"), shared], name="inner"
    )

    def outputs(x):
        x = keras.layers.Rescaling(1 / 255)(x)
        return keras.layers.Add()([shared(inner(x)), shared(x), inner(shared(x))])

    model = image_model(outputs)
    twin = outputs_agree(model)
    assert sum(np.prod(w.shape) for w in twin.weights) == model.count_params()
    outputs_agree(seeded(keras.Sequential([keras.Input((16, 16, 3)), inner, keras.layers.ReLU()])))


@pytest.mark.slow
def test_mobilenet_agrees():
    base = keras.applications.MobileNetV2(
        input_shape=(32, 32, 3), alpha=0.35, include_top=False, weights=None, pooling="avg"
    )
    inputs = keras.Input((32, 32, 3))
    x = base(keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs), training=False)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(x))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "moving_mean" in weight.path or "beta" in weight.path:
            weight.assign(rng.normal(0, 0.2, weight.shape))
    outputs_agree(model, size=32)


def test_training_reaches_layers_whatever_the_graph_noted():
    """Keras 3 notes training=False at each layer, which would silence dropout in tf_keras."""
    twin = to_tf_keras(small_classifier())
    images = pixels(2)
    first = twin(images, training=True).numpy()
    assert not np.array_equal(first, twin(images, training=True).numpy())


def test_trainable_flags_cross_over():
    model = small_classifier()
    model.get_layer("stem").trainable = False
    twin = to_tf_keras(model)
    assert not twin.get_layer("stem").trainable
    assert len(twin.trainable_weights) == len(model.trainable_weights)
    assert not to_keras(twin).get_layer("stem").trainable
    assert not to_keras(twin, model).get_layer("stem").trainable


def test_regularizers_and_constraints_cross_over():
    model = image_model(
        lambda x: keras.layers.Conv2D(
            2, 3, kernel_regularizer=keras.regularizers.L2(0.3), kernel_constraint="non_neg"
        )(x)
    )
    layer = to_tf_keras(model).layers[-1]
    assert isinstance(layer.kernel_regularizer, tf_keras.regularizers.L2)
    assert float(layer.kernel_regularizer.l2) == pytest.approx(0.3)
    assert isinstance(layer.kernel_constraint, tf_keras.constraints.NonNeg)
    assert isinstance(to_keras(to_tf_keras(model)).layers[-1].kernel_regularizer, keras.Regularizer)


def test_weights_are_copies():
    model = small_classifier()
    twin = to_tf_keras(model)
    before = model.get_layer("stem").kernel.numpy()
    twin.get_layer("stem").kernel.assign(before * 0)
    np.testing.assert_array_equal(model.get_layer("stem").kernel, before)


def test_every_layer_without_an_equal_is_named_with_its_reason():
    class Doubled(keras.layers.Layer):
        def call(self, x):
            return x * 2

    def outputs(x):
        x = Doubled(name="mine")(x)
        x = keras.layers.Conv2D(2, 1, activation="hard_sigmoid", name="hard")(x)
        return keras.layers.Conv2D(2, 1, dtype="mixed_bfloat16", name="mixed")(x)

    with pytest.raises(SparsityError) as caught:
        to_tf_keras(image_model(outputs))
    message = str(caught.value)
    assert "mine (Doubled)" in message
    assert "hard (Conv2D): the activation 'hard_sigmoid'" in message
    assert "mixed (Conv2D): it computes in bfloat16" in message


def test_layer_mapping_lists_every_layer_of_a_keras_model():
    inner = keras.Sequential(
        [keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1, name="conv")], name="inner"
    )

    def outputs(x):
        x = keras.layers.RMSNormalization(name="rms")(inner(x) + 1.0)
        return keras.layers.Activation("hard_sigmoid", name="hard")(x)

    found = layer_mapping(image_model(outputs)).set_index("kind")
    assert list(found.index) == ["Conv2D", "Add", "RMSNormalization", "Activation"]
    assert found["path"]["Conv2D"] == "inner/conv"
    assert list(found["outcome"]) == ["mapped", "called", "refused", "called"]
    assert list(found["reason"].str.len() > 0) == [False, False, True, False]


def test_layer_mapping_lists_every_layer_of_a_tf_keras_model():
    twin = to_tf_keras(image_model(lambda x: keras.layers.Conv2D(2, 1)(x * 2.0)))
    found = layer_mapping(twin)
    assert list(found["kind"]) == ["Multiply", "Conv2D"]
    assert list(found["outcome"]) == ["called", "mapped"]


def test_subclass_of_a_known_layer_is_refused():
    class Dense(keras.layers.Dense):
        def call(self, x):
            return super().call(x) * 2

    with pytest.raises(SparsityError, match=r"dense.* \(Dense\)"):
        to_tf_keras(image_model(lambda x: Dense(2)(x)))


def test_model_without_a_graph_is_refused():
    class Subclassed(keras.Model):
        pass

    with pytest.raises(SparsityError, match="no graph"):
        to_tf_keras(Subclassed())


def test_template_of_another_shape_is_refused_with_both_shapes():
    narrow = image_model(lambda x: keras.layers.Conv2D(2, 1, name="conv")(x))
    wide = image_model(lambda x: keras.layers.Conv2D(4, 1, name="conv")(x))
    with pytest.raises(SparsityError, match=r"conv has shapes \[\(1, 1, 3, 2\), \(2,\)\]"):
        to_keras(to_tf_keras(narrow), wide)


def test_template_with_other_layers_is_refused_by_their_names():
    one = image_model(lambda x: keras.layers.Conv2D(2, 1, name="one")(x))
    two = image_model(lambda x: keras.layers.Conv2D(2, 1, name="two")(x))
    with pytest.raises(SparsityError, match="one is in one model only; two is in one model only"):
        to_keras(to_tf_keras(one), two)


def test_a_raw_operation_in_a_sequential_comes_back():
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.Activation("hard_sigmoid"),
            keras.layers.Conv2D(3, 3),
        ]
    )
    outputs_agree(seeded(model))


def test_raw_operations_in_other_float_types_compute_the_same():
    def outputs(x):
        half = keras.ops.cast(keras.layers.Rescaling(1 / 255)(x), "float16") * 3
        return keras.layers.Conv2D(2, 1)(keras.ops.cast(half, "float32"))

    outputs_agree(image_model(outputs))


def test_a_sequential_that_uses_a_layer_twice_is_refused():
    twice = keras.layers.Conv2D(3, 3, padding="same")
    model = keras.Sequential([keras.Input((16, 16, 3)), twice, keras.layers.ReLU(), twice])
    with pytest.raises(SparsityError, match="uses a layer twice"):
        to_tf_keras(model)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_settings_that_only_keras_3_knows_are_refused_by_their_layers():
    def outputs(x):
        x = keras.layers.Conv2D(2, 1, name="conv 1")(x)
        x = keras.layers.Conv2D(2, 1, activation=keras.layers.ReLU(6.0), name="object")(x)
        weigh = keras.layers.Dense(2, kernel_regularizer=lambda w: keras.ops.sum(w), name="lambda")
        return weigh(keras.layers.Activation(keras.ops.sin, name="sine")(x))

    with pytest.raises(SparsityError) as caught:
        to_tf_keras(image_model(outputs))
    for said in ("conv 1 (Conv2D): its name", "object (Conv2D): the activation", "lambda (Dense):"):
        assert said in str(caught.value)
    assert "sine" not in str(caught.value)


def test_what_is_called_as_it_is_may_be_called_twice():
    def outputs(image):
        gate = keras.layers.Activation("hard_sigmoid", name="gate")
        pool = keras.layers.AdaptiveAveragePooling2D(4)
        x = keras.layers.Add()([gate(image), gate(keras.layers.Conv2D(3, 1)(image))])
        return keras.layers.Concatenate()([pool(x), pool(image / 255)])

    model = image_model(outputs)
    outputs_agree(model)
    back = to_keras(to_tf_keras(model))
    assert len(back.get_layer("gate")._inbound_nodes) == 2


def test_what_is_shared_between_models_stays_shared():
    model = shared_between_models()
    twin = outputs_agree(model)
    for back in (twin, to_keras(twin, model), to_keras(twin)):
        assert back.count_params() == model.count_params()


def misnamed():
    image = keras.Input((16, 16, 3))
    inner = keras.Model(image, keras.layers.ReLU()(image), name="my model")
    return keras.Model(image, inner(image))


def scaled(weights):
    return keras.ops.sum(weights)


def halved(image):
    return image / 2


class L2(keras.regularizers.L2):
    """Of a name of Keras."""


class Doubled(keras.Model):
    """Its call() does more than its graph says."""

    def __init__(self):
        row = keras.Input((4,))
        super().__init__(row, keras.layers.Dense(3)(row))

    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs)


def around(model):
    row = keras.Input((4,))
    return keras.Model(row, model(row))


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda: keras.Sequential([keras.layers.Dense(3)]), "no graph"),
        (Doubled, "no graph"),
        (lambda: around(Doubled()), r"custom call\(\)"),
        (misnamed, "invalid in TensorFlow"),
        (
            lambda: image_model(keras.layers.Dense(2, kernel_regularizer=scaled)),
            "of both",
        ),
        (
            lambda: image_model(keras.layers.Dense(2, kernel_regularizer=L2())),
            "of both",
        ),
        (
            lambda: image_model(keras.layers.Activation(keras.layers.PReLU())),
            "activation .* different",
        ),
    ],
)
def test_what_cannot_cross_is_refused_with_its_reason(build, reason):
    with pytest.raises(SparsityError, match=reason):
        to_tf_keras(build())


def test_a_quantized_layer_is_refused_with_its_reason():
    model = image_model(keras.layers.Dense(2))
    with pytest.warns(UserWarning, match="InputLayer"):
        model.quantize("int8")
    assert layer_mapping(model)["outcome"].tolist() == ["refused"]


def of_tf_keras(outputs) -> tf_keras.Model:
    image = tf_keras.Input((16, 16, 3))
    return tf_keras.Model(image, outputs(image))


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: tf_keras.layers.Dense(2, name="block/dense"), "invalid in Keras 3"),
        (lambda: tf_keras.layers.Resizing(4, 4, interpolation="gaussian"), "in one library only"),
        (
            lambda: tf_keras.layers.Dense(
                2, kernel_constraint=tf_keras.constraints.RadialConstraint()
            ),
            "of both",
        ),
    ],
)
def test_what_keras_3_lacks_is_refused_with_its_reason(layer, reason):
    with pytest.raises(SparsityError, match=reason):
        to_keras(of_tf_keras(layer()))


def test_an_operation_with_a_custom_function_needs_no_template():
    model = image_model(keras.layers.Activation(halved))
    back = to_keras(to_tf_keras(model))
    np.testing.assert_array_equal(back(pixels(2)), model(pixels(2)))


def test_whole_numbers_stay_whole_in_a_sequential():
    model = keras.Sequential([keras.Input((1,), dtype="int32"), keras.layers.Flatten()])
    given = np.array([[16777217]], "int32")
    np.testing.assert_array_equal(to_tf_keras(model)(given), given)
