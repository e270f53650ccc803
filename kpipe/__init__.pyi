from . import data as data
from . import ensemble as ensemble
from . import lite as lite
from . import prune as prune
from . import report as report
from . import sparsity as sparsity
from . import stages as stages
from . import train as train
from .errors import KpipeError as KpipeError
from .pipeline import Pipeline as Pipeline

__version__: str
