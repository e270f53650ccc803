"""Public names as a type checker sees them: real signatures, each name defined once."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import kpipe

ROOT = Path(kpipe.__path__[0])
STUBS = sorted(ROOT.rglob("__init__.pyi"))
# A user's script. Lines with a comment `error: PATTERN` are wrong, all others are right.
SCRIPT = """
import keras  # type: ignore[import-untyped]

from kpipe import Pipeline
from kpipe.data import class_weight, from_folder, split
from kpipe.data import from_foldr  # error: has no attribute "from_foldr"; maybe "from_folder"
from kpipe.lite import Classifier, convert
from kpipe.prune import PruneResult, prune_filters
from kpipe.stages import Augment, Balance, Data, Export, FilterPrune, FineTune
from kpipe.train import OnPlateau, SwitchOptimizer


def finetune(model: keras.Model, round_number: int) -> None:
    model.fit()


def evaluate(model: keras.Model) -> float:
    return 0.5


model = keras.Model()
result: PruneResult = prune_filters(model, macs=0.5, finetune=finetune, evaluate=evaluate)
content: bytes = convert(result.model, "int8", calibration=[])
label: str = Classifier("model.tflite").predict("photo.jpg")[0].label
manifest = split(from_folder("photos"), (0.7, 0.15, 0.15), seed=7)
weights: dict[int, float] = class_weight(manifest.labels("train"), manifest.classes)
switch = SwitchOptimizer("sgd", OnPlateau(patience=2))
pipeline = Pipeline(
    "clothing",
    [
        Data("photos", image_size=160),
        Balance("class_weight"),
        Augment(flip="horizontal", rotate=0.05),
        FineTune("MobileNetV2", alpha=0.35, switch_to="sgd", switch_when="plateau"),
        FilterPrune(macs=0.5),
        Export(quantize="int8"),
    ],
    seed=7,
)

prune_filters(1, 2, nonsense=3)  # error: Unexpected keyword argument "nonsense"
prune_filters(model, macs="half", finetune=finetune, evaluate=evaluate)  # error: type "str"
prune_filters(model, macs=0.5, finetune=evaluate, evaluate=evaluate)  # error: "finetune"
from_folder(root=3)  # error: incompatible type "int"
Classifier(3)  # error: incompatible type "int"
convert(model, quantise="int8")  # error: Unexpected keyword argument "quantise"
FineTune(backbon="x")  # error: "backbon" for "FineTune"; did you mean "backbone"
FineTune("MobileNetV2", switch_to="sgdd")  # error: incompatible type
Data(manifest)  # error: incompatible type "Manifest"
Pipeline("clothing", ["data"])  # error: incompatible type "str"
Balance().method = "oversample"  # error: read-only
"""


def package_of(stub: Path) -> str:
    return ".".join(["kpipe", *stub.parent.relative_to(ROOT).parts])


def imports(stub: Path) -> list[tuple[str, str]]:
    """[(module, public name), ...] of a package's stub."""
    return [
        (f"{package_of(stub)}.{node.module}", alias.name)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    ]


def definitions(module: str) -> Counter[str]:
    """How often each name is bound at the top level of a module."""
    path = ROOT.parent.joinpath(*module.split(".")).with_suffix(".py")
    found: Counter[str] = Counter()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            found[node.name] += 1
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


def test_mypy_checks_a_users_script(tmp_path: Path) -> None:
    names = [f"{package_of(stub)}.{name}" for stub in STUBS for _, name in imports(stub)]
    reveals = [f"import {package_of(stub)}" for stub in STUBS]
    reveals += [f"reveal_type({name})" for name in names]
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "reveals.py").write_text("\n".join(reveals))
    (tmp_path / "mypy.ini").write_text("[mypy]\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=mypy.ini", "script.py", "reveals.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        # mypy does not see the import hook of an editable installation, but does see a path.
        env=os.environ | {"PYTHONPATH": str(ROOT.parent)},
    )
    assert done.stderr == ""
    types = re.findall(r'^reveals\.py:\d+: note: Revealed type is "(.*)"$', done.stdout, re.M)
    assert len(types) == len(names)
    assert [name for name, kind in zip(names, types, strict=True) if kind == "Any"] == []
    errors = re.findall(r"^script\.py:(\d+): error: (.*)$", done.stdout, re.MULTILINE)
    expected = {
        number: line.partition("  # error: ")[2]
        for number, line in enumerate(SCRIPT.splitlines(), 1)
        if "  # error: " in line
    }
    assert {int(number) for number, _ in errors} == set(expected), done.stdout
    for number, text in expected.items():
        assert any(text in message for line, message in errors if int(line) == number), text


@pytest.mark.parametrize("stub", STUBS, ids=package_of)
def test_a_stub_lists_each_public_name_once_and_each_is_defined_once(stub: Path) -> None:
    package = importlib.import_module(package_of(stub))
    names = imports(stub)
    assert max(Counter(name for _, name in names).values()) == 1
    assert {name for _, name in names} == set(package.__all__) - {"__version__"}
    for module, name in names:
        assert definitions(module)[name] == 1, f"{module}.{name}"
        assert getattr(package, name) is getattr(importlib.import_module(module), name)
        assert name in importlib.import_module(module).__all__


def test_no_two_packages_publish_the_same_name() -> None:
    counts = Counter(name for stub in STUBS for _, name in imports(stub))
    assert {name for name, count in counts.items() if count > 1} == set()


@pytest.mark.parametrize("folder", ["benchmarks", "pipelines"])
def test_scripts_import_names_that_exist(folder: str) -> None:
    # Nothing runs the benchmarks in the tests, so a rename could pass them by.
    scripts = sorted((ROOT.parent / folder).glob("*.py"))
    assert scripts
    for script in scripts:
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("kpipe"):
                module = importlib.import_module(str(node.module))
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{script.name}: {alias.name}"
