"""The package as it is imported: names, laziness, version."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import kpipe

PACKAGES = ["kpipe", *(m.name for m in pkgutil.iter_modules(kpipe.__path__, "kpipe.") if m.ispkg)]
MODULES = [m.name for m in pkgutil.walk_packages(kpipe.__path__, "kpipe.")]
HEAVY = ("tensorflow", "keras", "tf_keras", "pandas", "matplotlib", "sklearn")
DECLARATION = """
from kpipe import Pipeline
from kpipe.stages import (
    Augment, Balance, Data, Ensemble, Export, FilterPrune, FineTune, MagnitudePrune
)

pipeline = Pipeline("all", [
    Data("photos"), Balance(), Augment(), FineTune("MobileNetV2", switch_to="sgd"), Ensemble(),
    FilterPrune(), MagnitudePrune(), Export(),
])
"""


def heavy_modules_after(code: str, cwd: Path, *words: str) -> set[str]:
    """Which of the slow libraries a fresh process has loaded after running some code."""
    code += f"\nimport sys\nprint('LOADED', *(set({HEAVY!r}) & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import kpipe",
        *(f"import {name}" for name in PACKAGES[1:]),
        "from kpipe.stages import Export",
        "from kpipe import *",
        "import kpipe; kpipe.train, kpipe.stages.FineTune('MobileNet'), dir(kpipe)",
    ],
)
def test_importing_a_package_loads_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert heavy_modules_after(code, tmp_path) == set()


def test_every_public_package_is_reached_from_kpipe() -> None:
    public = set(PACKAGES[1:]) - {"kpipe.cli", "kpipe.core", "kpipe.starter"}
    code = "import kpipe; print(*(getattr(kpipe, name).__name__ for name in dir(kpipe)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"KpipeError", "Pipeline"} == public


def test_the_check_for_heavy_modules_sees_them(tmp_path: Path) -> None:
    assert "pandas" in heavy_modules_after("import pandas", tmp_path)


def test_importtime_of_the_package_shows_no_tensorflow(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import kpipe"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lazy_loader" in done.stderr
    assert "tensorflow" not in done.stderr and "keras" not in done.stderr


def test_a_plan_of_every_stage_loads_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    (tmp_path / "all.py").write_text(DECLARATION)
    code = "from kpipe.cli import main; main()"
    assert heavy_modules_after(code, tmp_path, "plan", "all.py") == set()


@pytest.mark.parametrize("name", ["kpipe", *MODULES])
def test_every_name_of_all_is_there(name: str) -> None:
    module = importlib.import_module(name)
    assert [public for public in module.__all__ if not hasattr(module, public)] == []
    assert len(set(module.__all__)) == len(module.__all__)


@pytest.mark.parametrize("name", PACKAGES)
def test_no_public_name_is_the_name_of_a_module(name: str) -> None:
    # Once imported, the submodule would stand in the place of the function.
    package = importlib.import_module(name)
    modules = {module.name for module in pkgutil.iter_modules(package.__path__)}
    assert set(package.__all__) & modules == set()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_name_that_is_not_there_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(name).no_such_name  # noqa: B018


@pytest.mark.parametrize("name", [name for name in PACKAGES if name != "kpipe.core"])
def test_dir_lists_the_public_names(name: str) -> None:
    package = importlib.import_module(name)
    assert set(package.__all__) - {"__version__"} <= set(dir(package))


def test_the_installed_version_is_that_of_the_source() -> None:
    assert importlib.metadata.version("kpipe") == kpipe.__version__


@pytest.mark.parametrize(
    "name", [name for name in PACKAGES if name not in ("kpipe.cli", "kpipe.core")]
)
def test_every_public_class_and_function_has_an_example(name: str) -> None:
    package = importlib.import_module(name)
    public = {public: getattr(package, public) for public in package.__all__}
    without = [
        public
        for public, thing in public.items()
        if inspect.isclass(thing) or inspect.isfunction(thing)
        if ">>>" not in (inspect.getdoc(thing) or "")
    ]
    assert without == []
