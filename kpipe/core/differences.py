"""Why a stage runs again: how its inputs and configuration differ from those of its last result."""

from __future__ import annotations

from typing import Any

from kpipe.core.store import Store

__all__ = ["difference"]


def difference(store: Store, about: dict[str, Any]) -> str:
    """Describe the difference from the newest result of the same stage."""
    # Results of another version of kpipe may have other facts.
    comparable = [e.about for e in store.entries() if e.about.keys() == about.keys()]
    earlier = [earlier for earlier in comparable if earlier["stage"] == about["stage"]]
    if not earlier:
        return "has no earlier result"
    last = earlier[-1]
    changes = [
        change
        for name, value in about["configuration"].items()
        for change in _changes(name, last["configuration"].get(name), value)
    ]
    changes += [
        f"{name} {last['distributions'].get(name)} -> {version}"
        for name, version in about["distributions"].items()
        if last["distributions"].get(name) != version
    ]
    if last["seed"] != about["seed"]:
        changes.append(f"seed {last['seed']} -> {about['seed']}")
    if last["version"] != about["version"]:
        changes.append("this version of kpipe runs the stage differently")
    words = {"sources": "the data changed", "inputs": "its inputs changed"}
    changes += [text for part, text in words.items() if last[part] != about[part]]
    return "differs from the last result: " + ", ".join(changes)


def _changes(name: str, before: Any, after: Any) -> list[str]:
    """Describe how a field differs; of stages within it, only their fields that do."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict) and before.keys() == after.keys():
        return [
            text for key in after for text in _changes(f"{name}.{key}", before[key], after[key])
        ]
    stages = isinstance(before, list) and isinstance(after, list)
    if stages and all(isinstance(item, dict) for item in [*before, *after]):
        count = f"{name}: {len(before)} -> {len(after)} stages"
        return [
            *([count] if len(before) != len(after) else []),
            *(
                text
                for index, (one, other) in enumerate(zip(before, after, strict=False))
                for text in _changes(f"{name}[{index}]", one, other)
            ),
        ]
    return [f"{name} {_brief(before)} -> {_brief(after)}"]


def _brief(value: Any) -> str:
    return f"{value['stage']}(...)" if isinstance(value, dict) and "stage" in value else repr(value)
