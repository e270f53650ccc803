"""kpipe: one Python file declares how a folder of labelled photos becomes a TFLite model.

`import kpipe` makes every public package reachable, such as `kpipe.prune.prune_filters`; each is
loaded when it is first used.
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, _names = attach_stub(__name__, __file__)
# Packages are reached by their names; `from kpipe import *` does not load them.
__all__ = [*(name for name in _names if name[0].isupper()), "__version__"]
__version__ = "0.1.0"
