"""What `kpipe doctor` finds, here and on machines that lack something."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from kpipe.cli.entry import commands
from kpipe.starter import doctor
from kpipe.starter.doctor import Finding, examine, examine_disk, try_training


def command(root: Path, *words: str) -> Result:
    return CliRunner().invoke(commands, ["doctor", "--root", str(root), *words])


def found(root: Path) -> dict[str, list[Finding]]:
    names: dict[str, list[Finding]] = {}
    for finding in [examine_disk(root), *examine()]:
        names.setdefault(finding.name, []).append(finding)
    return names


def test_nothing_is_at_fault_here(tmp_path: Path) -> None:
    findings = found(tmp_path / "new" / "root")
    assert {one.state for several in findings.values() for one in several} <= {"good", "notice"}
    (packages,) = findings["packages"]
    assert f"keras {importlib.metadata.version('keras')}" in packages.detail
    assert findings["results"][0].detail.endswith(f"GB free at {tmp_path}")
    assert {"system", "processor", "ImageNet weights", "GPU"} <= findings.keys()
    assert all(one.fix for several in findings.values() for one in several if one.state == "notice")


def test_a_missing_package_is_a_fault_and_nothing_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_PACKAGES", ("kpipe", "no-such-package"))
    done = command(tmp_path)
    assert done.exit_code == 1
    assert "!!  packages: missing: no-such-package" in done.output
    assert "1 fault" in done.output and "training" not in done.output


def test_json_is_one_object(tmp_path: Path) -> None:
    done = command(tmp_path, "--no-training", "--json")
    found = json.loads(done.output)
    assert found["command"] == "doctor" and done.exit_code == 0
    assert found["findings"][0].keys() == {"state", "name", "detail", "fix"}
    assert not any(finding["name"] == "training" for finding in found["findings"])


def test_a_root_that_cannot_be_written_is_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (disk,) = found(tmp_path)["results"]
    assert (disk.state, disk.fix) == ("fault", "pass another --root")


def test_a_root_within_a_file_is_one_finding_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = command(tmp_path / "file" / "root")
    assert done.exit_code == 1
    assert done.output.startswith("!!  results:") and "kpipe works here" not in done.output


def test_a_tensorflow_that_cannot_be_loaded_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    *_, graphics = examine()
    assert (graphics.state, graphics.name) == ("fault", "TensorFlow")
    assert "pip install" in graphics.fix


def test_little_space_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2e9))
    (disk,) = found(tmp_path)["results"]
    assert disk.state == "notice" and disk.detail.startswith("2.0 GB free")


def test_weights_at_hand_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPIPE_WEIGHTS", str(tmp_path))
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_160_no_top.h5"
    (tmp_path / name).write_bytes(b"weights")
    details = {one.state: one.detail for one in found(tmp_path)["ImageNet weights"]}
    assert "MobileNetV2 0.35" in details["good"] and "MobileNetV2 0.5" in details["notice"]


def test_a_failed_training_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> int:
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(doctor, "_train_tiny", fail)
    assert try_training() == Finding("fault", "training", "RuntimeError: illegal instruction")


@pytest.mark.slow
def test_a_tiny_network_is_trained_and_exported(tmp_path: Path) -> None:
    done = command(tmp_path)
    assert done.exit_code == 0, done.output
    assert "ok  training: a tiny network, trained and exported in" in done.output
    assert done.output.splitlines()[-1] == "kpipe works here"
