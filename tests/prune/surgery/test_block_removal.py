"""A block without its branch equals a block whose branch outputs zeros."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from kpipe.errors import PruneError
from kpipe.prune import plan, rank_blocks, remove_blocks, remove_filters, residual_blocks
from kpipe.prune.graph.graph_reading import read
from tests.prune import nets
from tests.prune.masking import randomize

# Constructor, options, how many residual blocks it has, and which of them has a projection.
REAL = [
    pytest.param("ResNet50", {}, 16, 0, marks=pytest.mark.slow),
    pytest.param("ResNet50V2", {}, 16, 3, marks=pytest.mark.slow),
    ("MobileNetV2", {"alpha": 0.35}, 10, None),
    ("MobileNetV3Small", {}, 6, None),
    ("EfficientNetB0", {}, 9, None),
    pytest.param("Xception", {}, 12, 0, marks=pytest.mark.slow),
    pytest.param("ConvNeXtTiny", {}, 18, None, marks=pytest.mark.slow),
]


def without_branch(model: keras.Model, image: np.ndarray, names: set[str]) -> np.ndarray:
    """The output if each of the named sums outputs its shortcut."""
    blocks = {block.name: block for block in residual_blocks(model) if block.name in names}
    graph = read(model)
    sums = {op.name: op.calls[0].inputs for op in graph.operations if op.name in blocks}

    def masked(operation: keras.Operation):
        def call(*args, **kwargs):
            if operation.name not in blocks:
                return operation(*args, **kwargs)
            inputs = keras.tree.flatten(args)
            return inputs[sums[operation.name].index(blocks[operation.name].shortcut)]

        return call

    answer = model._run_through_graph(keras.ops.convert_to_tensor(image), operation_fn=masked)
    return np.asarray(keras.tree.flatten(answer)[0])


def check(model: keras.Model, names: set[str]) -> keras.Model:
    image = np.random.default_rng(0).uniform(0, 1, (2, *model.input_shape[1:])).astype("float32")
    expected = without_branch(model, image, names)
    small = remove_blocks(model, names)
    np.testing.assert_allclose(small(image), expected, rtol=1e-5, atol=1e-6)
    assert small.count_params() < model.count_params()
    kept = {layer.name: layer for layer in small.layers}
    assert kept.keys() < {layer.name for layer in model.layers}
    return small


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "count", "projected"), REAL)
def test_blocks_of_real_architectures(name, options, count, projected) -> None:
    size = 71 if name == "Xception" else 32
    make = getattr(keras.applications, name)
    base = make(include_top=False, weights=None, input_shape=(size, size, 3), **options)
    model = nets.classifier(base.input, base.output)
    model = randomize(remove_filters(model, plan(model, {})), 2)
    blocks = residual_blocks(model)
    assert len(blocks) == count
    chosen = {blocks[1].name, blocks[-1].name}
    small = check(model, chosen)
    gone = {layer.name for layer in model.layers} - {layer.name for layer in small.layers}
    branch = {n for b in blocks if b.name in chosen for n in b.branch}
    assert {n for n in branch if n in {layer.name for layer in model.layers}} <= gone
    if projected is not None:
        graph = read(model)
        makers = {t: op for op in graph.operations for call in op.calls for t in call.outputs}
        assert "Conv2D" in makers[blocks[projected].shortcut].kind or (
            makers[blocks[projected].shortcut].kind == "layers.BatchNormalization"
        )
        check(model, {blocks[projected].name})


def test_neighbours_may_go_together() -> None:
    model = randomize(nets.residual())
    assert [block.name for block in residual_blocks(model)] == ["a_add", "b_add", "c_add"]
    check(model, {"a_add", "b_add"})
    small = check(model, {"a_add", "b_add", "c_add"})
    assert not residual_blocks(small)
    with pytest.raises(ValueError, match="No such layer"):
        small.get_layer("a_1")


def test_the_block_without_which_the_loss_is_least_goes_first() -> None:
    model = randomize(nets.residual())
    asked: list[set[str]] = []

    def loss(net: keras.Model) -> float:
        left = {block.name for block in residual_blocks(net)}
        asked.append(left)
        return {"a_add": 2.0, "b_add": 3.0, "c_add": 1.0}.get(
            *({"a_add", "b_add", "c_add"} - left - gone), 0.0
        )

    gone: set[str] = set()
    ranked = rank_blocks(model, loss)
    assert list(ranked.items()) == [("c_add", 1.0), ("a_add", 2.0), ("b_add", 3.0)]
    one = remove_blocks(model, 1, loss=loss)
    assert {block.name for block in residual_blocks(one)} == {"a_add", "b_add"}


def test_other_sums_are_not_blocks() -> None:
    pixels = nets.image()
    x = nets.conv(pixels, 4, "first")
    double = layers.Add(name="double")([x, x])
    plus = keras.ops.add(double, 1.0)
    wide = layers.Add(name="broadcast")([plus, layers.Conv2D(1, 1, name="one")(plus)])
    model = nets.classifier(pixels, wide)
    assert residual_blocks(model) == ()


def test_what_cannot_be_removed_is_refused_by_name() -> None:
    model = nets.residual()
    with pytest.raises(PruneError, match="did you mean 'a_add'"):
        remove_blocks(model, ["a_ad"])
    with pytest.raises(PruneError, match="0 to 3, the residual blocks"):
        remove_blocks(model, 4, loss=lambda net: 0.0)
    with pytest.raises(PruneError, match="needs loss"):
        remove_blocks(model, 1)
    assert len(residual_blocks(remove_blocks(model, np.int64(1), loss=lambda net: 0.0))) == 2
