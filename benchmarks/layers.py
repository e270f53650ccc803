"""Measure what a network loses without one of its layers: one with shortcuts, and one without.

    python benchmarks/layers.py CIFAR10 [--seeds 3] [--results layers.jsonl]

After Veit et al. 2016 (arXiv 1605.06431), who removed layers from a residual network and from VGG,
without retraining. `cifar.py` describes CIFAR10 and the part that is used. Both networks have a
stem of stride 2 and nine pairs of 3x3 convolutions of 16, 32 and 64 filters, three pairs each. In
the residual network a shortcut bypasses each pair (He et al. 2015). SGD with learning rate 0.1 for
30 epochs.

    alone      each block removed alone by `kpipe.prune.remove_blocks`; from the plain network, each
               convolution whose output has the shape of its input
    together   that many blocks, each time the one whose removal costs least on validation
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import keras
import numpy as np
from cifar import BATCH, Arrays, StepDecay, batches, splits
from results import add_row, read_rows

from kpipe.prune import rank_blocks, remove_blocks, residual_blocks
from kpipe.train import fused_normalization

PAIRS, TOGETHER = 3, 6


def network(seed: int, *, residual: bool, without: str = "") -> keras.Model:
    """Build the network with or without shortcuts; `without` leaves out a convolution."""
    keras.utils.set_random_seed(seed)

    def convolved(x: Any, filters: int, stride: int, name: str, size: int = 3) -> Any:
        conv = keras.layers.Conv2D(
            filters,
            size,
            stride,
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
            name=name,
        )
        return keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn")(conv(x))

    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(pixels)
    x = keras.layers.ReLU()(convolved(x, 16, 2, "stem"))
    for stage, filters in enumerate((16, 32, 64), 1):
        for pair in range(1, PAIRS + 1):
            stride, name = 2 if stage > 1 and pair == 1 else 1, f"{stage}.{pair}"
            y = x
            for number, step in ((1, stride), (2, 1)):
                if f"{name}.{number}" == without:
                    continue
                y = convolved(y, filters, step, f"{name}.{number}")
                if number == 1 or not residual:
                    y = keras.layers.ReLU()(y)
            if residual:
                x = x if stride == 1 else convolved(x, filters, stride, f"{name}.short", 1)
                y = keras.layers.ReLU()(keras.layers.Add(name=name)([x, y]))
            x = y
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(10, activation="softmax", name="classes")(x))


def train(seed: int, data: dict[str, Arrays], epochs: int, *, residual: bool) -> keras.Model:
    model = network(seed, residual=residual)
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy"
    )
    photos, labels = data["train"]
    with fused_normalization(model):
        model.fit(
            batches(photos, labels, seed),
            epochs=epochs,
            steps_per_epoch=len(photos) // BATCH,
            callbacks=[StepDecay(epochs)],
            verbose=0,
        )
    return model


def accuracy(model: keras.Model, part: Arrays) -> float:
    photos, labels = part
    found = model.predict(photos, batch_size=500, verbose=0).argmax(axis=1)
    return float((found == labels).mean())


def loss(model: keras.Model, part: Arrays) -> float:
    model.compile(loss="sparse_categorical_crossentropy")
    return float(model.evaluate(*part, batch_size=500, verbose=0))


def measure_residual(seed: int, data: dict[str, Arrays], epochs: int) -> dict[str, Any]:
    model = train(seed, data, epochs, residual=True)
    row: dict[str, Any] = {"seed": seed, "net": "residual", "whole": accuracy(model, data["test"])}
    row["alone"] = {
        block.name: accuracy(remove_blocks(model, [block.name]), data["test"])
        for block in residual_blocks(model)
    }
    row["together"] = []
    for _ in range(TOGETHER):
        ranked = rank_blocks(model, lambda net: loss(net, data["validation"]))
        model = remove_blocks(model, [next(iter(ranked))])
        row["together"].append(accuracy(model, data["test"]))
    return row


def measure_plain(seed: int, data: dict[str, Arrays], epochs: int) -> dict[str, Any]:
    model = train(seed, data, epochs, residual=False)
    row: dict[str, Any] = {"seed": seed, "net": "plain", "whole": accuracy(model, data["test"])}
    row["alone"] = {}
    for layer in model.layers:
        same = isinstance(layer, keras.layers.Conv2D) and layer.input.shape == layer.output.shape
        if not same:
            continue
        shorter = network(seed, residual=False, without=layer.name)
        for kept in shorter.layers:
            if kept.weights:
                kept.set_weights(model.get_layer(kept.name).get_weights())
        row["alone"][layer.name] = accuracy(shorter, data["test"])
    return row


def table(rows: list[dict[str, Any]]) -> str:
    def summary(values: list[float]) -> str:
        return f"{np.mean(values):.1%} ({min(values):.1%} to {max(values):.1%})"

    lines = ["| removed | residual | plain |", "|---|---|---|"]
    nets = {net: [row for row in rows if row["net"] == net] for net in ("residual", "plain")}
    whole = [summary([row["whole"] for row in nets[net]]) for net in nets]
    lines.append(f"| nothing | {' | '.join(whole)} |")
    alone = [summary([v for row in nets[net] for v in row["alone"].values()]) for net in nets]
    lines.append(f"| any one | {' | '.join(alone)} |")
    for name in nets["residual"][0]["alone"]:
        beside = [
            summary([row["alone"][part] for row in nets["plain"]])
            for part in nets["plain"][0]["alone"]
            if part.startswith(f"{name}.")
        ]
        own = summary([row["alone"][name] for row in nets["residual"]])
        lines.append(f"| {name} | {own} | {'; '.join(beside)} |")
    for count in range(TOGETHER):
        values = [row["together"][count] for row in nets["residual"]]
        lines.append(f"| {count + 1} together | {summary(values)} | |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("layers.jsonl"))
    asked = parser.parse_args()
    data = splits(asked.folder)
    rows = read_rows(asked.results)
    for seed in range(asked.seeds):
        for net, measure in (("residual", measure_residual), ("plain", measure_plain)):
            if any(row["seed"] == seed and row["net"] == net for row in rows):
                continue
            rows.append(measure(seed, data, asked.epochs))
            print(rows[-1], flush=True)
            add_row(asked.results, rows[-1])
    print(table(rows))


if __name__ == "__main__":
    main()
