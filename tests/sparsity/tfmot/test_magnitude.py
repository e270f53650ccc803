from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kpipe.errors import SparsityError
from kpipe.sparsity import (
    ConstantSparsity,
    PolynomialSparsity,
    TrainingSettings,
    measure_sparsity,
    prune_magnitude,
    train_quantized,
)
from tests.sparsity.conftest import (
    Killed,
    batches,
    killed_after,
    pixels,
    seeded,
    shared_between_models,
    small_classifier,
)

QUICK = {"sparsity": 0.5, "epochs": 3, "steps_per_epoch": 4}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_classifier()


@pytest.fixture(scope="module")
def pruned(model: keras.Model) -> keras.Model:
    return prune_magnitude(model, batches, **QUICK)


def test_kernels_reach_the_sparsity_and_depthwise_stays_dense(pruned):
    half = pytest.approx(0.5, abs=0.01)
    assert measure_sparsity(pruned) == {
        "stem": half,
        "depthwise": 0.0,
        "project": half,
        "top": half,
    }


def test_small_weights_are_the_ones_that_go(model):
    """With hardly any learning the zeros must be where the original is smallest."""
    pruned = prune_magnitude(model, batches, **QUICK, settings=TrainingSettings(learning_rate=1e-9))
    before = np.abs(model.get_layer("stem").kernel.numpy())
    after = pruned.get_layer("stem").kernel.numpy()
    np.testing.assert_array_equal(after == 0, before < np.median(before))
    np.testing.assert_allclose(np.abs(after)[after != 0], before[after != 0], atol=1e-5)


def test_result_is_a_keras_model_of_the_same_layers_and_the_original_is_left_alone(model, pruned):
    assert isinstance(pruned, keras.Model)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in model.layers]
    for untouched, weight in zip(small_classifier().weights, model.weights, strict=True):
        np.testing.assert_array_equal(untouched, weight)
    assert not np.array_equal(model.weights[0], pruned.weights[0])


def test_a_step_is_traced_once(model, monkeypatch):
    traced, step = [], tf_keras.Model.train_step

    def counted(twin, batch):
        traced.append(twin)
        return step(twin, batch)

    monkeypatch.setattr(tf_keras.Model, "train_step", counted)
    prune_magnitude(model, batches, **QUICK)
    assert len(traced) == 1


def test_training_learns():
    model = small_classifier()
    said: list[dict[str, float]] = []
    settings = TrainingSettings(learning_rate=0.05, on_epoch=lambda epoch, logs: said.append(logs))
    prune_magnitude(
        model,
        batches,
        sparsity=0.3,
        epochs=8,
        steps_per_epoch=4,
        schedule=PolynomialSparsity(ramp=0.3),
        settings=settings,
    )
    assert [sorted(logs) for logs in said] == [["accuracy", "loss"]] * 8
    assert said[-1]["loss"] < said[0]["loss"]


