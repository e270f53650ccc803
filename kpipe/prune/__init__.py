"""Filter pruning for Keras 3 models: rank filters, remove the lowest from the graph, retrain.

plan(model, remove)          which channels must be removed together, and what that saves
remove_filters(model, plan)  a new, smaller model
rank(model, criterion)       scores of all filters; the lowest matter least
prune_filters(model, macs)   rank, remove, retrain, repeat
refit_weights(model, ...)    what reads removed filters, fitted by least squares
scan_sensitivity(model, ...) how many filters each group can lose
remove_blocks(model, blocks) a new model without whole residual blocks
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
