from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from kpipe.cli.entry import commands
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import run
from kpipe.errors import StoreError
from tests.core.toys import Count


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`cache("--remove")`: what the command prints, for a root with two runs."""
    monkeypatch.setenv("COLUMNS", "120")
    for upto in (2, 3):
        run(Pipeline(f"to{upto}", [Count(upto)]), tmp_path / "out")

    def command(*words: str) -> str:
        result = CliRunner().invoke(commands, ["cache", *words, "--root", str(tmp_path / "out")])
        if result.exception:
            raise result.exception
        return result.output

    return command


def test_it_lists_every_result(cache, tmp_path: Path) -> None:
    output = cache()
    assert output.count("Count") == 2 and output.count("finished") == 2
    assert "to2/" in output and "to3/" in output and "now" in output
    assert "2 results, 0.00 MB" in output and "--remove" not in output


def test_a_removal_is_shown_first_and_done_with_yes(cache, tmp_path: Path) -> None:
    assert "nothing to remove" in cache("--remove")
    (folder,) = (tmp_path / "out" / "to2").iterdir()
    for words in ([], ["--yes"]):
        output = cache("--remove", f"to2/{folder.name}", *words)
        assert f"run {folder}" in output and output.count("Count") == 1
        assert ("would remove 1 result," in output) is not bool(words)
        assert folder.exists() is not bool(words)
    assert cache().count("Count") == 1
    for path in (tmp_path / "out" / "to3").rglob("journal.jsonl"):
        path.unlink()
    assert "no run needs 1, 0.00 MB: kpipe cache --remove --root" in cache()
    assert "removed 1 result," in cache("--remove", "--yes")


def test_a_root_without_results_has_none(cache, tmp_path: Path) -> None:
    result = CliRunner().invoke(commands, ["cache", "--root", str(tmp_path / "absent")])
    assert "0 results" in result.output
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("words", [["--yes"], ["to2/1"]])
def test_words_for_a_removal_need_remove(cache, words: list[str]) -> None:
    with pytest.raises(StoreError, match="are for --remove"):
        cache(*words)