@pytest.mark.slow
def test_killed_training_continues_and_ends_as_if_never_killed(tmp_path, model, pruned):
    settings = TrainingSettings(on_epoch=killed_after(0))
    with pytest.raises(Killed):
        prune_magnitude(model, batches, **QUICK, settings=settings, folder=tmp_path)
    epochs: list[int] = []
    settings = TrainingSettings(on_epoch=lambda epoch, logs: epochs.append(epoch))
    resumed = prune_magnitude(model, batches, **QUICK, settings=settings, folder=tmp_path)
    assert epochs == [1, 2]
    for old, new in zip(pruned.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    def never(first_epoch: int) -> tf.data.Dataset:
        raise AssertionError("a finished training needs no data")

    again = prune_magnitude(model, never, **QUICK, folder=tmp_path)
    for old, new in zip(pruned.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_warned_about(tmp_path, model, pruned):
    settings = TrainingSettings(on_epoch=killed_after(1))
    with pytest.raises(Killed):
        prune_magnitude(model, batches, **QUICK, settings=settings, folder=tmp_path)
    _, second = sorted(tmp_path.glob("*.data-*"))
    content = second.read_bytes()
    second.write_bytes(bytes(len(content)))
    with pytest.warns(UserWarning, match=r"ckpt-8 cannot be read"):
        resumed = prune_magnitude(model, batches, **QUICK, folder=tmp_path)
    for old, new in zip(pruned.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    for file in tmp_path.glob("*.data-*"):
        file.write_bytes(bytes(file.stat().st_size))
    with (
        pytest.warns(UserWarning, match="cannot be read"),
        pytest.raises(SparsityError, match="no checkpoint of this training can be read"),
    ):
        prune_magnitude(model, batches, **QUICK, folder=tmp_path)


def test_seed_changes_the_dropout_draws(model, pruned):
    other = prune_magnitude(model, batches, **QUICK, settings=TrainingSettings(seed=1))
    assert not np.array_equal(pruned.get_layer("top").kernel, other.get_layer("top").kernel)


def test_folder_of_another_training_is_refused(tmp_path, model):
    settings = TrainingSettings(on_epoch=killed_after(0))
    with pytest.raises(Killed):
        prune_magnitude(model, batches, **QUICK, settings=settings, folder=tmp_path)
    with pytest.raises(SparsityError, match=r"sparsity=0\.6") as caught:
        prune_magnitude(model, batches, **{**QUICK, "sparsity": 0.6}, folder=tmp_path)
    assert "sparsity=0.5" in str(caught.value)
    with pytest.raises(SparsityError, match="weights="):
        prune_magnitude(seeded(small_classifier(), seed=1), batches, **QUICK, folder=tmp_path)


def test_frozen_layers_are_neither_trained_nor_pruned():
    model = small_classifier()
    frozen = [layer for layer in model.layers if layer.weights and layer.name != "top"]
    for layer in frozen:
        layer.trainable = False
    pruned = prune_magnitude(model, batches, **QUICK)
    assert measure_sparsity(pruned)["stem"] == 0
    assert measure_sparsity(pruned)["top"] > 0
    for layer in frozen:
        for old, new in zip(
            layer.get_weights(), pruned.get_layer(layer.name).get_weights(), strict=True
        ):
            np.testing.assert_array_equal(old, new)
        assert not pruned.get_layer(layer.name).trainable


def test_class_weight_changes_the_result(model, pruned):
    weighted = prune_magnitude(
        model, batches, **QUICK, settings=TrainingSettings(class_weight={0: 10.0, 1: 0.1})
    )
    assert not np.array_equal(pruned.get_layer("top").bias, weighted.get_layer("top").bias)


@pytest.mark.slow
def test_whole_labels_given_as_shares_with_weights_train_alike(model):
    def as_shares(first_epoch):
        return batches(first_epoch).map(
            lambda images, labels: (images, tf.one_hot(labels, 2), tf.gather([3.0, 0.5], labels))
        )

    settings = TrainingSettings(class_weight={0: 3.0, 1: 0.5})
    expected = prune_magnitude(model, batches, **QUICK, settings=settings)
    got = prune_magnitude(model, as_shares, **QUICK)
    for one, other in zip(got.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    with pytest.raises(SparsityError, match="class_weight needs integer labels"):
        prune_magnitude(model, as_shares, **QUICK, settings=settings)


@pytest.mark.slow
def test_one_dataset_is_repeated_and_resumed(tmp_path, model):
    images = pixels(16)
    labels = (images[:, :8].mean((1, 2, 3)) > 127.5).astype(np.int64)
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    whole = prune_magnitude(model, data, **QUICK)
    settings = TrainingSettings(on_epoch=killed_after(0))
    with pytest.raises(Killed):
        prune_magnitude(model, data, **QUICK, settings=settings, folder=tmp_path)
    cut = prune_magnitude(model, data, **QUICK, folder=tmp_path)
    for old, new in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_nested_models_are_pruned_inside():
    inputs = keras.Input((16, 16, 3))
    inner = small_classifier()
    inner = keras.Model(inner.input, inner.get_layer("project").output, name="body")
    x = keras.layers.GlobalAveragePooling2D()(inner(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x))
    shares = measure_sparsity(prune_magnitude(model, batches, **QUICK))
    assert shares["body/stem"] == pytest.approx(0.5, abs=0.01)
    assert shares["body/project"] == pytest.approx(0.5, abs=0.02)
    assert shares["body/depthwise"] == 0


@pytest.mark.parametrize("steps", [1, 13])
def test_final_sparsity_is_reached_whatever_the_number_of_steps(model, steps):
    few = prune_magnitude(model, batches, sparsity=0.5, epochs=1, steps_per_epoch=steps)
    assert measure_sparsity(few)["stem"] == pytest.approx(0.5, abs=0.01)


def test_constant_schedule_has_all_zeros_from_its_first_step_on(model):
    """With hardly any learning, one epoch in two is enough for the final masks."""
    pruned = prune_magnitude(
        model,
        batches,
        **QUICK,
        schedule=ConstantSparsity(begin=0.5, updates=2),
        settings=TrainingSettings(learning_rate=1e-9),
    )
    before = np.abs(model.get_layer("stem").kernel.numpy())
    after = pruned.get_layer("stem").kernel.numpy()
    np.testing.assert_array_equal(after == 0, before < np.median(before))


def test_two_of_every_four_weights_along_the_inputs_are_zero(model):
    pruned = prune_magnitude(
        model,
        batches,
        m_by_n=(2, 4),
        epochs=1,
        steps_per_epoch=4,
        settings=TrainingSettings(learning_rate=1e-9),
    )
    for name in ("project", "top"):
        before = np.abs(model.get_layer(name).kernel.numpy())
        after = pruned.get_layer(name).kernel.numpy()
        fours = [np.moveaxis(kernel, -2, -1).reshape(-1, 4) for kernel in (before, after)]
        small = fours[0] < np.sort(fours[0], axis=1)[:, 2:3]
        np.testing.assert_array_equal(fours[1] == 0, small)
    # Three input channels are a row of four with nothing in the last place.
    assert (pruned.get_layer("stem").kernel.numpy() == 0).sum(axis=2).min() == 1


def test_dense_kernels_lose_whole_blocks():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, name="conv")(inputs)
    x = keras.layers.Dense(8, activation="relu", name="dense")(keras.layers.Flatten()(x))
    model = seeded(keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="top")(x)))
    pruned = prune_magnitude(
        model, batches, sparsity=0.5, epochs=2, steps_per_epoch=4, block_size=(4, 2)
    )
    blocks = (pruned.get_layer("dense").kernel.numpy() == 0).reshape(16, 4, 4, 2)
    assert set(blocks.sum(axis=(1, 3)).ravel()) == {0, 8}
    assert blocks.mean() == pytest.approx(0.5, abs=0.02)
    assert measure_sparsity(pruned)["conv"] == 0


@pytest.mark.parametrize("share", [{}, {"sparsity": 0.5, "m_by_n": (2, 4)}])
def test_the_share_of_zeros_is_said_once(model, share):
    with pytest.raises(SparsityError, match="sparsity is not clear"):
        prune_magnitude(model, batches, epochs=1, steps_per_epoch=4, **share)


@pytest.mark.slow
def test_a_rate_may_fall_along_a_cosine_and_survives_a_cut(tmp_path, model):
    def falling(**more):
        return TrainingSettings(learning_rate_schedule="cosine", learning_rate=0.01, **more)

    whole = prune_magnitude(model, batches, **QUICK, settings=falling())
    constant = prune_magnitude(
        model, batches, **QUICK, settings=TrainingSettings(learning_rate=0.01)
    )
    moved, far = (
        np.abs(m.get_layer("top").bias.numpy() - model.get_layer("top").bias.numpy()).mean()
        for m in (whole, constant)
    )
    assert 0 < moved < far
    with pytest.raises(Killed):
        prune_magnitude(
            model, batches, **QUICK, settings=falling(on_epoch=killed_after(1)), folder=tmp_path
        )
    resumed = prune_magnitude(model, batches, **QUICK, settings=falling(), folder=tmp_path)
    for old, new in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_other_patterns_are_other_trainings(tmp_path, model):
    settings = TrainingSettings(on_epoch=killed_after(0))
    with pytest.raises(Killed):
        prune_magnitude(model, batches, **QUICK, settings=settings, folder=tmp_path)
    with pytest.raises(SparsityError, match="schedule="):
        prune_magnitude(model, batches, **QUICK, schedule="constant", folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schedule": "linear"}, "unknown schedule 'linear'"),
        ({"schedule": ConstantSparsity(begin=1.0)}, "begin=1.0"),
        ({"sparsity": None, "m_by_n": (4, 2)}, r"m_by_n=\(4, 2\)"),
        ({"block_size": (0, 2)}, r"block_size=\(0, 2\)"),
        ({"sparsity": 0.0}, "sparsity=0.0"),
        ({"sparsity": 1.0}, "sparsity=1.0"),
        ({"sparsity": float("nan")}, "sparsity=nan"),
        ({"epochs": 0, "steps_per_epoch": 0}, "epochs=0, steps_per_epoch=0"),
        ({"schedule": PolynomialSparsity(ramp=1.5, updates=0)}, "ramp=1.5, updates=0"),
        ({"sparsity": None, "m_by_n": (2, 4), "block_size": (2, 2)}, r"m_by_n=\(2, 4\)"),
        ({"settings": TrainingSettings(optimizer="adamm")}, "adamm"),
        (
            {"settings": TrainingSettings(learning_rate_schedule="cosin")},
            "unknown learning_rate_schedule 'cosin'",
        ),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(model, change, named):
    with pytest.raises(SparsityError, match=named):
        prune_magnitude(model, batches, **{**QUICK, **change})


def test_loss_that_is_not_finite_is_refused(model):
    def broken(first_epoch: int) -> tf.data.Dataset:
        return batches(first_epoch).map(lambda images, labels: (images * np.nan, labels))

    with pytest.raises(SparsityError, match="loss became nan at step 1"):
        prune_magnitude(model, broken, **QUICK)


def test_a_label_without_an_answer_is_named(model):
    def shifted(first_epoch: int) -> tf.data.Dataset:
        return batches(first_epoch).map(lambda images, labels: (images, labels - 1))

    for weights in (None, {0: 2.0, 1: 1.0}):
        settings = TrainingSettings(class_weight=weights)
        with pytest.raises(SparsityError, match=r"no output for label -1"):
            prune_magnitude(model, shifted, **QUICK, settings=settings)


@pytest.mark.slow
def test_classes_that_class_weight_does_not_name_count_once(model):
    weights = ({0: 3.0}, {0: 3.0, 1: 1.0}, {9: 1.0})
    one, other = (
        prune_magnitude(model, batches, **QUICK, settings=TrainingSettings(class_weight=factors))
        for factors in weights[:2]
    )
    for got, expected in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(SparsityError, match="without an output: 9"):
        prune_magnitude(model, batches, **QUICK, settings=TrainingSettings(class_weight=weights[2]))


@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_that_ends_is_refused(model):
    with pytest.raises(SparsityError, match="data ended in epoch 1"):
        prune_magnitude(model, lambda epoch: batches(epoch).take(6), **QUICK)


def test_nothing_to_prune_is_refused():
    model = small_classifier()
    model.trainable = False
    with pytest.raises(SparsityError, match="nothing to prune"):
        prune_magnitude(model, batches, **QUICK)


def activated(kind: str) -> keras.Model:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activation=kind)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return seeded(keras.Model(inputs, keras.layers.Dense(2, "softmax", name="top")(x)))


def test_a_folder_is_refused_to_other_layers_with_weights_of_the_same_shapes(tmp_path):
    prune_magnitude(activated("relu"), batches, **QUICK, folder=tmp_path)
    prune_magnitude(activated("relu"), batches, **QUICK, folder=tmp_path)
    with pytest.raises(SparsityError, match="another training"):
        prune_magnitude(activated("tanh"), batches, **QUICK, folder=tmp_path)
    frozen = activated("relu")
    frozen.layers[2].trainable = False
    with pytest.raises(SparsityError, match="another training"):
        prune_magnitude(frozen, batches, **QUICK, folder=tmp_path)


def test_numbers_of_numpy_are_numbers(tmp_path, model):
    settings = TrainingSettings(learning_rate=np.float32(0.5), seed=np.int64(2))
    quick = {"sparsity": np.float32(0.5), "epochs": np.int64(1), "steps_per_epoch": np.int64(2)}
    for _ in range(2):
        prune_magnitude(model, batches, **quick, settings=settings, folder=tmp_path)


@pytest.mark.slow
def test_kernels_too_narrow_for_a_pattern_stay_dense_and_alone_are_refused(model):
    pruned = prune_magnitude(model, batches, m_by_n=(2, 8), epochs=1, steps_per_epoch=4)
    assert measure_sparsity(pruned)["stem"] == 0  # three inputs, of which six of eight might stay
    assert measure_sparsity(pruned)["project"] == pytest.approx(0.25, abs=0.01)
    with pytest.raises(SparsityError, match="nothing to prune"):
        prune_magnitude(model, batches, m_by_n=(2, 16), epochs=1, steps_per_epoch=4)


def test_kernels_of_a_few_weights_are_pruned_as_far_as_they_can_be():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(1, 1, name="gray")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Dense(2, "softmax", name="top")(keras.layers.Flatten()(x))
    shares = measure_sparsity(prune_magnitude(seeded(keras.Model(inputs, x)), batches, **QUICK))
    assert shares["gray"] == pytest.approx(1 / 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning")
def test_data_a_batch_short_are_noticed(model):
    quick = {"sparsity": 0.5, "epochs": 2, "steps_per_epoch": 2}
    for count, received in ((3, "received: 1"), (2, "received: 0")):
        with pytest.raises(SparsityError, match="data ended in epoch 1") as caught:
            prune_magnitude(model, lambda epoch, count=count: batches(epoch).take(count), **quick)
        assert received in str(caught.value)


def test_what_is_shared_between_models_stays_shared_and_is_pruned_once():
    model = shared_between_models()
    found = prune_magnitude(model, batches, **QUICK)
    assert found.count_params() == model.count_params()
    assert measure_sparsity(found)["inner/shared"] == measure_sparsity(found)["shared"] > 0.4


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (pixels(8), np.zeros(8, "int64")),  # not batched
        (pixels(8, 12)[None], np.zeros((1, 8), "int64")),
        (pixels(8)[None], np.zeros((1, 8), "float32")),
        (pixels(8)[None], np.zeros((1, 8, 3), "float32")),
        (pixels(8)[None], np.zeros((1, 8, 2), "int64")),
    ],
)
def test_batches_that_do_not_fit_are_refused(model, images, labels):
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    with pytest.raises(SparsityError, match="do not fit"):
        prune_magnitude(model, data, **QUICK)


def test_data_without_a_batch_are_refused(model):
    data = tf.data.Dataset.from_tensor_slices((pixels(8)[None], np.zeros((1, 8), "int64")))
    with pytest.raises(SparsityError, match="no batch"):
        prune_magnitude(model, data.take(0), **QUICK)


def test_weights_that_are_no_numbers_are_refused():
    broken = small_classifier()
    value = broken.get_layer("stem").kernel.numpy()
    value[0, 0, 0, 0] = np.nan
    broken.get_layer("stem").kernel.assign(value)
    with pytest.raises(SparsityError, match="stem/kernel"):
        prune_magnitude(broken, batches, **QUICK)


def test_layers_that_regularize_their_outputs_are_refused_by_name():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, activity_regularizer="l1", name="first")(inputs)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    with pytest.raises(SparsityError, match="first"):
        prune_magnitude(model, batches, **QUICK)
    with pytest.raises(SparsityError, match="first"):
        train_quantized(model, batches, epochs=1, steps_per_epoch=1)
