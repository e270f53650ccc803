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
        "CRITERIA": "ranking.ranking",
        "Candidate": "ranking.ranking",
        "Channels": "dependencies.rules",
        "Cut": "dependencies.rules",
        "Group": "dependencies.dependency_graph",
        "Plan": "surgery.planning",
        "PruneResult": "loop.pruning",
        "Ranking": "ranking.ranking",
        "ResidualBlock": "surgery.residual_blocks",
        "Round": "loop.rounds",
        "Rule": "dependencies.rules",
        "Selection": "loop.selection",
        "Sensitivity": "loop.sensitivity",
        "Site": "dependencies.rules",
        "count_macs": "dependencies.macs",
        "count_params": "dependencies.macs",
        "follow": "dependencies.rules",
        "freeze": "dependencies.rules",
        "fresh": "dependencies.rules",
        "kind_of": "graph.model_graph",
        "plan": "surgery.planning",
        "prune_filters": "loop.pruning",
        "rank": "ranking.ranking",
        "rank_blocks": "surgery.block_removal",
        "reach": "dependencies.macs",
        "register": "dependencies.registry",
        "remove_blocks": "surgery.block_removal",
        "remove_filters": "surgery.planning",
        "residual_blocks": "surgery.block_removal",
        "scan_sensitivity": "loop.sensitivity",
        "shift_statistics": "surgery.batch_norm_statistics",
    },
)
