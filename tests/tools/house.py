"""How the code measures up to CONTRIBUTING.md: sizes, habits, defaults written twice, words nobody else uses.

python tests/tools/house.py            of this checkout: one line a measure, with its goal
python tests/tools/house.py --words    and how often each private word stands where
"""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("jepa", "data/jepa_data", "probes/jepa_probes")
FOLDERS = (*PACKAGES, "tests", "docs", "configs")
GENERATED = ("tests/bench/results",)
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md", "configs/**/*.yaml", "configs/README.md")

# Anywhere in a name: `_told`, `ActorSenses`.
PARTS = """
    unstick haste told senses looking picture pictures stills gauge ledger journal moments wanderer errands earned
    delivery described clock
"""
# Names and keys, compared whole.
NAMES = """
    unstick hold haste execute path_weight enough effort forbidden inside holds beside init begin following Point
    StillsEncoder StillsConfig encode_still markov MarkovPredictor MarkovConfig remember newest move_gripper gauge
    CollapseGauge gauge_every gauge_seconds say weighed nearness Senses Sees sees worth earned told Earned errands
    wanderer held way_left place ended Sight ledger Ledger journal Journal JOURNAL moments Moments Lost heard give Slot
    Cut Delivery stills found standardise Standardise Unscaled colour centre grey
"""
BEGINNINGS = ("least_", "most_", "LEAST_", "MOST_")
MODULES = """
    memory pose markov stills looking bare foreign ledger journal moments isolated bands pictures in_pool on_ray clock
    acting starting recorded rewarded scales scaling described sizing wording errands held
"""
# In help texts and docs, where many of the names above are plain English.
PROSE = re.compile(
    r"\b(unstick|haste|errands|wanderers?|markov|stills|gauges?|path_weight|least_\w+|standardis\w+|normalis\w+|colour\w*"
    r"|centre\w*|optimis\w+|grey\w*|neighbour\w*|behaviour\w*|shall|anew|so-many-th|as \w+ ha(?:s|ve) it|told|of which"
    r"|by turns|dimly|the dear part|nobody saw|for ever|a CPU-second)\b"
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources() -> dict[str, ast.Module]:
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def count_lines(path: str) -> int:
    return len((ROOT / path).read_text().splitlines())


def crowded_folders() -> list[str]:
    """Those with more than 16 files, and how many they hold."""
    files = Counter(
        str(path.parent.relative_to(ROOT))
        for top in FOLDERS
        for path in (ROOT / top).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    return [f"{folder} {count}" for folder, count in sorted(files.items()) if count > 16 and folder not in GENERATED]


def tuple_assignments(tree: ast.Module) -> list[int]:
    """How many names each of them sets."""
    return [
        len(node.targets[0].elts)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Tuple)
        and isinstance(node.value, ast.Tuple | ast.GeneratorExp)
    ]


def config_checks(tree: ast.Module) -> int:
    """Calls isinstance(…, XConfig), or (…, X.Config)."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and len(node.args) == 2]
    asked = [call.args[1] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "isinstance"]
    return sum(re.search(r"\w*Config\b", ast.unparse(kind)) is not None for kind in asked)


def field_defaults(node: ast.ClassDef) -> dict[str, str]:
    """Of annotated attributes: `x: int = 1`, `x: int = Field(default=1, …)`."""
    found: dict[str, str] = {}
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
            continue
        value: ast.expr | None = line.value
        if isinstance(value, ast.Call) and ast.unparse(value.func).lower() == "field":
            value = next((keyword.value for keyword in value.keywords if keyword.arg == "default"), None)
        if value is not None:
            found[line.target.id] = ast.unparse(value)
    return {name: value for name, value in found.items() if name != "kind"}


def parameter_defaults(node: ast.ClassDef) -> dict[str, str]:
    """Of __init__, or of the fields of a dataclass."""
    init = next((line for line in node.body if isinstance(line, Function) and line.name == "__init__"), None)
    if init is None:
        return field_defaults(node)
    positional = [*init.args.posonlyargs, *init.args.args]
    pairs = [*zip(reversed(positional), reversed(init.args.defaults), strict=False)]
    pairs += [(a, value) for a, value in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True) if value]
    return {argument.arg: ast.unparse(value) for argument, value in pairs}


def repeated_defaults(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Defaults of a config that its class writes again: the class of the same name, in the file that the config's
    docstring names where it names one, or around a nested `Config`."""
    classes = [(path, n) for path, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)]
    configs = {node.name: node for _, node in classes if node.name.endswith("Config") and node.name != "Config"}

    def inherited(node: ast.ClassDef) -> dict[str, str]:
        bases = [configs[base.id] for base in node.bases if isinstance(base, ast.Name) and base.id in configs]
        return {name: x for base in bases for name, x in inherited(base).items()} | field_defaults(node)

    for _, config in classes:
        if config.name not in configs:
            continue
        stem = config.name.removesuffix("Config").lower()
        file = re.search(r"(?:jepa|data|probes)/[\w/]+\.py", ast.get_docstring(config) or "")
        there = [(path, node) for path, node in classes if not node.name.endswith("Config")]
        if file:
            of_file = [node for path, node in there if path == file[0]]
            same = [n for n in of_file if stem in n.name.lower()] or of_file[:1]
        else:
            same = [n for _, n in there if n.name.lower() in (stem, f"{stem}settings", f"latent{stem}")]
        fields = inherited(config)
        for node in same[:1]:
            yield from (f"{config.name}.{name}" for name in parameter_defaults(node) if name in fields)
    for _, node in classes:
        for inner in (line for line in node.body if isinstance(line, ast.ClassDef) and line.name == "Config"):
            yield from (f"{node.name}.{name}" for name in parameter_defaults(node) if name in field_defaults(inner))


