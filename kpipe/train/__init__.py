"""Training: backbones, what of them trains, optimizers, and a fit that cannot be lost."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
