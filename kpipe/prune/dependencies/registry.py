"""Kind of layer -> its rule: Keras' own layers, and custom layers that users register."""

from __future__ import annotations

from kpipe.prune.dependencies.channel_rules import CHANNEL_RULES
from kpipe.prune.dependencies.filter_rules import FILTER_RULES
from kpipe.prune.dependencies.layout_rules import LAYOUT_RULES
from kpipe.prune.dependencies.recurrent_rules import RECURRENT_RULES
from kpipe.prune.dependencies.rules import Rule
from kpipe.prune.graph.model_graph import Operation, kind_of
from kpipe.wrong_kinds import names_wrong_kinds

__all__ = ["register_rule", "rule_of"]

_RULES: dict[str, Rule] = {**FILTER_RULES, **CHANNEL_RULES, **LAYOUT_RULES, **RECURRENT_RULES}


@names_wrong_kinds
def register_rule(kind: str | type, rule: Rule) -> None:
    """Set the rule of a kind of layer; an earlier rule is replaced.

    Args:
        kind: a layer class, or its name as `kind_of` gives it.
        rule: how the layer treats channels.

    Example:
        >>> import keras
        >>> from kpipe.prune import Rule, register_rule, same_channels
        >>> class Clip(keras.layers.Layer):
        ...     def call(self, x):
        ...         return keras.ops.clip(x, 0, 1)
        >>> register_rule(Clip, Rule(same_channels))
    """
    _RULES[kind if isinstance(kind, str) else kind_of(kind)] = rule


def rule_of(operation: Operation) -> Rule | None:
    """Return the rule of an operation, or None if its kind has none."""
    return _RULES.get(operation.kind)
