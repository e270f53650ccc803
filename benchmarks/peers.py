"""Compare filter removal with Torch-Pruning's: same weights, same retraining, 2.1 times fewer MACs.

    pip install kpipe[peers]
    python benchmarks/peers.py CIFAR10 [--seeds 3] [--results peers.jsonl]

`cifar.py` describes CIFAR10 and the part that is used. The network is the residual one of
`layers.py`, trained for 30 epochs. Torch-Pruning (Fang et al. 2023, arXiv 2301.12900; MIT) gets the
same weights and prunes as its own CIFAR-10 example does: MagnitudeImportance(p=1), global, in 400
steps until 2.1 times fewer multiply-accumulates are left. The pruned network is then converted back
to Keras, so the same code retrains every row, on the same batches, after one removal: SGD with
learning rate 0.02, 30 epochs. `control` has nothing removed. The last epoch of each row is tested.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
import torch_pruning as tp
from cifar import BATCH, Arrays, StepDecay, batches, splits
from layers import accuracy, train
from results import add_row, read_rows

from kpipe.prune import Selection, count_macs, plan, prune_filters, remove_filters

SPEED_UP = 2.1
RATE, EPOCHS = 0.02, 30


class Residual(torch.nn.Module):
    """The network of `layers.py` without its softmax, with Keras' weights and padding."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleDict()
        for layer in model.layers:
            name = layer.name.replace(".", "_")
            if isinstance(layer, keras.layers.Conv2D):
                kernel = layer.kernel.numpy().transpose(3, 2, 0, 1)
                part = torch.nn.Conv2d(
                    *kernel.shape[1::-1], kernel.shape[2], layer.strides[0], bias=False
                )
                part.weight.data = torch.tensor(kernel)
            elif isinstance(layer, keras.layers.BatchNormalization):
                part = torch.nn.BatchNorm2d(layer.gamma.shape[0], eps=layer.epsilon)
                gamma, beta, mean, variance = (torch.tensor(w.numpy()) for w in layer.weights)
                part.weight.data, part.bias.data = gamma, beta
                part.running_mean, part.running_var = mean, variance
            elif isinstance(layer, keras.layers.Dense):
                part = torch.nn.Linear(*layer.kernel.shape)
                part.weight.data = torch.tensor(layer.kernel.numpy().T)
                part.bias.data = torch.tensor(layer.bias.numpy())
            else:
                continue
            self.parts[name] = part

    def convolved(self, x: torch.Tensor, name: str) -> torch.Tensor:
        conv = self.parts[name]
        if conv.kernel_size[0] == 3:  # TensorFlow's "same"
            x = torch.nn.functional.pad(x, (0, 1, 0, 1) if conv.stride[0] == 2 else (1, 1, 1, 1))
        return self.parts[f"{name}_bn"](conv(x))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.convolved(pixels / 64 - 2, "stem"))
        for stage in (1, 2, 3):
            for pair in (1, 2, 3):
                name = f"{stage}_{pair}"
                y = torch.relu(self.convolved(x, f"{name}_1"))
                y = self.convolved(y, f"{name}_2")
                if f"{name}_short" in self.parts:
                    x = self.convolved(x, f"{name}_short")
                x = torch.relu(x + y)
        return self.parts["classes"](x.mean((2, 3)))


def by_torch_pruning(model: keras.Model, photos: np.ndarray) -> keras.Model:
    """Prune a model with Torch-Pruning and convert it back to Keras."""
    net = Residual(model).eval()
    images = torch.tensor(photos[:4].transpose(0, 3, 1, 2))

    def probabilities() -> np.ndarray:
        with torch.no_grad():
            return torch.softmax(net(images), 1).numpy()

    np.testing.assert_allclose(probabilities(), model(photos[:4]), atol=1e-4)
    pruner = tp.pruner.MagnitudePruner(
        net,
        images[:1],
        importance=tp.importance.MagnitudeImportance(p=1),
        global_pruning=True,
        pruning_ratio=1.0,
        iterative_steps=400,
        ignored_layers=[net.parts["classes"]],
    )
    whole, _ = tp.utils.count_ops_and_params(net, images[:1])
    while tp.utils.count_ops_and_params(net, images[:1])[0] > whole / SPEED_UP:
        pruner.step()
    small = as_keras(model, net)
    np.testing.assert_allclose(probabilities(), small(photos[:4]), atol=1e-4)
    return small


