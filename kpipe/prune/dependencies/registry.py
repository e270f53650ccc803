"""Kind of layer -> its rule: Keras' own, and those that users register."""

from __future__ import annotations

from kpipe.errors import PruneError
from kpipe.prune.dependencies.channel_rules import CHANNEL_RULES
from kpipe.prune.dependencies.filter_rules import FILTER_RULES
from kpipe.prune.dependencies.rules import Rule
from kpipe.prune.graph.model_graph import Operation, kind_of

__all__ = ["register", "rule_of"]

_RULES: dict[str, Rule] = {**FILTER_RULES, **CHANNEL_RULES}


def register(kind: str | type, rule: Rule) -> None:
    """States the rule of a kind of layer, in place of an earlier one.

    Args:
        kind: a layer class of one's own, or the text that `kind_of` gives for it.
        rule: what the layer does to channels.
    """
    if not isinstance(rule, Rule):
        raise PruneError(
            f"what is registered for {kind!r} is not a rule",
            expected="a kpipe.prune.Rule",
            received=type(rule).__name__,
        )
    _RULES[kind if isinstance(kind, str) else kind_of(kind)] = rule


def rule_of(operation: Operation) -> Rule | None:
    """The rule of an operation's kind; None where nobody stated one."""
    return _RULES.get(operation.kind)
