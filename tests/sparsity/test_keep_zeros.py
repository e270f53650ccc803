from __future__ import annotations

import keras
import numpy as np
import pytest

from kpipe.sparsity import KeepZeros

from .conftest import batches, sparse_classifier


def zeros(model: keras.Model) -> dict[str, int]:
    return {w.path: int((w.numpy() == 0).sum()) for w in model.trainable_weights}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("steps_per_execution", [1, 2])
def test_zeros_stay_where_they_are_and_the_rest_learns(optimizer, steps_per_execution):
    model = sparse_classifier()
    model.compile(
        optimizer, "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution
    )
    before, counts = model.get_layer("stem").kernel.numpy(), zeros(model)
    model.fit(
        batches(0), steps_per_epoch=4, epochs=2, verbose=0, shuffle=False, callbacks=[KeepZeros()]
    )
    after = model.get_layer("stem").kernel.numpy()
    assert zeros(model) == counts
    np.testing.assert_array_equal(after == 0, before == 0)
    assert not np.any((after == before) & (before != 0))


def test_without_it_they_do_not():
    model = sparse_classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = zeros(model)
    model.fit(batches(0), steps_per_epoch=4, verbose=0, shuffle=False)
    assert zeros(model)["stem/kernel"] < before["stem/kernel"]


@pytest.mark.slow
def test_a_fit_before_and_a_fit_after_are_not_bound():
    model = sparse_classifier()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.get_layer("stem").trainable = False
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(batches(0), steps_per_epoch=1, verbose=0, shuffle=False)
    dense = model.get_layer("top").kernel
    dense.assign(np.where(np.arange(16).reshape(8, 2) % 2, dense.numpy(), 0))
    model.fit(batches(0), steps_per_epoch=4, verbose=0, shuffle=False, callbacks=[KeepZeros()])
    assert (dense.numpy() == 0).sum() == 8
    model.fit(batches(0), steps_per_epoch=4, verbose=0, shuffle=False)
    assert (dense.numpy() == 0).sum() == 0


def test_a_constraint_of_the_layer_still_holds():
    model = sparse_classifier()
    kernel = model.get_layer("top").kernel
    kernel.constraint = own = keras.constraints.NonNeg()
    kernel.assign(np.abs(kernel.numpy()))
    model.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    model.fit(batches(0), steps_per_epoch=8, verbose=0, shuffle=False, callbacks=[KeepZeros()])
    assert kernel.numpy().min() == 0
    assert (kernel.numpy() == 0).sum() >= 8
    assert kernel.constraint is own


def test_averages_of_the_weights_keep_the_zeros():
    model = sparse_classifier()
    before = zeros(model)
    optimizer = keras.optimizers.Adam(0.01, use_ema=True)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(batches(0), steps_per_epoch=4, verbose=0, shuffle=False, callbacks=[KeepZeros()])
    assert zeros(model) == before


def test_a_fit_that_was_interrupted_leaves_nothing_to_the_next_with_it():
    class Interrupt(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    model = sparse_classifier()
    kernel = model.get_layer("top").kernel
    kernel.constraint = own = keras.constraints.NonNeg()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(KeyboardInterrupt):
        model.fit(
            batches(0),
            steps_per_epoch=2,
            verbose=0,
            shuffle=False,
            callbacks=[KeepZeros(), Interrupt()],
        )
    model.fit(batches(0), steps_per_epoch=2, verbose=0, shuffle=False, callbacks=[KeepZeros()])
    assert kernel.constraint is own


def test_of_a_part_of_what_is_fitted_the_rest_is_free():
    model = sparse_classifier()
    part = keras.Model(model.input, model.get_layer("top").input)
    before, top = zeros(part), model.get_layer("top").kernel
    top.assign(np.zeros(top.shape))
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(batches(0), steps_per_epoch=4, verbose=0, shuffle=False, callbacks=[KeepZeros(part)])
    assert zeros(part) == before
    assert (top.numpy() != 0).any()
