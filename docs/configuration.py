"""The tables of docs/configuration.md, made of the configs' own descriptions while the site is built (an mkdocs hook)."""

import json
from typing import Any

from jepa.config import Config
from jepa.training.config import PretrainConfig
from jepa_data.curate.config import CurateConfig
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.planning.config import PlanConfig
from jepa_probes.probing.config import ProbeConfig

PAGE = "configuration.md"
MARKER = "<!-- tables -->"
VERBS: dict[str, type[Config]] = {
    "jepa pretrain": PretrainConfig,
    "jepa probe": ProbeConfig,
    "jepa plan": PlanConfig,
    "jepa dream": DreamConfig,
    "jepa data curate": CurateConfig,
}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
Schema = dict[str, Any]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return markdown.replace(MARKER, tables()) if page.file.src_uri == PAGE else markdown


def tables() -> str:
    """One section a verb, then one for each part of a config, once."""
    sections: list[str] = []
    parts: dict[str, Schema] = {}
    for verb, config in VERBS.items():
        schema = config.model_json_schema()
        parts |= schema.pop("$defs", {})
        sections.append(section(f"## {verb}", schema))
    sections.append("## Parts")
    sections += [section(f"### {title(name, part)} {{#{name.lower()}}}", part) for name, part in sorted(parts.items())]
    return "\n\n".join(sections)


def section(heading: str, schema: Schema) -> str:
    """A heading, what the part is, and a row for each key."""
    required = schema.get("required", [])
    rows = [row(key, value, key in required) for key, value in schema.get("properties", {}).items()]
    table = ["| Key | Value | Default | |", "|---|---|---|---|", *rows]
    return "\n".join([heading, "", schema.get("description", "").split("\n\n")[0], "", *table])


def title(name: str, schema: Schema) -> str:
    """Its class without `Config`, and the `kind` that chooses it."""
    kind = schema["properties"].get("kind", {}).get("const")
    return name.removesuffix("Config") + (f" (`kind: {kind}`)" if kind else "")


def row(key: str, schema: Schema, required: bool) -> str:
    default = "required" if required else f"`{short(schema.get('default'))}`"
    cells = [f"`{key}`", kind_of(schema), default, schema.get("description", "")]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def kind_of(schema: Schema) -> str:
    """Its type in words, with bounds; parts are links to their sections."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name.removesuffix('Config')}](#{name.lower()})"
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return " or ".join(dict.fromkeys(kind_of(item) for item in schema[choice]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "prefixItems" in schema:
        return "[" + ", ".join(kind_of(item) for item in schema["prefixItems"]) + "]"
    if schema.get("type") == "array":
        return f"list of {kind_of(schema['items'])}"
    bounds = [f"{sign} {schema[name]:g}" for name, sign in BOUNDS.items() if name in schema]
    return " ".join([schema.get("type", "any").replace("null", "none"), ", ".join(bounds)]).strip()


def short(default: Any) -> str:
    """As YAML would have it; of a part only its kind."""
    if isinstance(default, dict):
        return f"{{kind: {default['kind']}}}" if "kind" in default else "{}"
    if isinstance(default, list):
        return "[" + ", ".join(short(item) for item in default) + "]"
    return default if isinstance(default, str) else json.dumps(default)
