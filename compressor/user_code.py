"""Find a callable of the user's own, named as `package.module:function`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compressor.errors import InputError


def is_callable_spec(spec: str) -> bool:
    """Whether `spec` has the form `package.module:function` (and is no path like `C:\\data`)."""
    module, colon, name = spec.partition(":")
    return bool(colon) and name.isidentifier() and all(p.isidentifier() for p in module.split("."))


def load_callable(spec: str, purpose: str) -> Callable[..., Any]:
    """Import `package.module:function`; modules in the current directory are importable.

    Args:
        spec: the name, for example `mynets.small:build`.
        purpose: what the callable is for ("model", "data"), used in messages.

    Raises:
        InputError: malformed name, module that can't be imported, missing or uncallable attribute.
    """
    if not is_callable_spec(spec):
        raise InputError(f"{purpose} {spec!r} is not of the form package.module:function")
    module_name, _, function_name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()  # the module may have been written after Python looked there
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        raise InputError(
            f"{purpose} {spec!r}: there is no module {missing!r}; it is looked for in the current "
            f"directory ({here}) and among the installed packages"
        ) from error
    except Exception as error:
        raise InputError(
            f"{purpose} {spec!r}: importing {module_name} failed with "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        offered = [
            name
            for name, value in vars(module).items()
            if callable(value)
            and not name.startswith("_")
            and getattr(value, "__module__", None) == module_name  # not what it imported
        ]
        raise InputError(
            f"{purpose} {spec!r}: {module_name} has no function {function_name!r}; "
            f"it has {', '.join(sorted(offered)) or 'none'}"
        )
    return function


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or a placeholder where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else "no message"
