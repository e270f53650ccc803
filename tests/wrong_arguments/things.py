"""What right calls take: photos, models and files, each made once, when first asked for."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image

from kpipe import data, lite, train

SIZE, CLASSES, PHOTOS = 8, 3, 12


class Things:
    """Files lie in the current folder."""

    @cached_property
    def photos(self) -> Path:
        random = np.random.default_rng(0)
        for number in range(PHOTOS):
            path = Path("photos", "abc"[number % CLASSES], f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).save(path)
        return Path("photos").absolute()

    @cached_property
    def photo(self) -> Path:
        return self.photos / "a" / "0.png"

    @cached_property
    def table(self) -> pd.DataFrame:
        files = sorted(self.photos.glob("*/*.png"))
        return pd.DataFrame({"file": map(str, files), "kind": [file.parent.name for file in files]})

    @cached_property
    def csv(self) -> Path:
        self.table.to_csv("photos.csv", index=False)
        return Path("photos.csv").absolute()

    @cached_property
    def manifest(self) -> data.Manifest:
        return data.split(self.unsplit, (0.5, 0.25, 0.25))

    @cached_property
    def unsplit(self) -> data.Manifest:
        return data.from_folder(self.photos)

    @cached_property
    def no_photos(self) -> data.Manifest:
        return data.Manifest(self.manifest.table.iloc[:0], ("a", "b", "c"), data.problem_table())

    @cached_property
    def images(self) -> np.ndarray:
        return np.random.default_rng(0).uniform(0, 255, (PHOTOS, SIZE, SIZE, 3)).astype("float32")

    @cached_property
    def labels(self) -> np.ndarray:
        return np.arange(PHOTOS) % CLASSES

    @cached_property
    def batches(self) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices((self.images, self.labels)).batch(6).cache()

    @cached_property
    def training_data(self) -> train.TrainingData:
        return train.TrainingData(lambda epoch: self.batches.repeat(), 2, self.batches)

    @cached_property
    def model(self) -> keras.Model:
        return classifier()

    @cached_property
    def residual(self) -> keras.Model:
        inputs = keras.Input((SIZE, SIZE, 4))
        branch = keras.layers.Conv2D(4, 3, padding="same", name="branch")(inputs)
        total = keras.layers.Add(name="total")([inputs, branch])
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(total))
        return keras.Model(inputs, keras.layers.Dense(2)(x))

    @cached_property
    def tflite(self) -> Path:
        Path("file").mkdir(exist_ok=True)
        path = Path("file", "model.tflite").absolute()
        path.write_bytes(lite.convert(self.model))
        path.with_name("labels.txt").write_text("a\nb\nc\n")
        return path

    @cached_property
    def other_models(self) -> dict[str, Any]:
        """Models that most functions cannot take, by what is special about them."""
        layers, pixels = keras.layers, keras.Input((SIZE, SIZE, 3))
        pooled = layers.GlobalAveragePooling2D()(pixels)
        vector, free, second = keras.Input((4,)), keras.Input((None, None, 3)), keras.Input((2,))
        volume = keras.Input((4, 4, 4, 3))
        broken = classifier()
        broken.set_weights([np.full(weight.shape, np.nan) for weight in broken.weights])

        class Subclassed(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense = layers.Dense(CLASSES)

            def call(self, x: Any) -> Any:
                return self.dense(x)

        subclassed = Subclassed()
        subclassed(np.zeros((1, 4), "float32"))
        return {
            "subclassed": subclassed,
            "not built": keras.Sequential([layers.Dense(CLASSES)]),
            "no layers": keras.Model(pixels, pixels),
            "no weights": keras.Model(pixels, pooled),
            "of vectors": keras.Model(vector, layers.Dense(CLASSES)(vector)),
            "of volumes": keras.Model(volume, layers.Dense(2)(layers.Flatten()(volume))),
            "of any size": keras.Model(
                free, layers.Dense(3)(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(free)))
            ),
            "two inputs": keras.Model(
                [pixels, second], layers.Dense(CLASSES)(layers.Concatenate()([pooled, second]))
            ),
            "two outputs": keras.Model(pixels, [layers.Dense(2)(pooled), layers.Dense(3)(pooled)]),
            "of images": keras.Model(pixels, layers.Conv2D(3, 1)(pixels)),
            "NaN weights": broken,
        }


def classifier() -> keras.Model:
    """A small image classifier whose weights differ from call to call."""
    layers, pixels = keras.layers, keras.Input((SIZE, SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    x = layers.Conv2D(4, 3, activation="relu", name="last")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(pixels, layers.Dense(CLASSES, activation="softmax", name="top")(x))
