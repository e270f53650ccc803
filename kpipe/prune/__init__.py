"""Real filter removal for Keras 3 models: rank filters, remove the lowest from the graph, retrain.

plan(model, remove)          what must go together, what it saves
remove_filters(model, plan)  a new, smaller model
rank(model, criterion)       which filters matter least
prune_filters(model, macs)   rank, remove, retrain, repeat
scan_sensitivity(model, ...) what each group of filters can lose
remove_blocks(model, blocks) whole residual blocks removed
"""

from __future__ import annotations

from kpipe._lazy import lazy

__all__ = [
    "CRITERIA",
    "Candidate",
    "Channels",
    "Cut",
    "Group",
    "Plan",
    "PruneResult",
    "Ranking",
    "ResidualBlock",
    "Round",
    "Rule",
    "Selection",
    "Sensitivity",
    "Site",
    "count_macs",
    "count_params",
    "follow",
    "freeze",
    "fresh",
    "kind_of",
    "plan",
    "prune_filters",
    "rank",
    "rank_blocks",
    "reach",
    "register",
    "remove_blocks",
    "remove_filters",
    "residual_blocks",
    "scan_sensitivity",
    "shift_statistics",
]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "CRITERIA": "criteria",
        "Candidate": "criteria",
        "Channels": "rules",
        "Cut": "rules",
        "Group": "groups",
        "Plan": "surgery",
        "PruneResult": "iteration",
        "Ranking": "criteria",
        "ResidualBlock": "residuals",
        "Round": "rounds",
        "Rule": "rules",
        "Selection": "selection",
        "Sensitivity": "sensitivity",
        "Site": "rules",
        "count_macs": "macs",
        "count_params": "macs",
        "follow": "rules",
        "freeze": "rules",
        "fresh": "rules",
        "kind_of": "graph",
        "plan": "surgery",
        "prune_filters": "iteration",
        "rank": "criteria",
        "rank_blocks": "blocks",
        "reach": "macs",
        "register": "registry",
        "remove_blocks": "blocks",
        "remove_filters": "surgery",
        "residual_blocks": "blocks",
        "scan_sensitivity": "sensitivity",
        "shift_statistics": "statistics",
    },
)
