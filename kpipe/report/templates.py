"""HTML pages from the templates of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

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
    page.parent.mkdir(parents=True, exist_ok=True)
    aside = page.with_name(f".{page.name}")
    aside.write_text(text, encoding="utf-8")
    aside.replace(page)
