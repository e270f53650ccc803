"""The wrong values of each kind of argument, which people really pass.

KINDS := kind -> (things) -> {label: value}. A value may be right for some arguments of its kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.wrong_arguments import kinds_of_values
from tests.wrong_arguments.kinds_of_values import Values, count, fraction, name, path
from tests.wrong_arguments.things import PHOTOS, SIZE, Things, classifier

__all__ = ["KINDS"]


def images(things: Things) -> Values:
    """Arrays of images, or batches of them."""
    right = things.images
    return {
        "None": None,
        "3": 3,
        "empty list": [],
        "no images": right[:0],
        "one image": right[0],
        "another size": np.zeros((PHOTOS, 5, 5, 3)),
        "one channel": right[..., :1],
        "two images": right[:2],
        "NaN": right * np.nan,
        "normalized": right / 255 - 0.5,
        "text": "photos",
        "texts": ["a.png", "b.png"],
        "objects": np.array([None, "a"], object),
        "scalars": [1, 2, 3],
        "ragged": [np.zeros((2, 2, 3)), np.zeros((3, 3, 3))],
        "vectors": np.zeros((PHOTOS, 4)),
        "dictionary": {"images": right},
        "numbers": iter([1, 2]),
    }


def batches(things: Things) -> Values:
    """Batches of images and labels."""
    right, truth = things.images, things.labels

    def dataset(*arrays: Any) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices(arrays).batch(6)

    return images(things) | {
        "unlabelled": tf.data.Dataset.from_tensor_slices(right).batch(6),
        "not batched": dataset(right, truth).unbatch(),
        "labels out of range": dataset(right, truth + 100),
        "negative labels": dataset(right, truth - 1),
        "text labels": dataset(right, truth.astype(str)),
        "one-hot of another width": dataset(right, np.eye(7, dtype="float32")[truth]),
        "dictionary of names": dataset(right, truth).map(lambda x, y: {"x": x, "y": y}),
        "no batches": dataset(right, truth).take(0),
        "other images": dataset(np.zeros((PHOTOS, 5, 5, 3), "float32"), truth),
        "NaN images": dataset(right * np.nan, truth),
        "unequal": (right, truth[:5]),
        "function": lambda epoch: None,
        "function of nothing": lambda: dataset(right, truth),
    }


def model(things: Things) -> Values:
    return things.other_models | {
        "None": None,
        "path": "model.keras",
        "Path": Path("no/such.keras"),
        "layer": keras.layers.Dense(3),
        "list": [things.model],
        "class": keras.Model,
        "array": things.images,
    }


def models(things: Things) -> Values:
    return {
        "None": None,
        "one model": things.model,
        "empty": [],
        "one member": [things.model],
        "paths": ["a.keras", "b.keras"],
        "text": "ab",
        "numbers": [1, 2],
        "dictionary": {"a": things.model, "b": things.model},
        **{f"two {label}": [one, one] for label, one in things.other_models.items()},
        "different": [things.model, things.other_models["no weights"]],
        "different inputs": [things.model, things.other_models["of vectors"]],
    }


def weights(things: Things) -> Values:
    return {
        "text": "ab",
        "empty": [],
        "too many": [1, 2, 3],
        "zeros": [0, 0],
        "negative": [-1, 2],
        "NaN": [math.nan, 1],
        "infinity": [math.inf, 1],
        "texts": ["a", "b"],
        "3": 3,
        "None": [None, None],
        "dictionary": {"a": 1, "b": 2},
        "square": np.eye(2),
    }


def function(things: Things) -> Values:
    return {"None": None, "3": 3, "text": "accuracy", "no arguments": lambda: 0.5}


def score(things: Things) -> Values:
    """A function that returns a number."""
    returned = {"nothing": None, "NaN": math.nan, "text": "high", "list": [], "pair": (0.1, 0.2)}
    return function(things) | {
        f"returns {label}": lambda *_, value=value: value for label, value in returned.items()
    }


def finetune(things: Things) -> Values:
    returned = {"a number": 3, "another model": classifier(), "text": "model.keras"}
    return function(things) | {
        f"returns {label}": lambda *_, value=value: value for label, value in returned.items()
    }


def content(things: Things) -> Values:
    """A TFLite file, or its bytes."""
    whole = things.tflite.read_bytes()
    return path(things) | {
        "half": whole[: len(whole) // 2],
        "no bytes": b"",
        "array": np.frombuffer(whole, np.uint8),
        "model": things.model,
        "damaged": whole[:200] + bytes(200) + whole[400:],
    }


def contents(things: Things) -> Values:
    return {
        "None": None,
        "empty": [],
        "one path": str(things.tflite),
        "missing": ["no/such.tflite"],
        "numbers": [1],
    }


def removed(things: Things) -> Values:
    return {
        "None": None,
        "list": ["conv"],
        "text": "conv",
        "3": 3,
        "empty": {},
        "misspelt": {"cnov": [0]},
        "out of range": {"conv": [99]},
        "negative": {"conv": [-1]},
        "fractions": {"conv": [0.5]},
        "all": {"conv": [0, 1, 2, 3]},
        "one number": {"conv": 1},
        "texts": {"conv": ["a"]},
        "None inside": {"conv": None},
        "twice": {"conv": [1, 1]},
        "booleans": {"conv": [True, False]},
        "no filters": {"conv": []},
        "no channels": {"pool": [0]},
        "protected": {"top": [0]},
        "layer": {things.model.layers[2]: [0]},
        "square": {"conv": np.zeros((2, 2), int)},
    }


def anything(things: Things) -> Values:
    """An object of a class of kpipe, Keras or another library."""
    return {"None": None, "3": 3, "text": "something", "dictionary": {}, "class": dict}


def fractions(things: Things) -> Values:
    return {
        "None": None,
        "0.5": 0.5,
        "text": "half",
        "empty": [],
        "one": (1.0,),
        "over 1": (0.8, 0.8, 0.8),
        "under 1": (0.1, 0.1, 0.1),
        "negative": (1.5, -0.25, -0.25),
        "NaN": (math.nan, 0.5, 0.5),
        "texts": ("a", "b", "c"),
        "zeros": (0, 0, 0),
        "four": (0.25,) * 4,
        "percent": (70, 15, 15),
    }


def shape(things: Things) -> Values:
    return {
        "None": None,
        "8": 8,
        "two": (8, 8),
        "zeros": (0, 0, 3),
        "grey": (8, 8, 1),
        "texts": ("a", "b", "c"),
        "negative": (-8, -8, 3),
        "fractions": (8.5, 8.5, 3),
        "size": SIZE,
    }


def field(things: Things) -> Values:
    """A field of a stage."""
    return {
        **count(things),
        **name(things),
        **fraction(things),
        "pair": (1, 2),
        "NUL": "a\0b",
        "unknown keys": {"zebra": object()},
        "mixed keys": {0: 1, None: 2},
        "bytes": b"a",
        "object": object(),
    }


def manifests(things: Things) -> Values:
    return {
        "None": None,
        "empty": [],
        "one": things.manifest,
        "paths": [str(things.photos)],
        "tables": [things.table],
        "twice": [things.manifest, things.manifest],
        "no photos": [things.manifest, things.no_photos],
    }


OF_VALUES = [getattr(kinds_of_values, name) for name in kinds_of_values.__all__ if name != "Values"]
KINDS: dict[str, Callable[[Things], Values]] = {
    each.__name__: each
    for each in (
        *OF_VALUES,
        images,
        batches,
        model,
        models,
        weights,
        function,
        score,
        finetune,
        content,
        contents,
        removed,
        anything,
        fractions,
        shape,
        field,
        manifests,
    )
}
