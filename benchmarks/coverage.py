"""Check every backbone against what kpipe promises: one row per backbone, one column per promise.

    python benchmarks/coverage.py RESULTS.jsonl [NAME ...] [--minutes 15]

Weights are random, images as small as the architecture takes, BatchNormalization statistics
measured on them. Random networks amplify rounding, and deeper ones more: the predictions of
EfficientNetB4 in single and in double precision differed by 0.15. So normalizations must not
amplify a channel that hardly varies: its variance is raised to the mean of the layer. The table
shows the difference between LiteRT and Keras beside that between Keras and double precision. LiteRT
may differ by 1e-4, or by four times the latter.

Each backbone runs in a separate process with a time limit. The script appends one line per backbone
to RESULTS.jsonl and does not repeat what the file holds, so it may be stopped at any time, and it
fills in a new column. It prints the table of the whole file.

A column is a function of a `Case` in COLUMNS: it returns the cell, or raises an error whose message
becomes the cell.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import signal
import subprocess
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from results import add_row, read_rows

from kpipe.errors import KpipeError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kpipe.prune import Plan

IMAGES, CLASSES = 8, 3
KILLED = f"NO: exit code {-signal.SIGKILL}"
SIZES = {"Inception": 75, "Xception": 71}  # others: 32


def masking() -> ModuleType:
    """Import the helpers of the surgery tests, which are not part of the package."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    return importlib.import_module("tests.prune.masking")


