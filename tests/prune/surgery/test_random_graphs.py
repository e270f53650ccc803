"""Removal is exact on random graphs."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

from kpipe.prune import count_macs, plan, remove_filters
from tests.prune.growing import grow
from tests.prune.masking import random_request, randomize, worst_difference

SLOW = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def check(model: keras.Model, seed: int) -> None:
    image = np.random.default_rng(seed).uniform(-2, 2, (2, *model.input_shape[1:]))
    image = image.astype("float32")
    opened = remove_filters(randomize(model, seed), plan(model, {}))  # nested models
    # Without training=False, Resizing tells layers after it to train (keras-team/keras#23166).
    whole, flat = model(image, training=False), opened(image, training=False)
    np.testing.assert_allclose(flat, whole, rtol=1e-4, atol=1e-6)
    model = opened
    request = random_request(model, seed)
    made = plan(model, request)
    new = remove_filters(model, made)
    event(f"{'some' if made.kept else 'no'} channels removed")
    assert worst_difference(model, new, made.kept, image) < 1e-4
    assert (new.count_params(), count_macs(new)) == (made.params_after, made.macs_after)
    for layer, channels in request.items():
        assert not set(channels) & set(made.kept.get(layer, []))
    assert new.output_shape == model.output_shape


@pytest.mark.slow
@given(data=st.data(), seed=st.integers(0, 99))
@settings(SLOW, max_examples=25)
def test_every_operation_equals_the_masked_original(data: st.DataObject, seed: int) -> None:
    check(grow(data.draw), seed)


@pytest.mark.slow
@given(data=st.data(), seed=st.integers(0, 99))
@settings(SLOW, max_examples=60)
def test_larger_graphs(data: st.DataObject, seed: int) -> None:
    check(grow(data.draw, steps=25), seed)