def is_private(name: str) -> bool:
    parts = re.findall(r"[a-z]+|[A-Z][a-z]*", name)
    return name in NAMES.split() or name.startswith(BEGINNINGS) or any(part.lower() in PARTS.split() for part in parts)


def private_words(trees: dict[str, ast.Module]) -> dict[str, Counter[str]]:
    """Where they stand: names that are set, keys and kinds, help and descriptions, documents, modules."""
    where = {kind: Counter[str]() for kind in ("identifiers", "keys", "help", "source", "docs", "modules")}
    for path, tree in trees.items():
        where["modules"].update(part for part in Path(path).with_suffix("").parts if part in MODULES.split())
        for node in ast.walk(tree):
            match node:
                case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
                    where["identifiers"].update([name] if is_private(name) else [])
                case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                    where["identifiers"].update([name] if is_private(name) else [])
                case ast.Constant(value=str(text)) if " " not in text and is_private(text):
                    where["keys"][text] += 1
                case ast.keyword(arg="help" | "description", value=ast.Constant(value=str(text))):
                    where["help"].update(word.lower() for word in PROSE.findall(text))
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        where["source"].update(word.lower() for text in texts for word in PROSE.findall(text))
    for pattern in TEXTS:
        for path in ROOT.glob(pattern):
            where["docs"].update(word.lower() for word in PROSE.findall(path.read_text()))
    return where


def main() -> None:
    trees = sources()
    lengths = sorted((count_lines(path), path) for path in trees)
    total = sum(length for length, _ in lengths)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    functions = [n.name for n in nodes if isinstance(n, Function) and (n.end_lineno or 0) - n.lineno + 1 > 60]
    tuples = {path: tuple_assignments(tree) for path, tree in trees.items()}
    wide = {path: sum(size > 2 for size in sizes) for path, sizes in tuples.items()}
    checks = {path: config_checks(tree) for path, tree in trees.items()}
    words, crowded, twice = private_words(trees), crowded_folders(), list(repeated_defaults(trees))
    rate = 1000 / total
    rows = [
        ("source files", len(lengths), "", ""),
        ("source lines", total, "fewer", ""),
        ("lines of a file, p90", lengths[int(0.9 * len(lengths))][0], "250", ""),
        ("lines of the longest file", lengths[-1][0], "350", lengths[-1][1]),
        ("functions over 60 lines", len(functions), "0", ", ".join(functions)),
        ("folders over 16 files", len(crowded), "0", ", ".join(crowded)),
        ("tuple assignments per 1,000 lines", f"{rate * sum(map(len, tuples.values())):.1f}", "5", ""),
        ("  of more than two names", sum(wide.values()), "0", f"in {sum(map(bool, wide.values()))} files"),
        ("inline conditionals per 1,000 lines", f"{rate * sum(isinstance(n, ast.IfExp) for n in nodes):.1f}", "11", ""),
        ("isinstance(…, XConfig)", sum(checks.values()), "0", f"in {sum(map(bool, checks.values()))} files"),
        ("defaults written twice", len(twice), "0", ", ".join(twice[:3])),
        *((f"private words: {kind}", n.total(), "0", words_of(n)) for kind, n in words.items()),
        ("README lines", count_lines("README.md"), "130", ""),
    ]
    for name, value, goal, note in rows:
        print(f"{name:36} {value!s:>7}  {goal:>6}  {note}".rstrip())  # noqa: T201
    if "--words" in sys.argv[1:]:
        for kind, counts in words.items():
            print(f"\n{kind}: " + ", ".join(f"{word} {n}" for word, n in counts.most_common()))  # noqa: T201


def words_of(counts: Counter[str]) -> str:
    return ", ".join(f"{word} {number}" for word, number in counts.most_common(6))


if __name__ == "__main__":
    main()
