"""The definition of exact: a masked run of the old model, written independently of the package.

old model, every operation's output zeroed outside `kept`  ==  new model, on the kept channels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from kpipe.prune import rank
from tests.moving_statistics import set_moving_statistics


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Set every weight and moving statistic to values that hide no leak; return the model."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        shape = tuple(weight.shape)
        fan_in = max(1, int(np.prod(shape[:-1])))
        if weight.name == "count":  # images seen by a Normalization layer
            continue
        if weight.name in ("gamma", "moving_variance", "variance"):
            value = generator.uniform(0.5, 1.5, shape)
        elif weight.name.endswith("kernel"):
            value = generator.normal(0, fan_in**-0.5, shape)
        else:
            value = generator.normal(0, 0.5, shape)
        weight.assign(value.astype("float32"))
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model


def colored(count: int, size: int) -> np.ndarray:
    """Images of noise over one color each, which even a random network can distinguish."""
    random = np.random.default_rng(0)
    color = random.uniform(0, 255, (count, 1, 1, 3))
    noise = random.normal(0, 40, (count, size, size, 3))
    return (color + noise).clip(0, 255).astype("float32")


def settle(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Give a classifier matching statistics and predictions that differ; return the predictions.

    The variance of a channel that hardly varies is raised to the layer's mean, so that its
    normalization does not amplify it.
    """
    for weight in model.weights:
        if weight.name in ("beta", "bias"):  # large ones hide the differences between images
            weight.assign(0 * weight)
    set_moving_statistics(model, images)
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            variance = layer.moving_variance.numpy()
            layer.moving_variance.assign(np.maximum(variance, variance.mean()))
    head = model.get_layer("head_logits")
    logits = np.asarray(keras.Model(model.inputs[0], head.output)(images))
    spread = logits.std(axis=0)
    head.set_weights([head.kernel / spread, -logits.mean(axis=0) / spread])
    return np.asarray(model(images))


def random_request(model: keras.Model, seed: int) -> dict[str, list[int]]:
    """Random channels of every group; of some groups none, of no group all."""
    generator = np.random.default_rng(seed)
    request: dict[str, list[int]] = {}
    for ranking in rank(model, "random", seed=seed).values():
        channels = ranking.group.channels
        count = generator.integers(0, len(channels))
        chosen = generator.choice(channels, count, replace=False)
        request.setdefault(ranking.group.layer, []).extend(int(c) for c in chosen)
    return request


def channel_axes(old: keras.Model, new: keras.Model) -> dict[str, int]:
    """Name of each operation -> the axis, counted from the end, that lost channels; else -1."""
    axes = {}
    for before, after in zip(old.operations, new.operations, strict=True):
        shapes = [
            [node.shape for node in keras.tree.flatten(operation.output)]
            for operation in (before, after)
            if len(operation._inbound_nodes) == 1
        ]
        for larger, smaller in zip(*shapes, strict=True) if len(shapes) == 2 else ():
            changed = [n - len(larger) for n in range(len(larger)) if larger[n] != smaller[n]]
            axes[before.name] = changed[0] if changed else axes.get(before.name, -1)
    return axes


def joined(out: Any, axis: int) -> np.ndarray:
    """The channels of all outputs, one after the other, on the last axis."""
    outs = [np.moveaxis(np.asarray(x, float), axis, -1) for x in keras.tree.flatten(out)]
    if len({x.shape[:-1] for x in outs}) > 1:  # a sequence and a state, which lose no channels
        outs = [x.ravel() for x in outs]
    return np.concatenate(outs, -1)


def run(
    model: keras.Model,
    image: np.ndarray,
    kept: Mapping[str, np.ndarray],
    axes: Mapping[str, int] | None = None,
) -> dict[str, list[np.ndarray]]:
    """The output of each operation (one array per call), masked before other operations read it."""
    seen: dict[str, list[np.ndarray]] = {}

    def masked(operation: keras.Operation) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            out = operation(*args, **kwargs)
            axis = (axes or {}).get(operation.name, -1)
            if operation.name in kept:
                outs = out if isinstance(out, list) else [out]
                mask = np.zeros(sum(part.shape[axis] for part in outs), "float32")
                mask[kept[operation.name]] = 1
                ends = np.cumsum([part.shape[axis] for part in outs])[:-1]
                parts = [
                    part * np.expand_dims(cover, tuple(range(1, -axis)))
                    for part, cover in zip(outs, np.split(mask, ends), strict=True)
                ]
                out = parts if isinstance(out, list) else parts[0]
            seen.setdefault(operation.name, []).append(joined(out, axis))
            return out

        return call

    function = model._functional if isinstance(model, keras.Sequential) else model
    function._run_through_graph(keras.ops.convert_to_tensor(image), operation_fn=masked)
    return seen


def worst_difference(
    old: keras.Model, new: keras.Model, kept: Mapping[str, np.ndarray], image: np.ndarray
) -> float:
    """Largest difference of any operation on its kept channels, relative to its largest value."""
    axes = channel_axes(old, new)
    before, after = run(old, image, kept, axes), run(new, image, {}, axes)
    assert set(before) == set(after)
    worst = 0.0
    for name, outputs in before.items():
        for expected, received in zip(outputs, after[name], strict=True):
            expected = expected[..., kept[name]] if name in kept else expected
            assert expected.shape == received.shape, name
            assert np.isfinite(expected).all(), name  # max() would skip NaN
            scale = max(float(np.abs(expected).max()), 1e-6)
            worst = max(worst, float(np.abs(expected - received).max()) / scale)
    return worst
