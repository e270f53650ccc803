"""Render the HTML templates of this package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from kpipe.atomic import write_text
from kpipe.printable import printable

__all__ = ["write_page"]


def write_page(page: Path, template: str, **facts: Any) -> None:
    """Render a template with every value escaped and printable, and write the page atomically.

    Args:
        page: the file to write; missing folders are created.
        template: the name of a template in this package.
        **facts: the variables of the template; a missing one is an error.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kpipe.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template(template).render(**facts)
    write_text(page, text)


def _visible(value: Any) -> Any:
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, lines=True) if is_text else value