def as_keras(model: keras.Model, net: Residual) -> keras.Model:
    """Build the Keras model with the widths and weights of a pruned torch network."""
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    left = {c.name: net.parts[c.name.replace(".", "_")].out_channels for c in convs}
    # Only the number of filters matters here: the weights are set below.
    request = {c.name: list(range(c.filters - left[c.name])) for c in convs}
    small = remove_filters(model, plan(model, request))
    for layer in small.layers:
        part = net.parts[layer.name.replace(".", "_")] if layer.weights else None
        if isinstance(layer, keras.layers.Conv2D):
            layer.set_weights([part.weight.detach().numpy().transpose(2, 3, 1, 0)])
        elif isinstance(layer, keras.layers.BatchNormalization):
            values = (part.weight, part.bias, part.running_mean, part.running_var)
            layer.set_weights([value.detach().numpy() for value in values])
        elif isinstance(layer, keras.layers.Dense):
            layer.set_weights([part.weight.detach().numpy().T, part.bias.detach().numpy()])
    return small


def by_kpipe(model: keras.Model, photos: np.ndarray, criterion: str) -> keras.Model:
    """Prune a model with one round of `prune_filters`, without retraining."""
    sample = [photos[start : start + 250].astype("float32") for start in (0, 250)]
    return prune_filters(
        model,
        macs=1 / SPEED_UP,
        rounds=1,
        criterion=criterion,
        finetune=lambda net, number: None,
        evaluate=lambda net: 0.0,
        calibration=sample,
        selection=Selection(round_to=1, data=sample),
    ).model


CRITERIA = ("l1", "reconstruction", "random")
METHODS: dict[str, Callable[[keras.Model, np.ndarray], keras.Model]] = {
    "control": lambda model, photos: model,
    "Torch-Pruning": by_torch_pruning,
    **{f"kpipe, {name}": partial(by_kpipe, criterion=name) for name in CRITERIA},
}


def measure(method: str, seed: int, base: keras.Model, data: dict[str, Arrays]) -> dict[str, Any]:
    photos, labels = data["train"]
    order = np.random.default_rng(seed).permutation(len(photos))
    keras.utils.set_random_seed(seed)
    model = METHODS[method](base, photos[order].astype("float32"))
    before = accuracy(model, data["test"])
    model.compile(
        keras.optimizers.SGD(RATE, momentum=0.9, nesterov=True), "sparse_categorical_crossentropy"
    )
    model.fit(
        batches(photos, labels, 1000 + seed),
        epochs=EPOCHS,
        steps_per_epoch=len(photos) // BATCH,
        callbacks=[StepDecay(EPOCHS)],
        verbose=0,
    )
    return {
        "method": method,
        "seed": seed,
        "macs": count_macs(model),
        "params": model.count_params(),
        "validation": accuracy(model, data["validation"]),
        "before": before,
        "test": accuracy(model, data["test"]),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| method | times fewer MACs | parameters | test, not retrained | test accuracy |"]
    lines.append("|---|---|---|---|---|")
    whole = next(row["macs"] for row in rows if row["method"] == "control")
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        tests = [row["test"] for row in mine]
        lines.append(
            f"| {method} | {whole / np.mean([row['macs'] for row in mine]):.2f} |"
            f" {np.mean([row['params'] for row in mine]):,.0f} |"
            f" {np.mean([row['before'] for row in mine]):.1%} |"
            f" {np.mean(tests):.1%} ({', '.join(format(value, '.1%') for value in tests)}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("peers.jsonl"))
    asked = parser.parse_args()
    data = splits(asked.folder)
    rows = read_rows(asked.results)
    for seed in range(asked.seeds):
        done = {row["method"] for row in rows if row["seed"] == seed}
        path = asked.results.with_name(f"peers-base-{seed}.keras")
        if done != set(METHODS) and not path.exists():
            train(seed, data, 30, residual=True).save(path)
        for method in METHODS:
            if method not in done:
                base = keras.models.load_model(path, compile=False)
                rows.append(measure(method, seed, base, data))
                print(rows[-1], flush=True)
                add_row(asked.results, rows[-1])
    print(table(rows))


if __name__ == "__main__":
    main()
