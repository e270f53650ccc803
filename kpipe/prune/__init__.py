"""Real filter removal for Keras 3 models: rank filters, remove the lowest from the graph, retrain.

plan(model, remove)          what must go together, what it saves
remove_filters(model, plan)  a new, smaller model
rank(model, criterion)       which filters matter least
prune_filters(model, macs)   rank, remove, retrain, repeat
scan_sensitivity(model, ...) what each group of filters can lose
remove_blocks(model, blocks) whole residual blocks removed
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
