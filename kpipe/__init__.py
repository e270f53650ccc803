"""kpipe: one Python file declares how a folder of labelled photos becomes a TFLite model."""

from kpipe._lazy import lazy

__all__ = ["KpipeError", "Pipeline", "__version__"]
__version__ = "0.1.0"
__getattr__, __dir__ = lazy(__name__, {"KpipeError": "errors", "Pipeline": "core.pipeline"})
