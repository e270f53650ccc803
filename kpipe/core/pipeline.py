"""A pipeline: a name, a list of stages and a seed, validated as a whole.

links(pipeline) := for each stage, {kind: indices of the earlier stages that give it}
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from typing import Self

from kpipe.core.fields import field_names, parse_field
from kpipe.core.stage import Need, Stage
from kpipe.errors import PipelineError, nearest
from kpipe.wrong_kinds import names_wrong_kinds_of_fields

__all__ = ["Pipeline"]


@names_wrong_kinds_of_fields
@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The declaration of a run, without what is done with it; `kpipe.Pipeline` adds that.

    Args:
        name: letters, digits, `-`, `_` and `.`; also the name of the folder below `saved_models`.
        stages: the stages, in the order in which they run.
        seed: the seed of every random draw of every stage, in [0, 2**31 - 1].

    Raises:
        PipelineError: the pipeline is invalid; the message names every error.

    Example:
        >>> from kpipe import Pipeline
        >>> from kpipe.stages import Data, Export, FineTune
        >>> pipeline = Pipeline("colors", [Data("photos"), FineTune("MobileNetV2"), Export()])
        >>> pipeline.with_settings(["FineTune.epochs=3", "seed=1"]).stages[1].epochs
        3
    """

    name: str
    stages: Sequence[Stage]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        errors = [*self._argument_errors(), *self._stage_errors()]
        if not errors:
            errors = [*self._missing_inputs(), *self._unused_stages(), *self._conflicts()]
        if errors:
            raise PipelineError(
                f"the pipeline {self.name!r} cannot run:\n    - " + "\n    - ".join(errors),
                fix="correct the lines above in the pipeline file",
            )

    def links(self) -> list[dict[str, tuple[int, ...]]]:
        """Return, for each stage, kind -> indices of the earlier stages that it reads."""
        links = []
        for index, stage in enumerate(self.stages):
            read = {}
            for need in map(Need.parse, stage.effective_needs):
                givers = self._givers(need.kind, index)
                read[need.kind] = givers if need.every else givers[-1:]
            links.append(read)
        return links

    def with_settings(self, settings: Sequence[str]) -> Self:
        """Return the pipeline with `stage.field=value` and `seed=value` settings applied.

        A setting applies to the stage of that name. If there is none, it applies to the stages of
        that name in fields, such as every `FineTune` in the members of an `Ensemble`.

        Raises:
            PipelineError: an unknown stage or field, or an invalid value.
        """
        stages, seed = list(self.stages), self.seed
        for setting in settings:
            target, equals, text = setting.partition("=")
            if target == "seed" and re.fullmatch(r"-?[0-9]+", text):
                seed = int(text)
                continue
            name, dot, field = target.partition(".")
            if not (equals and dot):
                raise PipelineError(
                    f"--set {setting!r} is invalid",
                    expected="stage.field=value, or seed=NUMBER",
                    received=setting,
                    fix="for example: --set FineTune.epochs=3",
                )
            known = [*stages, *(nested for stage in stages for nested in stage.nested())]
            names = list(dict.fromkeys(stage.name for stage in known))
            if name not in names:
                raise PipelineError(
                    f"--set names an unknown stage {name!r}",
                    expected=f"one of {', '.join(names)}",
                    received=name,
                    fix=nearest(name, names),
                )
            others = [stage.name for stage in known if field in field_names(stage)]
            if others and name not in others:
                raise PipelineError(
                    f"{name} has no field {field!r}, but {others[0]} has",
                    received=setting,
                    fix=f"--set {others[0]}.{field}={text}",
                )

            def change(
                stage: Stage, name: str = name, field: str = field, text: str = text
            ) -> Stage:
                if stage.name != name:
                    return stage
                return stage.with_field(field, parse_field(stage, field, text))

            at_the_top = any(stage.name == name for stage in stages)
            stages = [
                change(stage) if at_the_top else stage.with_nested(change) for stage in stages
            ]
        return dataclasses.replace(self, stages=stages, seed=seed)

    def render(self) -> str:
        """Return the source of a Python file that declares this pipeline."""
        names = ", ".join(sorted({stage.name for stage in self.stages}))
        used = [*self.stages, *(nested for stage in self.stages for nested in stage.nested())]
        modules = sorted({type(stage).__module__ for stage in used})
        imports = "\n".join(
            f"from {module} import "
            + ", ".join(sorted({s.name for s in used if type(s).__module__ == module}))
            for module in modules
        )
        rows = "".join(f"        {stage!r},\n" for stage in self.stages)
        return (
            f'"""{self.name}: {names}."""\n\nfrom kpipe import Pipeline\n{imports}\n\n'
            f"pipeline = Pipeline(\n    {self.name!r},\n    [\n{rows}    ],\n"
            f"    seed={self.seed},\n)\n"
        )

    def _givers(self, kind: str, before: int) -> tuple[int, ...]:
        givers: list[int] = []
        for index, stage in enumerate(self.stages[:before]):
            given = stage.effective_gives
            if kind in given or (f"{kind}?" in given and not givers):
                givers.append(index)
        return tuple(givers)

    def _argument_errors(self) -> list[str]:
        errors = []
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            errors.append(f"name={self.name!r}: expected letters, digits, '-', '_' and '.'")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            errors.append(f"seed={self.seed!r}: expected a whole number between 0 and 2147483647")
        if not self.stages:
            errors.append("the list of stages is empty: begin with Data(...)")
        return errors

    def _stage_errors(self) -> list[str]:
        errors = []
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Stage):
                errors += [f"{stage.name}: {error}" for error in stage.validation_errors()]
            else:
                errors.append(f"item {index + 1} is {stage!r:.60}, not a stage such as Data(...)")
        stages = [stage for stage in self.stages if isinstance(stage, Stage)]
        counts = Counter(stage.name for stage in stages)
        errors += [
            f"{name} appears {counts[name]} times: {hint}"
            for name, hint in {stage.name: stage.duplicate_hint for stage in stages}.items()
            if counts[name] > 1
        ]
        return errors

    def _missing_inputs(self) -> list[str]:
        errors = []
        for index, stage in enumerate(self.stages):
            for need in map(Need.parse, stage.effective_needs):
                if need.optional or self._givers(need.kind, index):
                    continue
                later = [s.name for s in self.stages[index + 1 :] if need.kind in s.effective_gives]
                fix = f"move {later[0]} before it" if later else "add a stage that gives it"
                errors.append(
                    f"{stage.name} needs {need.kind!r}, which no earlier stage gives: {fix}"
                )
        return errors

    def _unused_stages(self) -> list[str]:
        errors = []
        used = {index for read in self.links() for indices in read.values() for index in indices}
        for index, stage in enumerate(self.stages[:-1]):
            if index in used or stage.publishes:
                continue
            users = [
                earlier.name
                for earlier in self.stages[:index]
                if {Need.parse(text).kind for text in earlier.needs} & set(stage.effective_gives)
            ]
            fix = f"move it before {users[0]}" if users else "remove it"
            errors.append(f"{stage.name} is not used by any later stage: {fix}")
        return errors

    def _conflicts(self) -> list[str]:
        return [
            f"{stage.name}: {error}"
            for index, stage in enumerate(self.stages)
            for error in stage.conflicts(self.stages[:index])
        ]
