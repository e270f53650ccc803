from .core.pipeline import Pipeline as Pipeline
from .errors import KpipeError as KpipeError

__version__: str
