"""A stage: a frozen dataclass whose fields are its configuration, its repr and its cache key.

    need := "kind"    the newest earlier result of that kind; there must be one
          | "kind?"   the newest earlier result, if there is one
          | "kind+"   every earlier result of that kind, oldest first; at least one
    give := "kind"    a result of that kind
          | "kind?"   the same, unless an earlier stage gives that kind

Stages exchange folders only. A stage reads the folders of its inputs, writes its own folder, and
keeps nothing in memory. It can therefore run in this process, in a child process or on another
machine, and an interrupted stage resumes from what it wrote. A stage that gives several kinds may
keep one in a subfolder named after the kind; later stages receive that subfolder.

A stage that would fail says so as early as it can:

    validation_errors    at once: its own fields
    conflicts            when a pipeline is declared: its fields against those of earlier stages
    check_surroundings   in `plan`, and when a run begins: what must exist besides the sources
    rehearse             when a run begins: everything else that needs no earlier result

The first three import neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, dataclass_transform

from kpipe.core.declaring import checked_initialization, declared_fields
from kpipe.core.digests import Digests
from kpipe.core.fields import check_fields
from kpipe.core.journal import Journal
from kpipe.errors import PipelineError

__all__ = ["Context", "Need", "Stage", "stage"]


@dataclasses.dataclass(frozen=True)
class Need:
    """A parsed entry of `Stage.needs`.

    Example:
        >>> from kpipe.core.stage import Need
        >>> Need.parse("model+")
        Need(kind='model', optional=False, every=True)
    """

    kind: str
    optional: bool = False
    every: bool = False

    @classmethod
    def parse(cls, text: str) -> Need:
        """Parse one entry, by the grammar above."""
        kind = text.rstrip("?+")
        return cls(kind, optional=text.endswith("?"), every=text.endswith("+"))


@dataclasses.dataclass(frozen=True)
class Context:
    """Everything a stage receives to run.

    Attributes:
        folder: the folder to write to; it still holds what an interrupted attempt wrote.
        inputs: kind -> folders of earlier stages, oldest first; read-only.
        seed: the pipeline's seed.
        journal: where to record events.
        shared: a folder shared by all runs, for caches keyed by content. They affect no result and
            may be deleted at any time. None disables them.
        digests: the SQLite file of the digests that keys are computed from, or None.
    """

    folder: Path
    inputs: Mapping[str, tuple[Path, ...]]
    seed: int
    journal: Journal
    shared: Path | None = None
    digests: Path | None = None

    def known_digests(self, paths: Iterable[str]) -> dict[str, str]:
        """Return path -> sha256 of the files that were hashed for a key and have not changed."""
        if self.digests is None:
            return {}
        with contextlib.closing(Digests(self.digests)) as digests:
            return {path: known for path in paths if (known := digests.known(Path(path)))}

    def newest(self, kind: str) -> Path:
        """Return the folder of the newest earlier result of a kind."""
        return self.inputs[kind][-1]

    def optional(self, kind: str) -> Path | None:
        """Return the same, or None if no earlier stage gives that kind."""
        folders = self.inputs.get(kind, ())
        return folders[-1] if folders else None


class Stage(ABC):
    """The base class of every stage; declare a subclass with the `@stage` decorator.

    Class attributes:
        needs: the kinds it reads, in the grammar above.
        gives: the kinds that its folder holds, in the grammar above.
        publishes: names or patterns of files to copy from its folder into the run's folder.
        version: increase it when the same configuration gives a different result than before.
        packages: installed packages whose versions are part of the cache key, whatever the fields.
        judged: fields that are not part of the cache key, because only `judge` reads them.
        preset_by: the field that chooses other defaults, if there is one.
        presets: value of that field -> the defaults of other fields that it changes.
        duplicate_hint: what to do instead of declaring the stage twice, which is an error.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    gives: ClassVar[tuple[str, ...]] = ()
    publishes: ClassVar[tuple[str, ...]] = ()
    version: ClassVar[int] = 1
    packages: ClassVar[tuple[str, ...]] = ()
    judged: ClassVar[tuple[str, ...]] = ()
    preset_by: ClassVar[str] = ""
    presets: ClassVar[Mapping[Any, Mapping[str, Any]]] = {}
    duplicate_hint: ClassVar[str] = "keep one"

    @property
    def name(self) -> str:
        """The name used in errors, in the journal and in `--set name.field=value`."""
        return type(self).__name__

    @property
    def effective_needs(self) -> tuple[str, ...]:
        """The entries of `needs` that apply with the present fields."""
        return self.needs

    @property
    def effective_gives(self) -> tuple[str, ...]:
        """The entries of `gives` that apply with the present fields."""
        return self.gives

    def configuration(self) -> dict[str, Any]:
        """Return the fields by name; nested stages are dictionaries of their fields."""
        return {name: _plain(value) for name, value in self._fields().items()}

    def nested(self) -> tuple[Stage, ...]:
        """Return the stages in its fields, such as the members of an `Ensemble`."""
        return tuple(
            item
            for value in self._fields().values()
            if isinstance(value, tuple)
            for item in value
            if isinstance(item, Stage)
        )

    def with_nested(self, change: Callable[[Stage], Stage]) -> Stage:
        """Return a copy whose nested stages are changed by a function."""
        changed: Stage = self
        for name, value in self._fields().items() if self.nested() else ():
            if isinstance(value, tuple):
                items = (change(item) if isinstance(item, Stage) else item for item in value)
                changed = changed.with_field(name, tuple(items))
        return changed

    def _fields(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def with_field(self, name: str, value: Any) -> Stage:
        """Return the stage with another value of a field.

        Another preset changes the fields that were not declared, and no other.

        Raises:
            PipelineError: a preset that would change nothing, since its fields are declared.
        """
        declared = declared_fields(self)
        fields = {field: getattr(self, field) for field in declared}
        changed = type(self)(**{**fields, name: value})
        others = [field for field in self._fields() if field != name]
        if (
            name == self.preset_by
            and value in self.presets
            and value != getattr(self, name)
            and all(getattr(changed, field) == getattr(self, field) for field in others)
        ):
            touched = {field for preset in self.presets.values() for field in preset}
            raise PipelineError(
                f"{self.name}.{name}={value!r} would change nothing",
                expected=f"some of {', '.join(sorted(touched))} to be left to {name}",
                received="a declaration of those that it would change",
                fix="remove them from the pipeline file, or set them one by one",
            )
        return changed

    def distributions(self) -> tuple[str, ...]:
        """Return the installed packages whose versions are part of its cache key."""
        return self.packages

    def sources(self) -> tuple[Path, ...]:
        """Return the external files and folders it reads; they are part of its cache key."""
        return ()

    def validation_errors(self) -> list[str]:
        """Return one sentence for each error in the configuration."""
        return check_fields(self)

    def conflicts(self, earlier: Sequence[Stage]) -> list[str]:
        """Return one sentence for each field that does not fit a field of an earlier stage."""
        return []

    def check_surroundings(self, earlier: Sequence[Stage]) -> list[str]:
        """Return what a run would have to fetch.

        Raises:
            KpipeError: something that the stage reads is missing, and a run would not fetch it.
        """
        return []

    def rehearse(self, earlier: Sequence[Stage]) -> None:
        """Raise the error that `run` would raise, as far as no result of earlier stages matters.

        Raises:
            KpipeError: `run` would fail.
        """
        return None

    @abstractmethod
    def run(self, context: Context) -> None:
        """Read `context.inputs`, write `context.folder`."""

    def judge(self, result: Path) -> list[str]:
        """Accept or refuse a finished result by the fields in `judged`.

        Called in every run and plan that uses the result, cached or not: another value of these
        fields judges the same result again.

        Args:
            result: the folder that `run` wrote; read-only.

        Returns:
            Notes for the journal.

        Raises:
            KpipeError: the result is refused.
        """
        return []


def _plain(value: Any) -> Any:
    """Return a field's value, with dictionaries in place of stages."""
    if isinstance(value, Stage):
        return {"stage": value.name, "version": value.version, **value.configuration()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


Kind = TypeVar("Kind", bound=Stage)


@dataclass_transform(frozen_default=True)
def stage(kind: type[Kind]) -> type[Kind]:
    """Turn a `Stage` subclass into a frozen dataclass that suggests a name for a misspelt field.

    Example:
        >>> from kpipe.core.stage import Stage, stage
        >>> @stage
        ... class Count(Stage):
        ...     upto: int = 3
        ...     def run(self, context):
        ...         (context.folder / "count.txt").write_text(str(self.upto))
        >>> Count(upto=5)
        Count(upto=5)
    """
    frozen: Any = dataclasses.dataclass(frozen=True)(kind)
    known = [field.name for field in dataclasses.fields(frozen)]
    frozen.__init__ = checked_initialization(frozen.__name__, frozen.__init__, known)
    return frozen  # type: ignore[no-any-return]
