"""Files that change while a stage reads them: nothing is kept under a key of other files."""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import ClassVar

import pytest

from kpipe.core.digests import Digests, files_below
from kpipe.core.journal import read_journal
from kpipe.core.pipeline import Pipeline
from kpipe.core.runner import plan, run
from kpipe.core.sources import snapshot
from kpipe.core.stage import Context, Stage, stage
from kpipe.core.store import discard_partial
from kpipe.errors import DataError, StoreError, TrainingError
from tests.core.toys import Join, Read, Suffix


@stage
class ReadAll(Stage):
    gives: ClassVar = ("text",)

    folder: str
    list: str

    def sources(self) -> tuple[Path, ...]:
        return Path(self.folder), Path(self.list)

    def run(self, context: Context) -> None:
        texts = {p.name: p.read_text() for p in sorted(Path(self.folder).rglob("*.txt"))}
        (context.folder / "text.txt").write_text(f"{texts} {Path(self.list).read_text()}")


class Meddling:
    """Executes a stage while another program writes to its files."""

    def __init__(self, before, after=None, error=None):
        self.before, self.after, self.error = before, after, error

    def execute(self, stage, context):
        self.before()
        stage.run(context)
        if self.after:
            self.after()
        if self.error:
            raise self.error


@pytest.fixture
def files(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        (tmp_path / "photos" / name / "1.txt").write_text(name)
    (tmp_path / "list.txt").write_text("1")
    return tmp_path


def exchange(files):
    photos = files / "photos"
    for old, new in (("a", "t"), ("b", "a"), ("t", "b")):
        (photos / old).rename(photos / new)


def write(name, text):
    return lambda files: (files / name).write_text(text)


CHANGES = {
    "content": (write("photos/a/1.txt", "x"), None, r"photos/a/1\.txt was changed$"),
    "added": (write("photos/b/2.txt", "x"), None, r"photos/b/2\.txt was added$"),
    "removed": (lambda f: (f / "photos/b/1.txt").unlink(), None, r"b/1\.txt was removed$"),
    "labels": (exchange, None, r"a/1\.txt was changed\n.*b/1\.txt was changed$"),
    "a single file": (write("list.txt", "2"), None, r"list\.txt was changed$"),
    "labels, and back": (exchange, exchange, "photos/a was changed, and changed back"),
    "content, and back": (
        write("list.txt", "2"),
        write("list.txt", "1"),
        r"list\.txt was changed, and changed back",
    ),
}


def pipeline_on(files):
    return Pipeline("toy", [ReadAll(str(files / "photos"), str(files / "list.txt"))])


@pytest.mark.parametrize("error", [None, TrainingError("a photo is missing")])
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_while_it_is_read_is_named_and_nothing_is_kept(files, name, error):
    before, after, message = CHANGES[name]
    meddling = Meddling(lambda: before(files), after and (lambda: after(files)), error)
    with pytest.raises(DataError, match="changed during the run") as raised:
        run(pipeline_on(files), files / "out", executor=meddling)
    assert re.search(f"(?m){message}", raised.value.received)
    assert [p.name for p in (files / "out" / ".cache").iterdir() if len(p.name) > 20] == []
    (journal,) = (files / "out").glob("toy/*/journal.jsonl")
    assert read_journal(journal)[-1]["event"] == "stage_failed"


def test_after_the_change_the_next_run_has_the_files_as_they_are(files):
    with pytest.raises(DataError):
        run(pipeline_on(files), files / "out", executor=Meddling(lambda: exchange(files)))
    again = run(pipeline_on(files), files / "out")
    assert again.made == ("ReadAll",)
    exchange(files)
    assert [step.status for step in plan(pipeline_on(files), files / "out")] == ["runs"]


def test_a_source_that_vanishes_is_named(files):
    meddling = Meddling(lambda: None, lambda: (files / "list.txt").unlink())
    with pytest.raises(DataError, match=r"list\.txt, which does not exist"):
        run(pipeline_on(files), files / "out", executor=meddling)


def test_a_change_before_the_stage_begins_stops_it(files):
    """The keys of all stages are computed when a run starts, hours before the last stage."""

    def write_later(event):
        if event["event"] == "stage_finished":
            (files / "list.txt").write_text("2")

    pipeline = Pipeline("toy", [Suffix(), Read(str(files / "list.txt")), Join()])
    with pytest.raises(DataError, match="the files that Read reads changed"):
        run(pipeline, files / "out", listeners=(write_later,))
    assert [path.name for path in (files / "out" / ".cache").glob("*/text.txt")] == []


def test_what_changes_no_content_is_no_change(files):
    photo = files / "photos" / "a" / "1.txt"

    def meddle():
        photo.chmod(0o600)
        os.link(photo, files / "a link of a backup")
        (files / "photos" / "a" / ".DS_Store").write_text("a folder was looked at")
        (files / "photos" / "__MACOSX").mkdir()

    run(pipeline_on(files), files / "out", executor=Meddling(meddle))
    assert [step.status for step in plan(pipeline_on(files), files / "out")] == ["cached"]


@stage
class ReadListed(ReadAll):
    def sources(self) -> tuple[Path, ...]:
        return Path(self.list), *sorted(Path(self.folder).rglob("*.txt"))


def test_files_that_a_table_lists_are_watched_too(files):
    listed = ReadListed(str(files / "photos"), str(files / "list.txt"))
    meddling = Meddling(lambda: exchange(files), lambda: exchange(files))
    with pytest.raises(DataError, match="changed during the run") as raised:
        run(Pipeline("toy", [listed]), files / "out", executor=meddling)
    assert "photos/a was changed, and changed back" in raised.value.received


def test_an_interrupted_stage_does_not_resume_from_files_that_changed(files):
    meddling = Meddling(lambda: exchange(files), lambda: exchange(files), KeyboardInterrupt())
    with (
        pytest.raises(KeyboardInterrupt),
        pytest.warns(UserWarning, match="ReadAll reads changed; what it wrote is discarded"),
    ):
        run(pipeline_on(files), files / "out", executor=meddling)
    assert [step.status for step in plan(pipeline_on(files), files / "out")] == ["runs"]


def test_a_file_whose_name_is_no_utf8_is_watched_too(files):
    """Its content is written back with the earlier time, so that its state alone tells."""
    odd = files / "photos" / "a" / os.fsdecode(b"\xff.txt")
    odd.write_text("x")
    meddling = Meddling(lambda: odd.write_text("y"), lambda: odd.write_text("x"))
    with pytest.raises(DataError, match=r"\\xff\.txt was changed, and changed back"):
        run(pipeline_on(files), files / "out", executor=meddling)


def touch(files):
    os.utime(files / "list.txt", (0, 0))


def rewrite(files):
    (files / "list.txt").write_text("2")
    (files / "list.txt").write_text("1")


def replace(files):
    shutil.copy(files / "list.txt", files / "copy")
    (files / "copy").replace(files / "list.txt")


@pytest.mark.parametrize("meddle", [touch, rewrite, replace])
@pytest.mark.parametrize("error", [None, KeyboardInterrupt()])
def test_the_result_of_one_file_is_kept_if_the_content_is_the_same(files, meddle, error):
    """As that of hours of training from a file of weights."""
    pipeline = Pipeline("toy", [Read(str(files / "list.txt"))])
    meddling = Meddling(lambda: meddle(files), None, error)
    with pytest.raises(KeyboardInterrupt) if error else contextlib.nullcontext():
        run(pipeline, files / "out", executor=meddling)
    status = "continues" if error else "cached"
    assert [step.status for step in plan(pipeline, files / "out")] == [status]
    (journal,) = (files / "out").glob("toy/*/journal.jsonl")
    (note,) = [event["text"] for event in read_journal(journal) if event["event"] == "note"]
    assert "list.txt was changed, and changed back, or only touched, while Read ran" in note


def test_one_file_of_other_content_is_refused(files):
    pipeline = Pipeline("toy", [Read(str(files / "list.txt"))])
    with pytest.raises(DataError, match="changed during the run"):
        run(pipeline, files / "out", executor=Meddling(lambda: write("list.txt", "2")(files)))
    assert list((files / "out" / ".cache").glob("*/text.txt")) == []


def test_what_cannot_be_removed_is_not_continued(files, monkeypatch):
    """Windows renames no folder with open files."""

    def fail(path, suffix):
        raise PermissionError(13, "a file in it is open", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("kpipe.core.store._move_aside", fail)
        with pytest.raises(DataError, match="changed during the run"):
            run(pipeline_on(files), files / "out", executor=Meddling(lambda: exchange(files)))
    exchange(files)
    assert [step.status for step in plan(pipeline_on(files), files / "out")] == ["runs"]
    seen = []

    class Looking:
        def execute(self, stage, context):
            seen.extend(context.folder.iterdir())
            stage.run(context)

    assert run(pipeline_on(files), files / "out", executor=Looking()).made == ("ReadAll",)
    assert seen == []


def test_what_can_be_neither_removed_nor_marked_is_an_error_that_names_it(tmp_path, monkeypatch):
    def fail(path, *_):
        raise PermissionError(13, "read-only", str(path))

    monkeypatch.setattr("kpipe.core.store._move_aside", fail)
    monkeypatch.setattr(Path, "touch", fail)
    (tmp_path / "key.partial").mkdir()
    with pytest.raises(StoreError, match=r"key\.partial holds .* cannot be discarded"):
        discard_partial(tmp_path / "key.partial")


def test_a_folder_is_listed_once(files, monkeypatch):
    listed = []
    for module in ("digests", "sources"):
        name = f"kpipe.core.{module}.files_below"
        monkeypatch.setattr(name, lambda path: listed.append(path) or files_below(path))
    with contextlib.closing(Digests(files / "digests.sqlite")) as digests:
        snapshot(ReadAll(str(files / "photos"), str(files / "list.txt")), digests)
    assert listed == [files / "photos"]
