from .combination import average as average
from .combination import vote as vote
