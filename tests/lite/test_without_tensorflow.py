"""kpipe-lite runs models as kpipe does, and answers everything else with an InstallationError.

Each test runs where nothing but the requirements of kpipe-lite can be imported: in this environment
and, if there is one, in an environment of its own:

    python -m venv FOLDER && FOLDER/bin/pip install ./distributions/kpipe-lite
    KPIPE_LITE=FOLDER/bin/python pytest tests/lite/test_without_tensorflow.py
"""

from __future__ import annotations

import configparser
import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from PIL import Image

import kpipe
from kpipe.cli.entry import commands
from tests.lite.conftest import photos
from tests.lite.without_tensorflow import results

ROOT = Path(kpipe.__path__[0]).parent
PYTHON = os.environ.get("KPIPE_LITE", "")
SCRIPT = Path(__file__).with_name("without_tensorflow.py")
MAIN = ("-c", "from kpipe.cli import main; main()")
REFUSED = ("full installation, not kpipe-lite", "pip uninstall kpipe-lite && pip install kpipe")
# `sitecustomize` is imported by every Python process, and so by those that a command starts.
RESTRICTION = """
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

class Restricted(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {modules!r} | sys.stdlib_module_names:
            return super().find_spec(name, path, target)

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Restricted]
"""
Process = subprocess.CompletedProcess[str]
Python = Callable[..., Process]


def configuration(folder: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read_string((folder / "setup.cfg").read_text())
    return parser


def requirements(folder: Path) -> list[str]:
    return configuration(folder)["options"]["install_requires"].split("\n")[1:]


def modules_of(requirements: list[str]) -> set[str]:
    """Return the top-level modules of packages, and of all packages that these require."""
    modules, waiting, seen = {"kpipe", "sitecustomize"}, list(requirements), set()
    while waiting:
        requirement = Requirement(waiting.pop())
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name not in seen:
            seen.add(requirement.name)
            package = importlib.metadata.distribution(requirement.name)
            modules |= {file.parts[0].partition(".")[0] for file in package.files or ()}
            waiting += package.requires or []
    return modules


@pytest.fixture(
    scope="module",
    params=[
        "restricted",
        pytest.param(
            "installed",
            marks=pytest.mark.skipif(
                not PYTHON, reason="KPIPE_LITE is not set to a Python that has kpipe-lite alone"
            ),
        ),
    ],
)
def lite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Python:
    """`lite(word, ...)`: a Python process that can import what kpipe-lite requires."""
    folder = tmp_path_factory.mktemp("restriction")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if request.param == "restricted":
        modules = modules_of(requirements(ROOT / "distributions" / "kpipe-lite"))
        (folder / "sitecustomize.py").write_text(RESTRICTION.format(modules=modules))
        metadata = folder / f"kpipe_lite-{kpipe.__version__}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(f"Name: kpipe-lite\nVersion: {kpipe.__version__}\n")
        environment["PYTHONPATH"] = os.pathsep.join(map(str, (folder, ROOT)))
    python = sys.executable if request.param == "restricted" else PYTHON

    def run(*words: object) -> Process:
        command = [python, *map(str, words)]
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="module")
def files(float_file: bytes, int8_file: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two models with labels, and photos of several formats and sizes."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "float.tflite").write_bytes(float_file)
    (folder / "int8.tflite").write_bytes(int8_file)
    (folder / "labels.txt").write_text("ant\nbee\ncrab\n")
    images = photos(12, size=100)
    np.save(folder / "images.npy", photos(12))
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "photos").mkdir()
    Image.fromarray(images[0]).resize((300, 140)).save(folder / "photos" / "a.jpg", exif=exif)
    clear = Image.fromarray(images[1])
    clear.putalpha(clear.convert("L"))
    clear.save(folder / "photos" / "b.png")
    Image.fromarray(images[2]).convert("P").save(folder / "photos" / "c.gif")
    return folder


def test_other_packages_cannot_be_imported(lite: Python) -> None:
    names = ("tensorflow", "keras", "pandas", "sklearn", "scipy", "matplotlib", "rich")
    code = f"import importlib.util; print(*map(importlib.util.find_spec, {names}))"
    assert lite("-c", code).stdout.split() == ["None"] * len(names)


@pytest.mark.parametrize("form", ["float", "int8"])
def test_a_model_runs_as_in_a_full_installation(lite: Python, files: Path, form: str) -> None:
    words = (files / f"{form}.tflite", files / "images.npy", *sorted(files.glob("photos/*")))
    done = lite(SCRIPT, *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["results"] == json.loads(json.dumps(results(*map(str, words))))
    assert len(set(map(str, found["results"]["predictions"]))) == 3
    lacking = found["lacking"]
    assert {"lite.convert", "prune.plan", "data.audit", "a Keras model"} < lacking.keys()
    assert "lite.Classifier" not in lacking
    for error in lacking.values():
        assert all(words in error for words in (*REFUSED, "needs the package"))


def test_predict_prints_what_a_full_installation_prints(lite: Python, files: Path) -> None:
    words = ["predict", str(files / "int8.tflite"), str(files / "photos"), "--top", "2"]
    done = lite(*MAIN, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == CliRunner().invoke(commands, words).stdout
    assert done.stdout.count("%") == 6


def test_benchmark(lite: Python, files: Path) -> None:
    models = (files / "float.tflite", files / "int8.tflite")
    done = lite(*MAIN, "benchmark", *models, "--runs", 5)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("peak memory") == 2
    assert "relative to" in done.stdout


def test_errors_of_a_file_are_as_clear(lite: Python, files: Path) -> None:
    done = lite(*MAIN, "predict", files / "labels.txt", files / "photos")
    assert done.returncode == 2
    assert "is not a TFLite file that LiteRT can run" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("words", [("run", "x.py"), ("check", "photos", "--fix", "a.csv")])
def test_other_commands_name_the_full_installation(lite: Python, words: tuple[str, ...]) -> None:
    done = lite(*MAIN, *words)
    assert done.returncode == 2
    assert all(text in done.stderr for text in (*REFUSED, f"kpipe {words[0]} needs the package"))
    assert "Traceback" not in done.stderr


def test_help_tells_which_commands_are_missing(lite: Python) -> None:
    lines = lite(*MAIN, "--help").stdout.splitlines()
    missing = [line.split()[0] for line in lines if "Needs packages that are not installed" in line]
    assert missing == ["cache", "check", "doctor", "init", "plan", "preview", "report", "run"]
    assert (
        "Needs packages that are not installed"
        not in CliRunner().invoke(commands, ["--help"]).stdout
    )


def test_the_declarations_of_both_distributions_agree() -> None:
    ours, small = configuration(ROOT), configuration(ROOT / "distributions" / "kpipe-lite")
    assert set(requirements(ROOT / "distributions" / "kpipe-lite")) < set(requirements(ROOT))
    for parser in (ours, small):
        for name in ("name", "description", "long_description"):
            del parser["metadata"][name]
        del parser["options"]["install_requires"]
    for section in small.sections():
        assert dict(small[section]) == dict(ours[section])
    for name in ("kpipe", "LICENSE"):
        assert (ROOT / "distributions" / "kpipe-lite" / name).samefile(ROOT / name)
