"""Typed run descriptions: YAML and dotted overrides in, frozen objects out, errors written for people.

    class SGD(Config):
        kind: Literal["sgd"] = "sgd"
        lr: float

    class Adam(Config):
        kind: Literal["adam"] = "adam"
        lr: float = 1e-3

    class Run(Config):
        steps: int = Field(gt=0)
        optimizer: SGD | Adam = Field(default=Adam(), discriminator="kind")

    load("run.yaml", Run, ["optimizer.lr=1e-3"])

YAML is read by the 1.2 rules for plain values: `1e-3` is a number, only `true` and `false` are booleans, and a key
given twice is an error. Types are strict, except that whole numbers do for numbers and lists for tuples. Nothing here
imports torch, so a misspelt key is reported at once.
"""

from jepa.config.component import DEFAULT, Component, Parts, part
from jepa.config.errors import ConfigError, UserError, errors_of, first_line
from jepa.config.loading import CHECKED, Config, dump, expand_home, from_dict, load

__all__ = [
    "CHECKED",
    "DEFAULT",
    "Component",
    "Config",
    "ConfigError",
    "Parts",
    "UserError",
    "dump",
    "errors_of",
    "expand_home",
    "first_line",
    "from_dict",
    "load",
    "part",
]
