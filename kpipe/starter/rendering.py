"""The text of a pipeline file: each stage below the reason for it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from kpipe.core.declaring import declared_fields
from kpipe.core.stage import Stage
from kpipe.printable import printable
from kpipe.starter.choices import Choice

__all__ = ["render"]

# The fields that a reader knows without their names.
_FIRST = {"Data": "source", "Balance": "method", "FineTune": "backbone"}


def render(name: str, choices: Sequence[Choice], facts: str, seed: int = 7) -> str:
    """Return the text of a pipeline file.

    Args:
        name: of the photos; letters, digits, "-" and "_" of it name the pipeline.
        choices: the stages.
        facts: a line about the photos.
        seed: of the pipeline.

    Example:
        >>> from kpipe.stages import Data, Export
        >>> from kpipe.starter import Choice, render
        >>> print(render("my cats", [Choice(Data("cats", image_size=96), "small")], "9 photos"))
        \"\"\"9 photos.\"\"\"
        <BLANKLINE>
        from kpipe import Pipeline
        from kpipe.stages import Data
        <BLANKLINE>
        pipeline = Pipeline(
            "my-cats",
            [
                # small
                Data("cats", image_size=96),
            ],
            seed=7,
        )
        <BLANKLINE>
    """
    kinds = sorted({choice.stage.name for choice in choices})
    lines = [
        line
        for choice in choices
        for line in (f"        # {printable(choice.reason)}", f"        {_code(choice.stage)},")
    ]
    return "\n".join(
        [
            f'"""{printable(facts)}."""',
            "",
            "from kpipe import Pipeline",
            f"from kpipe.stages import {', '.join(kinds)}",
            "",
            "pipeline = Pipeline(",
            f'    "{_slug(name)}",',
            "    [",
            *lines,
            "    ],",
            f"    seed={seed},",
            ")",
            "",
        ]
    )


def _code(stage: Stage) -> str:
    """Return the call that declares a stage, with the declared fields in their order."""
    first, declared = _FIRST.get(stage.name), declared_fields(stage)
    fields = [
        _literal(value) if field == first else f"{field}={_literal(value)}"
        for field, value in stage.configuration().items()
        if field in declared
    ]
    return f"{stage.name}({', '.join(fields)})"


def _literal(value: Any) -> str:
    """Return a Python literal, text in double quotes where that needs no escapes."""
    if isinstance(value, str) and value.isprintable() and not {'"', "\\"} & set(value):
        return f'"{value}"'
    return repr(value)


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).strip("-") or "photos"
