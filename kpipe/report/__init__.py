"""Reports of a run and of an audit, as HTML pages and on the terminal.

journal and artifacts -> `collect_run` -> dict -> `write_report` -> report.html
"""

from kpipe.installation import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
