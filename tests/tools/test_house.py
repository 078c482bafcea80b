"""The measures of house.py, on code where the right answer is plain."""

import ast

from tests.tools import house

CODE = '''
class SoftConfig(Config):
    """jepa/soft.py."""
    kind: Literal["soft"] = "soft"
    width: Count = 64
    depth: int = Field(default=2, ge=0)
    heads: Count = 3

class Soft(Module):
    def __init__(self, size: int, width: int = 64, *, depth: int = 2, heads: int) -> None:
        a, b, c = 1, 2, 3
        first, last = pair
        self.asked = isinstance(config, SoftConfig | HardConfig) or isinstance(size, int)
'''


def test_a_default_in_a_config_and_in_its_class_is_written_twice() -> None:
    trees = {"jepa/soft.py": ast.parse(CODE)}
    assert sorted(house.repeated_defaults(trees)) == ["SoftConfig.depth", "SoftConfig.width"]


def test_a_nested_config_is_compared_with_the_class_around_it() -> None:
    nested = (
        CODE.replace("SoftConfig(Config)", "Other(Config)")
        + "    class Config(Component):\n        width: Count = 64\n"
    )
    assert list(house.repeated_defaults({"jepa/soft.py": ast.parse(nested)})) == ["Soft.width"]


def test_only_assignments_of_several_values_to_several_names_count() -> None:
    assert house.tuple_assignments(ast.parse(CODE)) == [3]


def test_only_questions_about_configs_count() -> None:
    assert house.config_checks(ast.parse(CODE)) == 1
    assert house.config_checks(ast.parse("isinstance(method, LeWM.Config)")) == 1


def test_private_words_are_found_in_names_and_keys() -> None:
    code = 'def act(least_steps: int): found = {"unstick": 1, "steps": 2}'
    words = house.private_words({"jepa/acting.py": ast.parse(code)})
    assert dict(words["identifiers"]) == {"least_steps": 1, "found": 1}
    assert dict(words["keys"]) == {"unstick": 1} and dict(words["modules"]) == {"acting": 1}
