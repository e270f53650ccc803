"""Small stages that write text files, for the tests of the machinery."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from kpipe.core.fields import Between
from kpipe.core.stage import Context, Stage, stage
from kpipe.errors import TrainingError


@stage
class Read(Stage):
    gives: ClassVar = ("text",)

    path: str
    upper: bool = False

    def sources(self) -> tuple[Path, ...]:
        return (Path(self.path),)

    def run(self, context: Context) -> None:
        text = Path(self.path).read_text()
        (context.folder / "text.txt").write_text(text.upper() if self.upper else text)


@stage
class Repeat(Stage):
    needs: ClassVar = ("text",)
    gives: ClassVar = ("text",)

    times: Annotated[int, Between(1, 9)] = 2

    def run(self, context: Context) -> None:
        text = (context.newest("text") / "text.txt").read_text()
        (context.folder / "text.txt").write_text(text * self.times)


@stage
class Suffix(Stage):
    gives: ClassVar = ("suffix",)

    text: str = "!"
    place: Literal["front", "back"] = "back"

    def run(self, context: Context) -> None:
        (context.folder / "suffix.txt").write_text(self.text)


@stage
class Join(Stage):
    needs: ClassVar = ("text+", "suffix?")
    gives: ClassVar = ("joined",)
    publishes: ClassVar = ("joined.txt",)

    def run(self, context: Context) -> None:
        suffix = context.optional("suffix")
        end = (suffix / "suffix.txt").read_text() if suffix else ""
        texts = [(folder / "text.txt").read_text() for folder in context.inputs["text"]]
        (context.folder / "joined.txt").write_text("|".join(texts) + end)


@stage
class Count(Stage):
    """Counts to `upto`, one file per step; fails once if the file `stumble` exists."""

    gives: ClassVar = ("count",)
    publishes: ClassVar = ("count.txt",)

    upto: int = 3
    stumble: str = ""

    def run(self, context: Context) -> None:
        for number in range(self.upto):
            mark = context.folder / f"{number}.txt"
            if mark.exists():
                context.journal.record("found", number=number)
                continue
            mark.write_text(str(number))
            context.journal.record("counted", number=number)
            if self.stumble and Path(self.stumble).exists():
                Path(self.stumble).unlink()
                raise TrainingError("stumbled", fix="run again")
        (context.folder / "count.txt").write_text(str(self.upto))


@stage
class Gate(Stage):
    """Marks that it runs, waits for the file `path`, and writes the id of its process."""

    gives: ClassVar = ("text",)
    publishes: ClassVar = ("text.txt",)

    path: str

    def run(self, context: Context) -> None:
        context.journal.progress("waiting")
        deadline = time.monotonic() + 60
        while not Path(self.path).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        (context.folder / "text.txt").write_text(str(os.getpid()))


if __name__ == "__main__":
    # `python -m tests.core.toys NAME GATE ROOT [fresh]`: a run that prints its events.
    from kpipe.core.pipeline import Pipeline
    from kpipe.core.runner import run
    from tests.core.toys import Gate as ImportedGate

    name, gate, root, *words = sys.argv[1:]
    run(
        Pipeline(name, [ImportedGate(gate), Repeat(), Join()]),
        Path(root),
        fresh="fresh" in words,
        listeners=(lambda event: print(json.dumps(event), flush=True),),
    )


@stage
class Weigh(Stage):
    """Counts letters; `limit` is not part of the key, and judges how many are accepted."""

    needs: ClassVar = ("text",)
    gives: ClassVar = ("weight",)
    publishes: ClassVar = ("weight.txt",)
    judged: ClassVar = ("limit",)

    limit: int = 9
    unit: str = "letters"

    def run(self, context: Context) -> None:
        text = (context.newest("text") / "text.txt").read_text()
        (context.folder / "weight.txt").write_text(str(len(text)))

    def judge(self, result: Path) -> list[str]:
        weight = int((result / "weight.txt").read_text())
        if weight > self.limit:
            raise TrainingError(f"{weight} {self.unit} are too many", fix="set Weigh.limit")
        return [f"{weight} {self.unit} are just enough"] * (weight == self.limit)
