"""An mkdocs hook: the tables of docs/configuration.md, made from the descriptions in the code."""

import json
import warnings
from typing import Any

from pydantic.json_schema import models_json_schema

from jepa.config import Config
from jepa.online.config import OnlineConfig
from jepa.play.config import PlayConfig
from jepa.training.config import PretrainConfig
from jepa_data.curate.config import CurateConfig
from jepa_probes.comparison.config import CompareConfig
from jepa_probes.compression.config import CompressConfig
from jepa_probes.diagnosis.config import DiagnoseConfig
from jepa_probes.imagination.config import DreamConfig
from jepa_probes.planning.config import PlanConfig, PlannersConfig
from jepa_probes.probing.config import ProbeConfig

PAGE = "configuration.md"
MARKER = "<!-- tables -->"
VERBS: dict[str, type[Config]] = {
    "jepa pretrain": PretrainConfig,
    "jepa probe": ProbeConfig,
    "jepa compress": CompressConfig,
    "jepa plan": PlanConfig,
    "jepa plan --planners": PlannersConfig,
    "jepa diagnose": DiagnoseConfig,
    "jepa dream": DreamConfig,
    "jepa compare": CompareConfig,
    "jepa online": OnlineConfig,
    "jepa play": PlayConfig,
    "jepa data curate": CurateConfig,
}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
Schema = dict[str, Any]


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for every page."""
    return markdown.replace(MARKER, tables()) if page.file.src_uri == PAGE else markdown


def tables() -> str:
    """One section a verb, then one for each part of a config, once."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydantic leaves out what it cannot describe, with a warning
        refs, schema = models_json_schema([(config, "validation") for config in VERBS.values()])
    parts: dict[str, Schema] = schema["$defs"]
    sections: list[str] = []
    for verb, config in VERBS.items():
        name = refs[config, "validation"]["$ref"].rpartition("/")[2]
        sections.append(section(f"## {verb} {{#{anchor(name)}}}", parts.pop(name)))
    sections.append("## Parts")
    for name in sorted(parts, key=label):
        sections.append(section(f"### {title(name, parts[name])} {{#{anchor(name)}}}", parts[name]))
    return "\n\n".join(sections)


def section(heading: str, schema: Schema) -> str:
    """A heading, what the part is, and a row for each key."""
    required = schema.get("required", [])
    rows = [row(key, value, key in required) for key, value in schema.get("properties", {}).items()]
    table = ["| Key | Value | Default | |", "|---|---|---|---|", *rows]
    return "\n".join([heading, "", schema.get("description", "").split("\n\n")[0], "", *table])


def label(name: str) -> str:
    """The class that a definition configures: `Frame` of FrameConfig, `Tube` of jepa__masks__tube__Tube__Config."""
    return name.removesuffix("__Config").removesuffix("Config").rpartition("__")[2]


def anchor(name: str) -> str:
    return name.lower().replace("__", "-")


def title(name: str, schema: Schema) -> str:
    """The class, and the `kind` that chooses it."""
    kind = schema["properties"].get("kind", {}).get("const")
    return label(name) + (f" (`kind: {kind}`)" if kind else "")


def row(key: str, schema: Schema, required: bool) -> str:
    default = "required" if required else default_of(schema)
    cells = [f"`{key}`", kind_of(schema), default, schema.get("description", "")]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def default_of(schema: Schema) -> str:
    default = schema.get("default")
    if default == {} and "default_kind" in schema:
        default = {"kind": schema["default_kind"]}
    if isinstance(default, dict) and "kind" not in default:
        return "its defaults"
    return f"`{short(default)}`"


def kind_of(schema: Schema) -> str:
    """Its type in words, with bounds; parts are links to their sections."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{label(name)}](#{anchor(name)})"
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
    """As in YAML; of a part that is chosen by kind, only the kind."""
    if isinstance(default, dict):
        keys = ["kind"] if "kind" in default else list(default)
        return "{" + ", ".join(f"{key}: {short(default[key])}" for key in keys) + "}"
    if isinstance(default, list):
        return "[" + ", ".join(short(item) for item in default) + "]"
    return default if isinstance(default, str) else json.dumps(default)
