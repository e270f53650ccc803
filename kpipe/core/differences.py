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
        f"{name} {last['configuration'].get(name)!r} -> {value!r}"
        for name, value in about["configuration"].items()
        if last["configuration"].get(name) != value
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
