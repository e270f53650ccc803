"""Every backbone, held to what is promised of each: one row a backbone, one column a promise.

    python benchmarks/coverage.py RESULTS.jsonl [NAME ...] [--minutes 15]

Weights are random, images as small as the architecture takes, BatchNormalization measured on them.
Random networks amplify rounding, the deeper the more: the answers of EfficientNetB4 in single and
in double precision differed by 0.15. So a channel that hardly varies is not blown up by its
normalization (its variance is raised to the layer's mean), and how far LiteRT is from Keras stands
beside how far Keras itself is from double precision: LiteRT may differ by 1e-4, or by four times
that.

Each backbone has a process and a time limit of its own. RESULTS.jsonl gains a line a backbone; what
stands there is not done again, so the script may be stopped, and a new column fills itself in. The
table is printed from the whole file.

A column is a function of a `Case` in COLUMNS: it returns what to print, or raises what to print.
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
    """What the tests of the surgery are made of, which stand outside the package."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    return importlib.import_module("tests.prune.masking")


class Case:
    """One backbone with a head, built when it is first asked for."""

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
        """With statistics of its own and answers that tell the images apart."""
        from kpipe.train import classifier

        model = classifier(self.base, CLASSES)
        masking().settle(model, self.images)
        return model

    @cached_property
    def answers(self) -> np.ndarray:
        """What Keras makes of the images."""
        return self.model(self.images, training=False).numpy()

    @cached_property
    def rounding(self) -> float:
        """How far those are from the answers of the same network in double precision."""
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
        return float(np.abs(self.answers - exact).max())

    @cached_property
    def cut(self) -> tuple[keras.Model, Plan]:
        """The network opened, its weights random everywhere, and random filters of it to remove."""
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
    """The graph on raw pixels against Keras' own constructor on Keras' own preprocessing."""
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
    """The answers of the tf_keras twin, and of the model that comes back from it."""
    import numpy as np

    from kpipe.sparsity import to_keras, to_tf_keras

    twin = to_tf_keras(case.model)
    others = (twin, to_keras(twin))
    found = [other(case.images, training=False).numpy() for other in others]
    error = max(np.abs(answers - case.answers).max() for answers in found)
    return _within(error, 1e-5)


def step(case: Case) -> str:
    """One step with the head and the last block: what is said to train moves, nothing else."""
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
        raise ValueError(f"not as said: {', '.join(sorted(moved ^ set(trained)))}")
    return f"{trained.last} of {trained.layers}"


def float32(case: Case) -> str:
    """The answers of LiteRT against those of Keras."""
    import numpy as np

    from kpipe.lite import convert
    from kpipe.lite.runtime.interpreter import LiteModel

    if np.ptp(case.answers, axis=0).max() < 0.1:
        raise ValueError("the answers do not tell images apart")
    found = LiteModel(convert(case.model)).predict(case.images)
    if case.rounding > 1e-3:
        raise ValueError("rounding decides the answers, which so compare nothing")
    return _within(np.abs(found - case.answers).max(), max(1e-4, 4 * case.rounding))


def int8(case: Case) -> str:
    """The int8 file, its ranges from the same images, against Keras; random weights suffer most."""
    import numpy as np

    from kpipe.lite import LiteModel, convert

    model = LiteModel(convert(case.model, "int8", [case.images]))
    error = np.abs(model.predict(case.images) - case.answers).max()
    partitions, _ = model.delegation()
    return f"{error:.2f}, {partitions} part{'s'[: partitions != 1]}"


def rounding(case: Case) -> str:
    """The answers of Keras against those in double precision."""
    return f"{case.rounding:.0e}"


def reachable(case: Case) -> str:
    """The share of multiply-accumulates in filters that can be removed."""
    from kpipe.prune import prunable_fraction
    from kpipe.train import classifier

    return f"{prunable_fraction(classifier(case.base, CLASSES)):.1%}"


def removal(case: Case) -> str:
    """Random filters of every group removed: every operation against the masked original."""
    from kpipe.prune import remove_filters

    flat, made = case.cut
    small = remove_filters(flat, made)
    worst = masking().worst_difference(flat, small, made.kept, case.images[:2])
    share = (made.macs_after or 0) / (made.macs_before or 1)
    return f"{_within(worst, 1e-4)} at {share:.0%} of the MACs"


