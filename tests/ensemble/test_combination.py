"""Ensembles against NumPy on the predictions of their members."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from kpipe.ensemble import average, vote
from kpipe.errors import TrainingError


def member(seed: int, classes: int = 4, size: int = 8) -> keras.Model:
    """Return a small classifier whose layers have the same names in every member."""
    start = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
    pixels = keras.Input((size, size, 3))
    x = keras.layers.Rescaling(1 / 255, name="scale")(pixels)
    x = keras.layers.Conv2D(4, 3, kernel_initializer=start, name="conv")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(classes, kernel_initializer=start, name="logits")(x)
    return keras.Model(pixels, keras.layers.Softmax(name="probabilities")(x), name="member")


def fixed(probabilities: list[float]) -> keras.Model:
    """Return a classifier with the same probabilities for every image."""
    pixels = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(pixels)
    x = keras.layers.Dense(len(probabilities), kernel_initializer="zeros", name="logits")(x)
    model = keras.Model(pixels, keras.layers.Softmax()(x))
    model.get_layer("logits").bias.assign(np.log(probabilities))
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (32, 8, 8, 3)).astype("float32")


def predictions(models: list[keras.Model], images: np.ndarray) -> np.ndarray:
    """Return (members, batch, classes)."""
    return np.stack([model(images).numpy() for model in models])


def run_lite(model: keras.Model, images: np.ndarray, path: Path) -> np.ndarray:
    signature = [keras.InputSpec(dtype="float32", shape=(1, 8, 8, 3))]
    model.export(path, format="litert", input_signature=signature, verbose=False)
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    rows = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(rows)


def test_average_is_the_mean_of_the_members(images: np.ndarray) -> None:
    models = [member(seed) for seed in range(3)]
    expected = predictions(models, images).mean(0)
    np.testing.assert_allclose(average(models)(images).numpy(), expected, atol=1e-6)


def test_weights_need_not_sum_to_one(images: np.ndarray) -> None:
    models = [member(seed) for seed in range(3)]
    expected = np.average(predictions(models, images), axis=0, weights=[1, 0, 3])
    np.testing.assert_allclose(average(models, [2, 0, 6])(images).numpy(), expected, atol=1e-6)


def test_vote_returns_fractions_that_sum_to_one(images: np.ndarray) -> None:
    models = [member(seed) for seed in range(3)]
    each = predictions(models, images)
    fractions = np.eye(4)[each.argmax(-1)].mean(0)
    got = vote(models)(images).numpy()
    np.testing.assert_allclose(got, 0.99 * fractions + 0.01 * each.mean(0), atol=1e-6)
    np.testing.assert_allclose(got.sum(-1), 1, atol=1e-6)
    np.testing.assert_allclose(got, fractions, atol=0.0101)


def test_a_tie_goes_to_the_higher_mean_probability(images: np.ndarray) -> None:
    models = [fixed([0.5, 0.4, 0.1]), fixed([0.1, 0.8, 0.1])]
    assert vote(models)(images).numpy().argmax(-1).tolist() == [1] * len(images)


def test_a_confident_minority_does_not_outvote_a_majority(images: np.ndarray) -> None:
    models = [fixed([0.51, 0.49]), fixed([0.51, 0.49]), fixed([0.001, 0.999])]
    assert vote(models)(images).numpy().argmax(-1).tolist() == [0] * len(images)
    assert average(models)(images).numpy().argmax(-1).tolist() == [1] * len(images)


def test_a_member_splits_its_vote_between_equal_classes(images: np.ndarray) -> None:
    got = vote([fixed([0.4, 0.4, 0.2]), fixed([0.1, 0.2, 0.7])])(images[:1]).numpy()[0]
    expected = 0.99 * np.array([0.25, 0.25, 0.5]) + 0.01 * np.array([0.25, 0.3, 0.45])
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_one_more_vote_wins_among_many_members(images: np.ndarray) -> None:
    models = [fixed([0.501, 0.499])] * 31 + [fixed([0.001, 0.999])] * 30
    assert vote(models)(images[:1]).numpy().argmax(-1).tolist() == [0]


@pytest.mark.parametrize("combine", [average, vote])
def test_the_same_member_may_be_given_twice(combine, images: np.ndarray) -> None:
    one, other = member(0), member(1)
    got = combine([one, one, other])(images).numpy().argmax(-1)
    if combine is vote:
        np.testing.assert_array_equal(got, one(images).numpy().argmax(-1))
    else:
        expected = predictions([one, one, other], images).mean(0).argmax(-1)
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("combine", [average, vote])
def test_members_do_not_change(combine, images: np.ndarray) -> None:
    models = [member(0), member(1)]
    before = predictions(models, images)
    ensemble = combine(models)
    ensemble.set_weights([np.zeros_like(weight) for weight in ensemble.get_weights()])
    np.testing.assert_array_equal(predictions(models, images), before)
    assert [model.name for model in models] == ["member", "member"]


@pytest.mark.parametrize("combine", [average, vote])
def test_saved_and_loaded_in_safe_mode_it_predicts_the_same(combine, images, tmp_path) -> None:
    ensemble = combine([member(0), member(1), member(2)])
    ensemble.save(tmp_path / "ensemble.keras")
    loaded = keras.models.load_model(tmp_path / "ensemble.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(images).numpy(), ensemble(images).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("combine", [average, vote])
def test_converted_with_builtin_operations_it_predicts_the_same(combine, images, tmp_path) -> None:
    ensemble = combine([member(0), member(1), member(2)])
    got = run_lite(ensemble, images[:4], tmp_path / "ensemble.tflite")
    np.testing.assert_allclose(got, ensemble(images[:4]).numpy(), atol=1e-5)


def test_members_that_do_not_agree_are_all_named() -> None:
    with pytest.raises(TrainingError) as caught:
        average([member(0), member(0, classes=3), member(0, size=16)])
    assert "(None, 3)" in str(caught.value)
    assert "(None, 16, 16, 3)" in str(caught.value)


WEIGHTS = [[1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0], ["a", "b"], "ab", 1.0, [1e308] * 2]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_invalid_weights_are_refused(weights: object) -> None:
    with pytest.raises(TrainingError, match="weights"):
        average([member(0), member(1)], weights)


def test_a_single_member_is_refused() -> None:
    with pytest.raises(TrainingError, match="members"):
        vote([member(0)])


def dense(units: int, activation: str | None, bias: list[float]) -> keras.Model:
    """Return a classifier of four numbers with the same output for all of them."""
    row = keras.Input((4,))
    start = {"kernel_initializer": "zeros", "bias_initializer": keras.initializers.Constant(bias)}
    return keras.Model(row, keras.layers.Dense(units, activation, **start)(row))


def unit(probability: float) -> keras.Model:
    return dense(1, "sigmoid", [np.log(probability / (1 - probability))])


@pytest.mark.parametrize(
    ("probabilities", "fraction"),
    [((0.1, 0.1, 0.1), 0), ((0.1, 0.1, 0.9), 1 / 3), ((0.6, 0.7, 0.1), 2 / 3), ((0.9,) * 3, 1)],
)
def test_one_unit_votes_by_its_threshold(probabilities, fraction: float) -> None:
    got = vote([unit(p) for p in probabilities])(np.zeros((1, 4))).numpy()
    np.testing.assert_allclose(got, [[0.99 * fraction + 0.01 * np.mean(probabilities)]], atol=1e-6)
    assert (got > 0.5) == (fraction > 0.5)


def test_ties_of_one_unit_go_to_the_higher_mean_and_half_votes_count_for_neither() -> None:
    row = np.zeros((1, 4))
    assert vote([unit(0.1), unit(0.8)])(row).numpy() < 0.5
    assert vote([unit(0.3), unit(0.8)])(row).numpy() > 0.5
    np.testing.assert_allclose(vote([unit(0.5), unit(0.5)])(row), [[0.5]], atol=1e-6)


def test_one_unit_votes_in_a_lite_file(images, tmp_path) -> None:
    def binary(bias: float) -> keras.Model:
        pixels = keras.Input((8, 8, 3))
        x = keras.layers.Rescaling(1 / 255, offset=bias)(pixels)
        return keras.Model(pixels, keras.layers.Dense(1, "sigmoid")(keras.layers.Flatten()(x)))

    ensemble = vote([binary(bias) for bias in (-0.5, -0.4, -0.6)])
    got = run_lite(ensemble, images[:4], tmp_path / "vote.tflite")
    np.testing.assert_allclose(got, ensemble(images[:4]).numpy(), atol=1e-5)


NO_VOTES = {
    "logits": lambda: dense(3, None, [-90.0, 40.0, 5.0]),
    "logits of zero": lambda: dense(3, None, [0.0, 0.0, 0.0]),
    "one logit": lambda: dense(1, None, [0.2]),
    "several labels an image": lambda: dense(3, "sigmoid", [0.0, 2.0, 2.0]),
    "NaN": lambda: dense(3, "softmax", [np.nan, 0.0, 0.0]),
}


@pytest.mark.parametrize("kind", NO_VOTES)
def test_members_without_votes_are_refused(kind: str) -> None:
    with pytest.raises(TrainingError, match="no votes"):
        vote([NO_VOTES[kind](), NO_VOTES[kind]()])


def test_an_average_of_several_labels_or_of_logits_is_their_mean() -> None:
    for activation in ("sigmoid", None):
        members = [dense(3, activation, [k, 2.0, 1.0]) for k in (0.0, 3.0)]
        row = np.zeros((1, 4))
        expected = np.mean([model(row) for model in members], axis=0)
        np.testing.assert_allclose(average(members)(row), expected, atol=1e-6)


def test_logits_are_not_averaged_with_probabilities() -> None:
    with pytest.raises(TrainingError, match="logits"):
        average([dense(3, None, [1.0, 2.0, 3.0]), dense(3, "softmax", [1.0, 2.0, 3.0])])


class Subclassed(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.logits = keras.layers.Dense(3, "softmax")

    def call(self, inputs):
        return self.logits(inputs)


def built() -> keras.Model:
    model = Subclassed()
    model(np.zeros((1, 4)))
    return model


def two_inputs() -> keras.Model:
    rows = [keras.Input((4,)), keras.Input((4,))]
    return keras.Model(rows, keras.layers.Dense(3, "softmax")(keras.layers.Concatenate()(rows)))


def two_outputs() -> keras.Model:
    row = keras.Input((4,))
    return keras.Model(row, [keras.layers.Dense(3)(row), keras.layers.Dense(2)(row)])


NO_MEMBERS = {
    "subclassed": lambda: [built(), built()],
    "unbuilt": lambda: [keras.Sequential([keras.layers.Dense(3, "softmax")])] * 2,
    "several inputs": lambda: [two_inputs()] * 2,
    "several outputs": lambda: [two_outputs()] * 2,
    "paths": lambda: ["a.keras", "b.keras"],
    "a path": lambda: Path("a.keras"),
    "a text": lambda: "a.keras",
    "layers": lambda: [keras.layers.Dense(3), keras.layers.Dense(3)],
    "one model": lambda: unit(0.2),
    "None": lambda: None,
    "None twice": lambda: [None, None],
}


@pytest.mark.parametrize("combine", [average, vote])
@pytest.mark.parametrize("kind", NO_MEMBERS)
def test_what_cannot_be_a_member_is_refused(kind: str, combine) -> None:
    with pytest.raises(TrainingError):
        combine(NO_MEMBERS[kind]())


class Halves(keras.layers.Layer):
    def call(self, x):
        return x / 2


class Needy(keras.layers.Layer):
    def __init__(self, wanted: object) -> None:
        super().__init__()

    def get_config(self) -> dict:
        return {"unwanted": 1}

    def call(self, x):
        return x


def ending(layer: keras.layers.Layer) -> keras.Model:
    row = keras.Input((4,))
    return keras.Model(row, keras.layers.Dense(3, "softmax")(layer(row)))


@pytest.mark.parametrize("combine", [average, vote])
def test_custom_layers_in_memory_work(combine) -> None:
    factor = np.float32(3)

    def thirds(x):
        return x / factor

    for layer in (Halves(), keras.layers.Lambda(lambda x: x * factor), keras.layers.Lambda(thirds)):
        member, rows = ending(layer), np.eye(4, dtype="float32")
        got = combine(member for _ in range(2))(rows).numpy()
        if combine is average:
            np.testing.assert_array_equal(got, member(rows))
        np.testing.assert_array_equal(got.argmax(-1), member(rows).numpy().argmax(-1))


def test_a_layer_that_its_configuration_does_not_describe_is_named() -> None:
    with pytest.raises(TrainingError, match=r"(?s)'needy.*cannot be copied.*get_config"):
        average([ending(Needy(1)), ending(Needy(2))])


def test_the_input_keeps_its_type_and_its_name() -> None:
    def member() -> keras.Model:
        pixels = keras.Input((8, 8, 3), dtype="uint8", name="photo")
        x = keras.layers.Rescaling(1 / 255)(pixels)
        x = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(x))
        return keras.Model({"photo": pixels}, [x])

    one, other = member(), member()
    photo = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), "uint8")
    expected = (one({"photo": photo}) + other({"photo": photo})) / 2
    combined = average([one, other])
    assert combined.inputs[0].dtype == "uint8"
    np.testing.assert_allclose(combined(photo), expected, atol=1e-6)
