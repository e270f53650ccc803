from __future__ import annotations

import subprocess
import sys

import pytest

import kpipe.data


@pytest.mark.parametrize("name", kpipe.data.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(kpipe.data, name) is not None


def test_reading_photos_loads_no_tensorflow() -> None:
    names = "from_folder, from_csv, from_dataframe, split, decode, Manifest"
    names += ", Sampling, augment_minority, class_weight, class_shares, oversample, undersample"
    code = f"import sys; from kpipe.data import {names}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
