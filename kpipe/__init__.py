"""kpipe: one Python file declares how a folder of labelled photos becomes a TFLite model."""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
__all__ += ["__version__"]
__version__ = "0.1.0"
