"""From values to HTML: one place that escapes whatever a template is given."""

from __future__ import annotations

from importlib import metadata
from importlib.resources import files
from typing import Any


def render(template: str, **values: Any) -> str:
    """Fill in a template of this package.

    All text is escaped; only `drawing.svg_of` and the style sheet, which are ours, pass as markup.
    A value that the template wants and nobody gave is an error.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("compress_export.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = files("compress_export.html_report").joinpath("templates/style.css").read_text("utf-8")
    made_by = f"Made by compress-export {metadata.version('compress-export')}; needs no network."
    return environment.get_template(template).render(style=style, footer=made_by, **values)
