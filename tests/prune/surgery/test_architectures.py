"""Networks after the literature: cut exactly, and ordinary models afterwards."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kpipe.lite import convert
from kpipe.prune import count_macs, plan, rank, remove_filters
from tests.prune import nets
from tests.prune.architectures import ARCHITECTURES
from tests.prune.masking import random_request, randomize, worst_difference

# Keras' own save converts its variables in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NEW = ("shuffle net", "cross stage", "coordinates", "frames", "selective", "decoder")
ALL = {name: ARCHITECTURES[name][0] for name in ARCHITECTURES}
ALL |= {name: nets.NETS[name][0] for name in NEW}


def photos(model: keras.Model, seed: int = 0) -> np.ndarray:
    shape = (2, *model.input_shape[1:])
    return np.random.default_rng(seed).uniform(0, 2, shape).astype("float32")


def opened(model: keras.Model, seed: int) -> keras.Model:
    """The model with nested ones opened, which must predict the same."""
    flat = remove_filters(randomize(model, seed), plan(model, {}))
    for whole, new in zip(outputs(model, seed), outputs(flat, seed), strict=True):
        np.testing.assert_allclose(new, whole, rtol=1e-4, atol=1e-5)
    return flat


def outputs(model: keras.Model, seed: int = 0) -> list[np.ndarray]:
    made = model(photos(model, seed), training=False)
    return [np.asarray(x) for x in keras.tree.flatten(made)]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_cut_equals_the_masked_original(name: str) -> None:
    build, removable, protected = ARCHITECTURES[name]
    model = opened(build(), 1)
    free = {member for ranking in rank(model).values() for member in ranking.group.members}
    assert removable <= free
    request = random_request(model, 1)
    made = plan(model, request)
    for layer, reason in protected.items():
        assert layer not in free and reason in made.protected[layer]
    new = remove_filters(model, made)
    assert worst_difference(model, new, made.kept, photos(model)) < 1e-4
    assert (new.count_params(), count_macs(new)) == (made.params_after, made.macs_after)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=3, suppress_health_check=[HealthCheck.too_slow])
def test_any_plan_that_is_made_can_be_carried_out_exactly(name: str, seed: int) -> None:
    model = opened(ALL[name](), seed)
    made = plan(model, random_request(model, seed))
    new = remove_filters(model, made)
    assert worst_difference(model, new, made.kept, photos(model, seed)) < 1e-4
    assert (new.count_params(), count_macs(new)) == (made.params_after, made.macs_after)


EVERY = ALL | {name: build for name, (build, _) in nets.NETS.items()}


@pytest.mark.parametrize("name", EVERY)
def test_the_largest_removal_can_be_carried_out(name: str) -> None:
    """Of each group a single unit stays: what was ranked can be removed."""
    model = EVERY[name]()
    request: dict[str, list[int]] = {}
    for ranking in rank(model).values():
        request.setdefault(ranking.group.layer, []).extend(map(int, ranking.group.channels[1:]))
    made = plan(model, request)
    new = remove_filters(model, made)
    assert (new.count_params(), count_macs(new)) == (made.params_after, made.macs_after)
    if name != "grouped":  # the groups of a grouped convolution may come apart when it is narrow
        assert {len(ranking.group.units) for ranking in rank(new).values()} == {1}


def converted(model: keras.Model, path: Path) -> Path:
    if len(model.outputs) == 1 and (len(model.input_shape), len(model.output_shape)) == (4, 2):
        path.write_bytes(convert(model))
    else:  # kpipe converts classifiers of photos; a fixed batch, as it does
        signature = [keras.InputSpec(dtype="float32", shape=(1, *model.input_shape[1:]))]
        model.export(path, format="litert", input_signature=signature, verbose=False)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_what_is_left_is_saved_trained_and_converted(name: str, tmp_path: Path) -> None:
    model = randomize(ALL[name](), 2)
    new = remove_filters(model, plan(model, random_request(model, 2)))
    new.save(tmp_path / "new.keras")
    loaded = keras.models.load_model(tmp_path / "new.keras")
    for ours, theirs in zip(outputs(new), outputs(loaded), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    image = photos(model)
    interpreter = Interpreter(str(converted(new, tmp_path / "new.tflite")))
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    interpreter.set_tensor(given["index"], image[:1])
    interpreter.invoke()
    found = [interpreter.get_tensor(out["index"]) for out in interpreter.get_output_details()]
    for keras_output in outputs(new):
        assert any(np.allclose(keras_output[:1], out, 1e-3, 1e-4)
                   for out in found if out.shape == keras_output[:1].shape)  # fmt: skip
    loaded.compile("sgd", "mse")
    before = [weight.numpy() for weight in loaded.trainable_weights]
    loaded.train_on_batch(image, [0 * out for out in outputs(loaded)])
    moved = [np.any(a != b.numpy()) for a, b in zip(before, loaded.trainable_weights, strict=True)]
    assert sum(moved) > len(moved) / 2
