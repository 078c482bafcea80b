"""HTML pages in one file: what they share, with images inside."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from jepa_probes.reporting.curves import Chart
from jepa_probes.reporting.results import number, percent


def render(template: Path, context: Mapping[str, Any], path: Path) -> Path:
    """Write the page that a template makes; it may extend `page.html.j2` of this folder."""
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "percent": percent}
    path.write_text(environment.get_template(template.name).render(context), encoding="utf-8")
    return path


def embed_chart(chart: Chart) -> dict[str, str]:
    """Its title, and its two images as data URIs."""
    themes = {theme: data_uri(getattr(chart, theme), "image/png") for theme in ("light", "dark")}
    return {"title": chart.title} | themes


def data_uri(data: bytes, kind: str) -> str:
    """A file as a link that holds all of it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
