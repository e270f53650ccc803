"""Ensembles: several classifiers combined into one model."""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