def cut_file(case: Case) -> str:
    """What is left, trained a step, saved and opened again: its answers by LiteRT."""
    import keras
    import numpy as np

    from kpipe.lite import LiteModel, convert
    from kpipe.prune import remove_filters

    small = remove_filters(*case.cut)
    images = masking().colored(IMAGES, case.size)
    small.compile(keras.optimizers.SGD(1e-6), "sparse_categorical_crossentropy")
    small.train_on_batch(images, np.arange(IMAGES) % CLASSES)
    answers = masking().settle(small, images)
    if np.ptp(answers, axis=0).max() < 0.1:
        raise ValueError("the answers do not tell images apart")
    with tempfile.TemporaryDirectory() as folder:
        small.save(path := Path(folder) / "small.keras")
        again = keras.models.load_model(path, compile=False)
    found = LiteModel(convert(again)).predict(images)
    return _within(np.abs(found - answers).max(), 1e-4)


COLUMNS: dict[str, Callable[[Case], str]] = {
    "parameters": parameters,
    "MACs": macs,
    "preprocessing": preprocessing,
    "Keras / double": rounding,
    "LiteRT / Keras": float32,
    "int8 / Keras": int8,
    "reach": reachable,
    "filters removed": removal,
    "their file": cut_file,
    "tf_keras and back": crossing,
    "last block trains": step,  # the last, since it changes the model
}


def _within(error: float, limit: float) -> str:
    if not error <= limit:
        raise ValueError(f"differs by {error:.1e}")
    return f"{error:.0e}"


def _sums(model: keras.Model) -> dict[str, int]:
    """Layer name -> a checksum of its weights."""
    return {
        layer.name: zlib.crc32(b"".join(weight.numpy().tobytes() for weight in layer.weights))
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and not layer._layers
    }


def examine(name: str, columns: list[str]) -> dict[str, Any]:
    """One backbone's cells: what each column returned, or why not."""
    warnings.filterwarnings("error", message="no rule counts")
    case = Case(name)
    row: dict[str, Any] = {"name": name, "pixels": case.size}
    for column in columns:
        try:
            row[column] = COLUMNS[column](case)
        except (KpipeError, ValueError, TypeError, RuntimeError, UserWarning) as error:
            said = " ".join(str(error).split())
            row[column] = f"NO: {said[:150]}"
    return row


def apart(name: str, columns: list[str], minutes: float) -> dict[str, Any]:
    """`examine` in a process of its own; a row that says so where that process did not end well."""
    command = [sys.executable, __file__, "-", name, "--only", *columns]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * minutes)
    except subprocess.TimeoutExpired:
        return {"name": name, **dict.fromkeys(columns, f"NO: not done in {minutes:g} minutes")}
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        return {"name": name, **dict.fromkeys(columns, f"NO: exit code {done.returncode}")}
    return json.loads(done.stdout.splitlines()[-1])


def rows(path: Path) -> dict[str, dict[str, Any]]:
    """What a results file holds, later lines over earlier ones."""
    found: dict[str, dict[str, Any]] = {}
    for row in read_rows(path):
        found[row["name"]] = found.get(row["name"], {}) | row
    return found


def table(found: dict[str, dict[str, Any]]) -> str:
    """Markdown, a row a backbone."""
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
    parser.add_argument("names", nargs="*", help="backbones; all where none is named")
    parser.add_argument("--minutes", type=float, default=15, help="limit of each backbone")
    parser.add_argument("--only", nargs="+", choices=COLUMNS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(examine(given.names[0], given.only)))
        return
    for name in given.names or backbone_names():
        known = rows(given.results).get(name, {})
        if missing := [column for column in COLUMNS if column not in known]:
            row = apart(name, missing, given.minutes)
            if KILLED in row.values():  # for its memory: one column at a time needs less
                parts = [apart(name, [column], given.minutes) for column in missing]
                row = {key: cell for part in parts for key, cell in part.items()}
            add_row(given.results, row)
    print(table(rows(given.results)))


if __name__ == "__main__":
    main()
