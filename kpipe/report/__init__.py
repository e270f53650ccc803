"""What a run did, as one HTML file and on the terminal.

journal and artifacts -> `collect` -> dict -> `write_report` -> report.html
"""

from kpipe._lazy import lazy

__all__ = ["Progress", "collect", "models_table", "write_audit", "write_report"]
__getattr__, __dir__ = lazy(
    __name__,
    {
        "Progress": "terminal",
        "collect": "collection",
        "models_table": "terminal",
        "write_audit": "audit_page",
        "write_report": "page",
    },
)
