"""Shapes and types of signatures, checked while tests run (jaxtyping + beartype), in the first calls of each function.

Later calls of a test are like the first ones; to check them all would nearly double the time that the tests take.
"""

import functools
from collections.abc import Callable, Iterable
from types import FunctionType, GenericAlias, UnionType
from typing import Any, Self, Union, get_args, get_origin

import jaxtyping
import torch
from beartype import beartype

CALLS = 3  # of each function in each test

_jaxtyped = jaxtyping.jaxtyped
_test = 0  # the number of the test, or of its fixtures


def check_shapes(packages: Iterable[str]) -> None:
    """Check the functions of these packages, which must not have been imported yet."""
    jaxtyping.jaxtyped = _checked_at_first  # what the import hook puts before each function
    jaxtyping.install_import_hook(packages, f"{__name__}.check")


def check_again() -> None:
    """A test begins: the next calls of each function are checked."""
    global _test
    _test += 1


def check(function: Callable[..., Any]) -> Callable[..., Any]:
    """beartype on one function, for what can be checked while it runs."""
    function.__annotations__ = {name: checkable(hint) for name, hint in function.__annotations__.items()}
    return beartype(function)


def checkable(hint: Any) -> Any:
    """`hint` without `Self` (beartype knows it in whole classes only) and without protocols that have no isinstance.

    Both are left to pyright.
    """
    if hint is Self or (getattr(hint, "_is_protocol", False) and not getattr(hint, "_is_runtime_protocol", False)):
        return Any
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return Union[tuple(checkable(part) for part in parts)]  # noqa: UP007  built at run time
    if isinstance(hint, GenericAlias) and origin is not Callable:
        return origin[tuple(checkable(part) for part in parts)]
    return hint


def _checked_at_first(*, typechecker: Any) -> Callable[[Any], Any]:
    def decorate(function: Any) -> Any:
        if not isinstance(function, FunctionType):
            return _jaxtyped(function, typechecker=typechecker)
        checked: Callable[..., Any] | None = None  # made when it is first called: most functions of a test never are
        test = calls = 0

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal checked, test, calls
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            if test != _test:
                test, calls = _test, 0
            if calls == CALLS:
                return function(*args, **kwargs)
            calls += 1
            checked = checked or _jaxtyped(function, typechecker=typechecker)
            return checked(*args, **kwargs)

        return call

    return decorate
