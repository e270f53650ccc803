from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.errors import SparsityError
from kpipe.sparsity import TrainingSettings, cluster_weights, count_unique_weights
from tests.sparsity.conftest import (
    Killed,
    batches,
    killed_after,
    seeded,
    small_classifier,
    sparse_classifier,
)

QUICK = {"clusters": 8, "epochs": 2, "steps_per_epoch": 4}
FAST = {"settings": TrainingSettings(learning_rate=1e-3)}


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return small_classifier()


@pytest.fixture(scope="module")
def clustered(model: keras.Model) -> keras.Model:
    return cluster_weights(model, batches, **QUICK, **FAST)


def test_kernels_have_as_many_values_as_asked(model, clustered):
    assert count_unique_weights(model)["stem"] > 100
    assert count_unique_weights(clustered) == {"stem": 8, "depthwise": 72, "project": 8, "top": 8}


def test_weights_stay_near_where_they_were(model):
    still = cluster_weights(model, batches, **QUICK, settings=TrainingSettings(learning_rate=1e-9))
    before, after = (m.get_layer("project").kernel.numpy() for m in (model, still))
    values = np.unique(after)
    nearest = values[np.abs(before[..., None] - values).argmin(-1)]
    np.testing.assert_allclose(after, nearest, atol=1e-5)


def test_evenly_spaced_values(model):
    still = cluster_weights(
        model,
        batches,
        **QUICK,
        start="linear",
        settings=TrainingSettings(learning_rate=1e-9),
    )
    kernel = model.get_layer("stem").kernel.numpy()
    expected = np.linspace(kernel.min(), kernel.max(), 8)
    np.testing.assert_allclose(np.unique(still.get_layer("stem").kernel), expected, atol=1e-4)


def test_result_is_a_keras_model_of_the_same_layers_and_the_original_is_left_alone(
    model, clustered
):
    assert [layer.name for layer in clustered.layers] == [layer.name for layer in model.layers]
    for untouched, weight in zip(small_classifier().weights, model.weights, strict=True):
        np.testing.assert_array_equal(untouched, weight)


@pytest.mark.slow
def test_killed_training_continues_and_ends_as_if_never_killed(tmp_path, model, clustered):
    settings = TrainingSettings(learning_rate=1e-3, on_epoch=killed_after(0))
    with pytest.raises(Killed):
        cluster_weights(model, batches, **QUICK, settings=settings, folder=tmp_path)
    resumed = cluster_weights(model, batches, **QUICK, **FAST, folder=tmp_path)
    for old, new in zip(clustered.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    with pytest.raises(SparsityError, match="clusters=4"):
        cluster_weights(model, batches, **{**QUICK, "clusters": 4}, **FAST, folder=tmp_path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"clusters": 1}, "clusters=1"),
        ({"epochs": 0}, "epochs=0"),
        ({"start": "kmeans"}, "kmeans"),
        ({"clusters": 100_000}, "nothing to cluster"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(model, change, named):
    with pytest.raises(SparsityError, match=named):
        cluster_weights(model, batches, **{**QUICK, **change})


def test_frozen_layers_are_left_alone():
    model = seeded(small_classifier())
    model.get_layer("stem").trainable = False
    result = cluster_weights(model, batches, **QUICK)
    np.testing.assert_array_equal(result.get_layer("stem").kernel, model.get_layer("stem").kernel)
    assert count_unique_weights(result)["project"] == 8


def test_zeros_of_a_pruned_model_stay():
    sparse = sparse_classifier()
    result = cluster_weights(sparse, batches, **QUICK, **FAST)
    for name in ("stem", "top"):
        before, after = (m.get_layer(name).kernel.numpy() for m in (sparse, result))
        assert not after[before == 0].any()
    assert count_unique_weights(result)["stem"] == 8


def test_sparse_kernels_with_few_weights_left_stay_as_they_are():
    sparse = sparse_classifier()  # "top" has eight weights left, of either sign
    result = cluster_weights(sparse, batches, **{**QUICK, "clusters": 16}, **FAST)
    assert count_unique_weights(result)["stem"] == 16
    assert count_unique_weights(result)["top"] == count_unique_weights(sparse)["top"] == 9
