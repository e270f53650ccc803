"""How a stage is declared: unknown fields are refused, and a preset gives other defaults."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kpipe.core.fields import nearest_field
from kpipe.errors import PipelineError

if TYPE_CHECKING:
    from kpipe.core.stage import Stage

__all__ = ["checked_initialization", "declared_fields"]

_DECLARED = "_declared_fields"


def declared_fields(stage: Stage) -> frozenset[str]:
    """Return the fields that the user wrote; of a stage made otherwise, all of them."""
    found: frozenset[str] = vars(stage).get(_DECLARED, frozenset(stage.configuration()))
    return found


def checked_initialization(
    kind: str, initialize: Callable[..., None], known: list[str]
) -> Callable[..., None]:
    """Return an `__init__` that refuses unknown fields and takes defaults from the preset.

    Args:
        kind: the name of the stage.
        initialize: the `__init__` of its dataclass.
        known: the names of its fields.
    """
    parameters = inspect.signature(initialize)

    @functools.wraps(initialize)
    def checked(self: Any, *values: Any, **fields: Any) -> None:
        unknown = [name for name in fields if name not in known]
        if unknown:
            raise PipelineError(
                f"{kind} has no field " + ", ".join(map(repr, unknown)),
                expected=f"fields among {', '.join(known)}",
                received=", ".join(f"{name}={fields[name]!r}" for name in unknown),
                fix="; ".join(f"{name}: {nearest_field(name, known)}" for name in unknown),
            )
        try:
            declared = dict(list(parameters.bind(self, *values, **fields).arguments.items())[1:])
            initialize(self, *values, **{**_preset(self, declared), **fields})
        except TypeError as error:
            # The message of dataclasses: "Data.__init__() missing 1 required positional argument".
            raise PipelineError(
                f"{kind} has invalid arguments: {str(error).removeprefix(f'{kind}.__init__() ')}",
                expected=f"{kind}({', '.join(known)})",
                received=", ".join([*map(repr, values), *fields]) or "nothing",
            ) from None
        object.__setattr__(self, _DECLARED, frozenset(declared))

    return checked


def _preset(stage: Stage, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of the chosen preset, for the fields that are not declared."""
    if stage.preset_by not in declared:
        return {}
    chosen = declared[stage.preset_by]
    preset = stage.presets.get(chosen, {}) if isinstance(chosen, str) else {}
    return {name: value for name, value in preset.items() if name not in declared}
