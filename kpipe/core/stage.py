"""A stage: a frozen dataclass whose fields are its configuration, its repr and its cache key.

    need := "kind"    the newest earlier result of that kind; there must be one
          | "kind?"   the newest earlier result, if there is one
          | "kind+"   every earlier result of that kind, oldest first; at least one

Between stages only folders travel. A stage reads the folders of what it needs, writes its own, and
keeps nothing in memory: so it can run in this process, in a child, or on another machine, and a
stage that is cut off finds its folder as it left it.
"""

from __future__ import annotations

import dataclasses
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

from kpipe.core.fields import check_fields
from kpipe.core.journal import Journal
from kpipe.errors import PipelineError, nearest

__all__ = ["Context", "Need", "Stage", "stage"]


@dataclasses.dataclass(frozen=True)
class Need:
    """One entry of `Stage.needs`, taken apart."""

    kind: str
    optional: bool = False
    every: bool = False

    @classmethod
    def parse(cls, text: str) -> Need:
        """The meaning of one text of the grammar."""
        kind = text.rstrip("?+")
        return cls(kind, optional=text.endswith("?"), every=text.endswith("+"))


@dataclasses.dataclass(frozen=True)
class Context:
    """What a stage is given to run.

    Attributes:
        folder: where to write; whatever an earlier, cut-off attempt wrote is still there.
        inputs: kind -> folders with what earlier stages wrote, oldest first; read only.
        seed: the pipeline's seed.
        journal: where to record events.
        shared: a folder that all runs share, for memories keyed by content, which change no result
            and may be deleted at any time; None where there is none.
    """

    folder: Path
    inputs: Mapping[str, tuple[Path, ...]]
    seed: int
    journal: Journal
    shared: Path | None = None

    def newest(self, kind: str) -> Path:
        """The folder of the newest earlier result of a kind."""
        return self.inputs[kind][-1]

    def optional(self, kind: str) -> Path | None:
        """The same, or None where no earlier stage gives that kind."""
        folders = self.inputs.get(kind, ())
        return folders[-1] if folders else None


class Stage(ABC):
    """The base of every stage; declare one with the `@stage` decorator.

    Class attributes:
        needs: what it reads, in the grammar above.
        gives: the kinds of result that its folder holds.
        publishes: files of its folder, or patterns, that are copied into the run's folder.
        version: raise it when the same configuration gives another result than before.
        distributions: installed packages whose versions belong to the key.
        twice: what to do instead where it stands twice in a pipeline, which none may.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()
    publishes: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    duplicate_hint: ClassVar[str] = "keep one"

    @property
    def name(self) -> str:
        """The name in errors, in the journal and in `--set name.field=value`."""
        return type(self).__name__

    def configuration(self) -> dict[str, Any]:
        """The fields by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def sources(self) -> tuple[Path, ...]:
        """Files and folders outside the pipeline that it reads; they are part of its key."""
        return ()

    def validation_errors(self) -> list[str]:
        """What is wrong with the configuration, one sentence each; empty when all is well."""
        return check_fields(self)

    @abstractmethod
    def run(self, context: Context) -> None:
        """Read `context.inputs`, write `context.folder`."""


Kind = TypeVar("Kind", bound=Stage)


@dataclass_transform(frozen_default=True)
def stage(kind: type[Kind]) -> type[Kind]:
    """Make a `Stage` subclass a frozen dataclass that names a misspelt field and the right one."""
    made: Any = dataclasses.dataclass(frozen=True)(kind)
    known = [field.name for field in dataclasses.fields(made)]
    made.__init__ = _refuse_unknown_fields(made.__name__, made.__init__, known)
    return made  # type: ignore[no-any-return]


def _refuse_unknown_fields(
    kind: str, initialize: Callable[..., None], known: list[str]
) -> Callable[..., None]:
    @functools.wraps(initialize)
    def checked(self: Any, *values: Any, **fields: Any) -> None:
        unknown = [name for name in fields if name not in known]
        if unknown:
            raise PipelineError(
                f"{kind} has no field " + ", ".join(map(repr, unknown)),
                expected=f"fields among {', '.join(known)}",
                received=", ".join(f"{name}={fields[name]!r}" for name in unknown),
                fix="; ".join(f"{name}: {nearest(name, known)}" for name in unknown),
            )
        try:
            initialize(self, *values, **fields)
        except TypeError as error:
            # dataclasses say "Data.__init__() missing 1 required positional argument: 'source'".
            raise PipelineError(
                f"{kind} cannot be declared so: {str(error).removeprefix(f'{kind}.__init__() ')}",
                expected=f"{kind}({', '.join(known)})",
                received=", ".join([*map(repr, values), *fields]) or "nothing",
            ) from None

    return checked
