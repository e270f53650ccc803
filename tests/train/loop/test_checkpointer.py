"""A training run killed repeatedly ends like an uninterrupted one."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.train.trainings import PHASES

PROJECT = Path(__file__).parents[3]
KILLS = 20


def start(folder: Path, operations: int = 0) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.train.killed", str(folder), "phases", str(operations)]
    return subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def same_result(one: Path, other: Path) -> None:
    with np.load(one / "result.npz") as a, np.load(other / "result.npz") as b:
        assert sorted(a.files) == sorted(b.files)
        for name in a.files:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def refuse_tame(folder: Path) -> None:
    """Require that the training run has all state that a kill could lose."""
    with np.load(folder / "result.npz") as file:
        history = json.loads(str(file["record"]))["history"]
    phases = np.array(history["phase"])
    switched, rates = np.array(history["switched"]), np.array(history["learning_rate"])
    for phase in (2, 3, 4):
        assert set(switched[phases == phase]) == {0, 1}, "no switch"
    assert len(set(rates[phases == 3])) > 2, "no plateau"
    assert np.count_nonzero(phases == 4) < PHASES[3].config.epochs, "no early end"


@pytest.mark.slow
def test_twenty_random_kills_do_not_change_a_bit(tmp_path: Path) -> None:
    draw = random.Random(4)
    assert start(tmp_path / "whole").wait() == 0
    refuse_tame(tmp_path / "whole")
    kills, folder, rounds = 0, tmp_path / "killed-0", 0
    while kills < KILLS:
        by_clock = kills % 4 == 3
        # A whole training is about 170 operations long.
        process = start(folder, 0 if by_clock else draw.randint(1, 80))
        if by_clock:
            # From outside, wherever it is: from the first file on, since loading loses nothing.
            while process.poll() is None and not folder.exists():
                time.sleep(0.01)
            time.sleep(draw.uniform(1, 5))
            process.kill()
        status = process.wait()
        assert status in (0, -signal.SIGKILL)
        kills += status == -signal.SIGKILL
        if status == 0:
            same_result(folder, tmp_path / "whole")
            rounds += 1
            folder = tmp_path / f"killed-{rounds}"
    assert start(folder).wait() == 0
    same_result(folder, tmp_path / "whole")
    moments = [name for path in tmp_path.glob("*/killed.txt") for name in path.read_text().split()]
    assert "step" in moments and set(moments) - {"step"}, "no kill inside a write"
