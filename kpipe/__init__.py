"""kpipe: one Python file declares how a folder of labelled photos becomes a TFLite model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]
__version__ = "0.1.0"
