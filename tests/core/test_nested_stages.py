"""Stages in the fields of a stage, kinds given only where there is none, kinds in subfolders."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from kpipe import Pipeline
from kpipe.core.runner import plan, run
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import PipelineError
from tests.core.toys import Read, Repeat


@stage
class Texts(Stage):
    """Join the texts of several stages; give the first as a text too, if there is no other."""

    gives: ClassVar = ("joined", "text?")
    publishes: ClassVar = ("joined.txt",)

    parts: tuple[Read, ...] = ()
    copies: int = 1

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for part in self.parts for path in part.sources())

    def run(self, context: Context) -> None:
        texts = [Path(part.path).read_text() for part in self.parts]
        (context.folder / "joined.txt").write_text("+".join(texts) * self.copies)
        (context.folder / "text").mkdir(exist_ok=True)
        (context.folder / "text" / "text.txt").write_text(texts[0])


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Read, ...]:
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    return Read(str(tmp_path / "one")), Read(str(tmp_path / "two"))


def text_of(result: Any, stage: str) -> str:
    import json

    for line in (result.folder / "journal.jsonl").read_text().splitlines():
        event = json.loads(line)
        if event["event"] in ("stage_finished", "stage_skipped") and event["stage"] == stage:
            found = (result.folder / event["folder"]).resolve()
    return (found / "text.txt").read_text()


def test_a_kind_is_given_where_no_earlier_stage_gives_it(parts, tmp_path: Path) -> None:
    alone = Pipeline("p", [Texts(parts), Repeat()])
    assert alone.links()[1] == {"text": (0,)}
    assert text_of(run(alone, tmp_path / "root"), "Repeat") == "oneone"
    beside = Pipeline("p", [parts[1], Texts(parts), Repeat()])
    assert beside.links()[2] == {"text": (0,)}
    assert text_of(run(beside, tmp_path / "root"), "Repeat") == "twotwo"


def test_nested_stages_are_rendered_with_their_imports(parts) -> None:
    pipeline = Pipeline("p", [Texts(parts), Repeat()])
    namespace: dict[str, Any] = {}
    exec(pipeline.render(), namespace)
    assert namespace["pipeline"] == pipeline
    assert pipeline.stages[0].nested() == parts


def test_a_setting_reaches_nested_stages_if_none_of_that_name_is_declared(parts) -> None:
    set_alone = Pipeline("p", [Texts(parts), Repeat()]).with_settings(["Read.upper=yes"])
    assert [part.upper for part in set_alone.stages[0].parts] == [True, True]
    beside = Pipeline("p", [parts[1], Texts(parts), Repeat()]).with_settings(["Read.upper=yes"])
    assert beside.stages[0].upper
    assert [part.upper for part in beside.stages[1].parts] == [False, False]
    with pytest.raises(PipelineError, match="unknown stage 'Raed'"):
        Pipeline("p", [Texts(parts), Repeat()]).with_settings(["Raed.upper=yes"])
    with pytest.raises(PipelineError, match="Texts has no field 'upper', but Read has"):
        Pipeline("p", [Texts(parts), Repeat()]).with_settings(["Texts.upper=yes"])


def test_the_key_depends_on_nested_fields_versions_and_sources(
    parts, tmp_path, monkeypatch
) -> None:
    root = tmp_path / "root"

    def made() -> bool:
        return "Texts" in run(Pipeline("p", [Texts(parts), Repeat()]), root).made

    assert made()
    assert not made()
    monkeypatch.setattr(Read, "version", 2)
    assert made()
    (tmp_path / "two").write_text("three")
    assert made()
    assert not made()


def test_a_plan_names_the_field_of_a_nested_stage_that_changed(parts, tmp_path: Path) -> None:
    root = tmp_path / "root"
    run(Pipeline("p", [Texts(parts)]), root)

    def why(*changed: Read, **fields: Any) -> str:
        return plan(Pipeline("p", [Texts(changed, **fields)]), root)[0].why

    one, two = parts
    louder = Read(two.path, upper=True)
    assert why(one, louder).endswith(": parts[1].upper False -> True")
    assert ": parts: 2 -> 1 stages, the data changed" in why(one)
    assert ": parts[0].upper False -> True, copies 1 -> 2" in why(
        Read(one.path, True), two, copies=2
    )
