"""Packages that are not installed, in an installation that was meant to be full."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from kpipe.errors import InstallationError
from kpipe.installation import missing_package, refuse_mixed_versions, translate_missing_packages

WITHOUT_PANDAS = "import sys; sys.modules['pandas'] = None; from kpipe.data import audit"


def test_an_import_of_other_code_keeps_its_error() -> None:
    expected = pytest.raises(ModuleNotFoundError, match="not_a_package")
    with expected, translate_missing_packages("this"):
        exec("import not_a_package")


def test_a_missing_package_of_kpipe_is_an_installation_error(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PANDAS],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "kpipe.data.audit needs the package pandas, which is not installed" in done.stderr
    assert "what to do: pip install kpipe" in done.stderr


def test_the_error_is_an_import_error_and_can_be_sent_to_another_process() -> None:
    error = missing_package("this", "pandas")
    assert isinstance(error, ImportError)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, InstallationError)
    assert str(again) == str(error)


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_kpipe_and_kpipe_lite_of_different_versions_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    for name, number in (("kpipe", "1.0"), ("kpipe_lite", version)):
        (tmp_path / f"{name}-{number}.dist-info").mkdir()
        metadata = tmp_path / f"{name}-{number}.dist-info" / "METADATA"
        metadata.write_text(f"Name: {name}\nVersion: {number}\n")
    monkeypatch.syspath_prepend(tmp_path)
    if version == "1.0":
        refuse_mixed_versions()
    else:
        with pytest.raises(InstallationError, match=r"received: kpipe 1\.0, kpipe-lite 1\.1"):
            refuse_mixed_versions()
