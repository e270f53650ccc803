"""Wrong arguments of every public function: never a raw error, and never NaN without a word."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

import pytest

import kpipe
from tests.wrong_arguments import rows_data, rows_models, rows_training
from tests.wrong_arguments.things import Things
from tests.wrong_arguments.walk import Row, faults

PACKAGES = ["kpipe", *(m.name for m in pkgutil.iter_modules(kpipe.__path__, "kpipe.") if m.ispkg)]
ROWS: dict[str, Row] = {**rows_data.ROWS, **rows_models.ROWS, **rows_training.ROWS}
# Each of their right calls trains, converts, reads files or builds a large network.
SLOW = {
    *("kpipe.lite.benchmark", "kpipe.lite.compare", "kpipe.ensemble.predict_members"),
    *("kpipe.data.contact_sheet", "kpipe.data.dataset", "kpipe.data.from_folder"),
    *("kpipe.data.from_csv", "kpipe.data.merge"),
    *("kpipe.lite.convert", "kpipe.lite.latency", "kpipe.prune.shift_statistics"),
    *("kpipe.sparsity.to_keras", "kpipe.train.Distiller"),
    *("kpipe.lite.quantize_selectively", "kpipe.prune.prune_filters"),
    *("kpipe.prune.scan_sensitivity", *(f"kpipe.train.EfficientNetLite{n}" for n in range(3))),
    *("kpipe.sparsity.cluster_weights", "kpipe.sparsity.prune_magnitude"),
    *("kpipe.sparsity.train_quantized", "kpipe.train.fit", "kpipe.train.fit_phases"),
}
RESULTS = rows_data.RESULTS | rows_models.RESULTS | rows_training.RESULTS


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("things"))
        yield Things()


def found(name: str) -> Any:
    """Return what a name such as "kpipe.data.Manifest.load" stands for."""
    package, *rest = (name.split(" ")[0].removeprefix("kpipe.")).split(".")
    start = f"kpipe.{package}" if rest else "kpipe"
    return functools.reduce(getattr, rest or [package], importlib.import_module(start))


def test_every_public_name_has_a_row() -> None:
    public = {
        f"{package}.{name}"
        for package in PACKAGES
        if package not in ("kpipe.cli", "kpipe.core", "kpipe.starter")
        for name in importlib.import_module(package).__all__
    }
    rows = {name.split(" ")[0] for name in ROWS}
    assert public - rows - RESULTS == set()
    assert RESULTS - public == set()


@pytest.mark.parametrize("name", [name for name in ROWS if name not in SLOW])
def test_wrong_arguments(name: str, things: Things) -> None:
    assert faults(name, found(name), ROWS[name], things) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SLOW))
def test_wrong_arguments_of_what_takes_long(name: str, things: Things) -> None:
    assert faults(name, found(name), ROWS[name], things) == []
