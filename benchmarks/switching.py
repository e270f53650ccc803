"""Compare Adam, SGD, and the switch between them: a small ResNet on a part of CIFAR-10.

    python benchmarks/switching.py CIFAR10 --results switching.jsonl

CIFAR10 holds train/ and test/ with a folder per class (Krizhevsky 2009). The part: the first 1,000
photos of each class of train/, by name, every tenth of them for validation, and all 10,000 of
test/. ResNet-8 (He et al. 2015) with 16, 32 and 64 filters and a stem of stride 2, which makes
training on two cores four times faster; flips and shifts of 4 pixels; batches of 128.

Every method has the same budget of epochs. The learning rate falls to a tenth after 60 % and to a
hundredth after 85 % of it, whichever optimizer is then active. All learning rates are chosen over
the same grid by the validation accuracy at the end of one training run (seed 100): that of Adam,
that of SGD, and for the methods that switch, after Adam at its learning rate, that of the SGD that
follows. SWATS finds its learning rate itself, so its tolerance is chosen over a grid of the same
size. Each final training run uses the test split once, at its end. The results file keeps every
run, and none is repeated.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
from cifar import BATCH, Arrays, StepDecay, batches, splits
from results import add_row, read_rows

from kpipe.train import SWATS, AtEpoch, OnPlateau, SwitchOptimizer, SwitchTrigger

RATES = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
TOLERANCES = (1e-9, 1e-7, 1e-5, 1e-3, 1e-2)
SWITCHES = ("at a third", "on a plateau")
METHODS = ("adam", "sgd", *SWITCHES, "swats")
TUNING_SEED = 100


def resnet(seed: int) -> keras.Model:
    """Build ResNet-8: a stem, here with stride 2, and three residual blocks."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)

    def convolved(x: Any, filters: int, stride: int = 1, size: int = 3) -> Any:
        x = keras.layers.Conv2D(
            filters,
            size,
            stride,
            "same",
            use_bias=False,
            kernel_initializer="he_normal",
            kernel_regularizer=keras.regularizers.L2(1e-4),
        )(x)
        return keras.layers.BatchNormalization(momentum=0.9)(x)

    pixels = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 64, -2)(pixels)
    x = keras.layers.ReLU()(convolved(x, 16, 2))
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        inner = keras.layers.ReLU()(convolved(x, filters, stride))
        outer = convolved(inner, filters)
        x = x if stride == 1 else convolved(x, filters, stride, 1)
        x = keras.layers.ReLU()(keras.layers.add([x, outer]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, keras.layers.Dense(10, activation="softmax")(x))


def sgd(rate: float) -> keras.optimizers.Optimizer:
    return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)


def callbacks_of(method: str, value: float, epochs: int) -> list[keras.callbacks.Callback]:
    """Return the switch of a method; `value` is SGD's learning rate, or the tolerance of SWATS."""
    triggers: dict[str, SwitchTrigger] = {
        "at a third": AtEpoch(epochs // 3),
        "on a plateau": OnPlateau(patience=2),
    }
    if method in triggers:
        return [SwitchOptimizer(sgd(value), triggers[method])]
    if method == "swats":
        return [SwitchOptimizer("sgd", SWATS(tolerance=value))]
    return []


def train(
    method: str, rate: float, value: float, seed: int, data: dict[str, Arrays], epochs: int
) -> dict[str, Any]:
    """Train once with a method, its first learning rate and its `value`."""
    started = time.perf_counter()
    model = resnet(seed)
    optimizer = sgd(rate) if method == "sgd" else keras.optimizers.Adam(rate)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    photos, labels = data["train"]
    history = model.fit(
        batches(photos, labels, seed),
        epochs=epochs,
        steps_per_epoch=len(photos) // BATCH,
        validation_data=tuple(data["validation"]),
        validation_batch_size=500,
        callbacks=[*callbacks_of(method, value, epochs), StepDecay(epochs)],
        verbose=0,
    ).history
    row = {
        "method": method,
        "rate": rate,
        "value": value,
        "seed": seed,
        "epochs": epochs,
        "val_accuracy": history["val_accuracy"],
        "switched": history.get("switched"),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if seed != TUNING_SEED:
        loss, accuracy = model.evaluate(*data["test"], batch_size=500, verbose=0)
        row |= {"test_loss": loss, "test_accuracy": accuracy}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("switching.jsonl"))
    asked = parser.parse_args()
    data = splits(asked.folder)
    rows = read_rows(asked.results)

    def result(method: str, rate: float, value: float, seed: int) -> dict[str, Any]:
        wanted = {"method": method, "rate": rate, "value": value, "seed": seed}
        wanted["epochs"] = asked.epochs
        for row in rows:
            if wanted.items() <= row.items():
                return row
        row = train(method, rate, value, seed, data, asked.epochs)
        print({**row, "val_accuracy": row["val_accuracy"][-1]}, flush=True)
        rows.append(row)
        add_row(asked.results, row)
        return row

    def score(row: dict[str, Any]) -> float:
        # The accuracy of one epoch on 1,000 photos is noisy; the learning rate is small by then.
        return float(np.mean(row["val_accuracy"][-3:]))

    def best(method: str, candidates: list[tuple[float, float]]) -> tuple[float, float]:
        return max(candidates, key=lambda pair: score(result(method, *pair, TUNING_SEED)))

    chosen = {name: best(name, [(rate, 0.0) for rate in RATES]) for name in ("adam", "sgd")}
    adam = chosen["adam"][0]
    for name in SWITCHES:
        chosen[name] = best(name, [(adam, rate) for rate in RATES])
    chosen["swats"] = best("swats", [(adam, tolerance) for tolerance in TOLERANCES])
    final = {
        name: [result(name, *chosen[name], seed) for seed in range(asked.seeds)] for name in METHODS
    }
    print(table(final, chosen))


def table(final: dict[str, list[dict[str, Any]]], chosen: dict[str, tuple[float, float]]) -> str:
    """Return test accuracy, and the epochs to the final validation accuracy of Adam."""
    target = float(np.mean([np.mean(row["val_accuracy"][-3:]) for row in final["adam"]]))
    lines = [
        "| method | learning rate, then | test accuracy | switched after |"
        f" epochs to {target:.1%} |",
        "|---|---|---|---|---|",
    ]
    for name, rows in final.items():
        scores = [row["test_accuracy"] for row in rows]
        reached = [
            next((place + 1 for place, v in enumerate(row["val_accuracy"]) if v >= target), None)
            for row in rows
        ]
        switched = [
            "never" if 1.0 not in row["switched"] else str(row["switched"].index(1.0))
            for row in rows
            if row["switched"] is not None
        ]
        rate, value = chosen[name]
        lines.append(
            f"| {name} | {rate:g}{f', {value:g}' if value else ''} |"
            f" {np.mean(scores):.1%} ({min(scores):.1%} to {max(scores):.1%}) |"
            f" {', '.join(switched)} | {', '.join(map(str, reached))} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
