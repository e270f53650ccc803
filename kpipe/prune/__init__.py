"""Real filter removal for Keras 3 models: rank filters, remove the lowest from the graph, retrain.

plan(model, remove)          what must go together, what it saves
remove_filters(model, plan)  a new, smaller model
rank(model, criterion)       which filters matter least
prune_filters(model, macs)   rank, remove, retrain, repeat
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
    "Round",
    "Rule",
    "Selection",
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
    "reach",
    "register",
    "remove_filters",
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
        "Round": "rounds",
        "Rule": "rules",
        "Selection": "iteration",
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
        "reach": "macs",
        "register": "registry",
        "remove_filters": "surgery",
    },
)