class Case:
    """One backbone with a head; everything is built when it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.size = next((n for start, n in SIZES.items() if name.startswith(start)), 32)

    @cached_property
    def base(self) -> keras.Model:
        import keras

        from kpipe.train import backbone

        keras.utils.set_random_seed(0)
        return backbone(self.name, image_size=self.size, weights=None)

    @cached_property
    def images(self) -> np.ndarray:
        import numpy as np

        shape = (IMAGES, self.size, self.size, 3)
        return np.random.default_rng(0).uniform(0, 255, shape).astype("float32")

    @cached_property
    def model(self) -> keras.Model:
        """The classifier, with measured statistics and predictions that tell the images apart."""
        from kpipe.train import classifier

        model = classifier(self.base, CLASSES)
        masking().settle(model, self.images)
        return model

    @cached_property
    def predictions(self) -> np.ndarray:
        """The predictions of Keras for the images."""
        return self.model(self.images, training=False).numpy()

    @cached_property
    def rounding(self) -> float:
        """The largest difference from the predictions of the same network in double precision."""
        import keras
        import numpy as np

        from kpipe.train import backbone, classifier

        keras.config.set_dtype_policy("float64")
        keras.config.set_floatx("float64")
        try:
            base = backbone(self.name, image_size=self.size, weights=None)
            double = classifier(base, CLASSES)
        finally:
            keras.config.set_floatx("float32")
            keras.config.set_dtype_policy("float32")
        for ours, theirs in zip(self.model.weights, double.weights, strict=True):
            theirs.assign(ours)
        exact = double(self.images.astype("float64"), training=False).numpy()
        return float(np.abs(self.predictions - exact).max())

    @cached_property
    def pruned(self) -> tuple[keras.Model, Plan]:
        """The flattened network with random weights, and a plan to remove random filters."""
        from kpipe.prune import plan, remove_filters
        from kpipe.train import classifier

        model = classifier(self.base, CLASSES, dropout=0.0)
        flat = masking().randomize(remove_filters(model, plan(model, {})), 3)
        return flat, plan(flat, masking().random_request(flat, 3))


def parameters(case: Case) -> str:
    return f"{case.base.count_params():,}"


def macs(case: Case) -> str:
    from kpipe.prune import count_macs

    return f"{count_macs(case.base) / 1e6:.1f} M"


def preprocessing(case: Case) -> str:
    """Compare the graph on raw pixels with Keras' constructor on Keras' preprocessing."""
    import keras
    import numpy as np

    constructor = getattr(keras.applications, case.name, None)
    if constructor is None:
        return "its own"
    plain = constructor(include_top=False, weights=None, input_shape=(case.size, case.size, 3))
    for ours, theirs in zip(case.base.weights, plain.weights, strict=True):
        theirs.assign(ours)
    preprocess = sys.modules[constructor.__module__].preprocess_input
    expected = plain(preprocess(case.images.copy())).numpy()
    error = np.abs(case.base(case.images).numpy() - expected).max() / np.abs(expected).max()
    return _within(error, 1e-4)


def crossing(case: Case) -> str:
    """Compare the predictions of the tf_keras twin, and of the model converted back from it."""
    import numpy as np

    from kpipe.sparsity import to_keras, to_tf_keras

    twin = to_tf_keras(case.model)
    others = (twin, to_keras(twin))
    found = [other(case.images, training=False).numpy() for other in others]
    error = max(np.abs(outputs - case.predictions).max() for outputs in found)
    return _within(error, 1e-5)


def step(case: Case) -> str:
    """Train one step with the head and the last block: only the unfrozen layers may change."""
    import numpy as np

    from kpipe.train import unfreeze
    from kpipe.train.transfer.blocks import find_blocks

    trained = unfreeze(case.model, find_blocks(case.model)[-2].last)
    case.model.compile("sgd", "sparse_categorical_crossentropy")
    before = _sums(case.model)
    case.model.train_on_batch(case.images, np.arange(IMAGES) % CLASSES)
    after = _sums(case.model)
    moved = {name for name in after if after[name] != before[name]}
    if moved != set(trained):
        raise ValueError(f"not as reported: {', '.join(sorted(moved ^ set(trained)))}")
    return f"{trained.last} of {trained.layers}"


def float32(case: Case) -> str:
    """Compare the predictions of LiteRT with those of Keras."""
    import numpy as np

    from kpipe.lite import convert
    from kpipe.lite.runtime.interpreter import LiteModel

    if np.ptp(case.predictions, axis=0).max() < 0.1:
        raise ValueError("the predictions do not tell images apart")
    found = LiteModel(convert(case.model)).predict(case.images)
    if case.rounding > 1e-3:
        raise ValueError("rounding decides the predictions, so comparing them is meaningless")
    return _within(np.abs(found - case.predictions).max(), max(1e-4, 4 * case.rounding))


def int8(case: Case) -> str:
    """Compare int8, calibrated on the same images, with Keras; random weights suffer most."""
    import numpy as np

    from kpipe.lite import LiteModel, convert

    model = LiteModel(convert(case.model, "int8", [case.images]))
    error = np.abs(model.predict(case.images) - case.predictions).max()
    partitions, _ = model.inspect_delegation()
    return f"{error:.2f}, {partitions} part{'s'[: partitions != 1]}"


def rounding(case: Case) -> str:
    """Compare the predictions of Keras with those in double precision."""
    return f"{case.rounding:.0e}"


def prunable(case: Case) -> str:
    """Return the fraction of multiply-accumulates in filters that can be removed."""
    from kpipe.prune import prunable_fraction
    from kpipe.train import classifier

    return f"{prunable_fraction(classifier(case.base, CLASSES)):.1%}"


def removal(case: Case) -> str:
    """Remove random filters of every group; compare every operation with the masked original."""
    from kpipe.prune import remove_filters

    flat, made = case.pruned
    small = remove_filters(flat, made)
    worst = masking().worst_difference(flat, small, made.kept, case.images[:2])
    left = (made.macs_after or 0) / (made.macs_before or 1)
    return f"{_within(worst, 1e-4)} at {left:.0%} of the MACs"


def pruned_file(case: Case) -> str:
    """Train the pruned network one step, save, load and convert it; compare LiteRT with Keras."""
    import keras
    import numpy as np

    from kpipe.lite import LiteModel, convert
    from kpipe.prune import remove_filters

    small = remove_filters(*case.pruned)
    images = masking().colored(IMAGES, case.size)
    small.compile(keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy")
    small.train_on_batch(images, np.arange(IMAGES) % CLASSES)
    expected = masking().settle(small, images)
    if np.ptp(expected, axis=0).max() < 0.1:
        raise ValueError("the predictions do not tell images apart")
    with tempfile.TemporaryDirectory() as folder:
        small.save(path := Path(folder) / "small.keras")
        again = keras.models.load_model(path, compile=False)
    found = LiteModel(convert(again)).predict(images)
    return _within(np.abs(found - expected).max(), 1e-4)


COLUMNS: dict[str, Callable[[Case], str]] = {
    "parameters": parameters,
    "MACs": macs,
    "preprocessing": preprocessing,
    "Keras / double": rounding,
    "LiteRT / Keras": float32,
    "int8 / Keras": int8,
    "prunable": prunable,
    "filters removed": removal,
    "pruned file": pruned_file,
    "tf_keras and back": crossing,
    "last block trains": step,  # last, since it changes the model
}


def _within(error: float, limit: float) -> str:
    if not error <= limit:
        raise ValueError(f"differs by {error:.1e}")
    return f"{error:.0e}"


def _sums(model: keras.Model) -> dict[str, int]:
    """Return {layer name: checksum of its weights}."""
    from kpipe.keras_internals import layers_within

    return {
        layer.name: zlib.crc32(b"".join(weight.numpy().tobytes() for weight in layer.weights))
        for layer in layers_within(model, include_self=False)
        if layer.weights and layers_within(layer) == [layer]
    }


def examine(name: str, columns: list[str]) -> dict[str, Any]:
    """Return the cells of one backbone: the result of each column, or its error."""
    warnings.filterwarnings("error", message="no rule counts")
    case = Case(name)
    row: dict[str, Any] = {"name": name, "pixels": case.size}
    for column in columns:
        try:
            row[column] = COLUMNS[column](case)
        except (KpipeError, ValueError, TypeError, RuntimeError, UserWarning) as error:
            message = " ".join(str(error).split())
            row[column] = f"NO: {message[:150]}"
    return row


def examine_in_process(name: str, columns: list[str], minutes: float) -> dict[str, Any]:
    """Run `examine` in a separate process; report in the row if that process fails."""
    command = [sys.executable, __file__, "-", name, "--only", *columns]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"name": name, **dict.fromkeys(columns, f"NO: not finished in {minutes:g} minutes")}
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {"name": name, **dict.fromkeys(columns, f"NO: exit code {done.returncode}")}
    return json.loads(done.stdout.splitlines()[-1])


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """Read a results file; later lines override earlier ones."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows(path):
        found[row["name"]] = found.get(row["name"], {}) | row
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return a Markdown table, one row per backbone."""
    titles = ["backbone", "pixels", *COLUMNS]
    lines = [titles, ["---"] * len(titles)]
    for name in sorted(
        found, key=lambda name: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", name)]
    ):
        lines.append([name, *(str(found[name].get(title, "")) for title in titles[1:])])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def main() -> None:
    from kpipe.train import backbone_names

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("names", nargs="*", help="backbones; default: all")
    parser.add_argument("--minutes", type=float, default=15, help="time limit for each backbone")
    parser.add_argument("--only", nargs="+", choices=COLUMNS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(examine(options.names[0], options.only)))
        return
    for name in options.names or backbone_names():
        known = rows(options.results).get(name, {})
        if missing := [column for column in COLUMNS if column not in known]:
            row = examine_in_process(name, missing, options.minutes)
            if KILLED in row.values():  # out of memory: one column at a time needs less
                parts = [examine_in_process(name, [column], options.minutes) for column in missing]
                row = {key: cell for part in parts for key, cell in part.items()}
            add_row(options.results, row)
    print(table(rows(options.results)))


if __name__ == "__main__":
    main()
