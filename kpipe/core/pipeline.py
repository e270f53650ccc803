"""A pipeline: a name, a list of stages, a seed; refused whole where the list cannot run.

links(pipeline) := for each stage, {kind: indices of the earlier stages that give it}
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

from kpipe.core.fields import parse
from kpipe.core.stage import Need, Stage
from kpipe.errors import PipelineError, nearest

__all__ = ["Pipeline"]


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """The declaration that `kpipe run` carries out.

    Args:
        name: letters, digits, `-`, `_` and `.`; names the folder under `saved_models`.
        stages: carried out in this order.
        seed: every random draw of every stage comes from it.

    Raises:
        PipelineError: the list cannot run; every offender is named.
    """

    name: str
    stages: Sequence[Stage]
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        problems = [*self._own_problems(), *self._stage_problems()]
        if not problems:
            problems = self._order_problems()
        if problems:
            raise PipelineError(
                f"the pipeline {self.name!r} cannot run:\n    - " + "\n    - ".join(problems),
                fix="mend the lines above in the pipeline file",
            )

    def links(self) -> list[dict[str, tuple[int, ...]]]:
        """For each stage: kind -> the indices of the earlier stages that it reads."""
        found = []
        for index, stage in enumerate(self.stages):
            read = {}
            for need in map(Need.parse, stage.needs):
                givers = self._givers(need.kind, index)
                read[need.kind] = givers if need.every else givers[-1:]
            found.append(read)
        return found

    def with_settings(self, settings: Sequence[str]) -> Pipeline:
        """The pipeline with `stage.field=value` texts applied; `seed=value` sets the seed.

        Raises:
            PipelineError: an unknown stage or field, or a value that does not fit.
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
                    f"--set {setting!r} is not understood",
                    expected="stage.field=value, or seed=NUMBER",
                    received=setting,
                    fix="for example --set FineTune.epochs=3",
                )
            indices = [i for i, stage in enumerate(stages) if stage.name == name]
            if not indices:
                names = [stage.name for stage in stages]
                raise PipelineError(
                    f"--set names a stage {name!r} that the pipeline does not have",
                    expected=f"one of {', '.join(names)}",
                    received=name,
                    fix=nearest(name, names),
                )
            for index in indices:
                value = parse(stages[index], field, text)
                stages[index] = dataclasses.replace(stages[index], **{field: value})  # type: ignore[type-var]
        return Pipeline(self.name, stages, seed)

    def render(self) -> str:
        """The declaration as a Python file that declares the same pipeline."""
        names = ", ".join(sorted({stage.name for stage in self.stages}))
        modules = sorted({type(stage).__module__ for stage in self.stages})
        imports = "\n".join(
            f"from {module} import "
            + ", ".join(sorted({s.name for s in self.stages if type(s).__module__ == module}))
            for module in modules
        )
        rows = "".join(f"        {stage!r},\n" for stage in self.stages)
        return (
            f'"""{self.name}: {names}."""\n\nfrom kpipe import Pipeline\n{imports}\n\n'
            f"pipeline = Pipeline(\n    {self.name!r},\n    [\n{rows}    ],\n"
            f"    seed={self.seed},\n)\n"
        )

    def _givers(self, kind: str, before: int) -> tuple[int, ...]:
        return tuple(i for i, stage in enumerate(self.stages[:before]) if kind in stage.gives)

    def _own_problems(self) -> list[str]:
        problems = []
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.-]*", self.name):
            problems.append(
                f"name={self.name!r}: it names a folder: expected letters, digits, '-', '_' and '.'"
            )
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            problems.append(f"seed={self.seed!r}: expected a whole number between 0 and 2147483647")
        if not self.stages:
            problems.append("the list of stages is empty: begin with Data(...)")
        return problems

    def _stage_problems(self) -> list[str]:
        problems = []
        for index, stage in enumerate(self.stages):
            if isinstance(stage, Stage):
                problems += [f"{stage.name}: {problem}" for problem in stage.validation_errors()]
            else:
                problems.append(f"item {index + 1} is no stage but {stage!r:.60}: write Data(...)")
        stages = [stage for stage in self.stages if isinstance(stage, Stage)]
        counts = Counter(stage.name for stage in stages)
        problems += [
            f"{name} stands {counts[name]} times: {mend}"
            for name, mend in {stage.name: stage.duplicate_hint for stage in stages}.items()
            if counts[name] > 1
        ]
        return problems

    def _order_problems(self) -> list[str]:
        return [*self._unmet_needs(), *self._unused_stages()]

    def _unmet_needs(self) -> list[str]:
        problems = []
        for index, stage in enumerate(self.stages):
            for need in map(Need.parse, stage.needs):
                if need.optional or self._givers(need.kind, index):
                    continue
                later = [s.name for s in self.stages[index + 1 :] if need.kind in s.gives]
                mend = f"move {later[0]} before it" if later else "put one that gives it before"
                problems.append(
                    f"{stage.name} needs {need.kind!r}, given by nothing before: {mend}"
                )
        return problems

    def _unused_stages(self) -> list[str]:
        problems = []
        used = {index for read in self.links() for indices in read.values() for index in indices}
        for index, stage in enumerate(self.stages[:-1]):
            if index in used or stage.publishes:
                continue
            users = [
                earlier.name
                for earlier in self.stages[:index]
                if {Need.parse(text).kind for text in earlier.needs} & set(stage.gives)
            ]
            mend = f"move it before {users[0]}" if users else "take it out"
            problems.append(f"{stage.name} is used by no stage after it: {mend}")
        return problems
