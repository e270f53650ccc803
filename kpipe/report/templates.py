"""HTML pages from the templates of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from kpipe.atomic import write_text

__all__ = ["write_page"]


def write_page(page: Path, template: str, **facts: Any) -> None:
    """Fill a template, every fact escaped, and write the page whole or not at all.

    Args:
        page: the file to write; its folder is made.
        template: the name of a file of this package.
        **facts: what the template speaks of; one that is missing is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kpipe.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**facts)
    write_text(page, text)
