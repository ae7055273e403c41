"""params.yaml: the file as DVC reads it, and a block of it as the dataclass of whoever asked; which stages there are is
unknown here.

A stage parses its block once, at its door, with `block`; inside it passes on what has names and types. Whatever is
wrong with a value is a SettingsError that names its key in params.yaml ("examples.held_out") and what it must be.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from recgraph.errors import SettingsError

Params = Mapping[str, Any]
T = TypeVar("T")

RESTORE = "Restore it with: git checkout params.yaml"
_KINDS: Mapping[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple: "a list",
}


def load_params(folder: str | Path = ".") -> dict[str, Any]:
    """params.yaml of a folder. Raises SettingsError, naming the repair, where there is none or it is no YAML."""
    # As DVC reads it (YAML 1.2): PyYAML takes 2e-5 for text. Only training needs the package.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    path = Path(folder) / "params.yaml"
    try:
        read = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            f"There is no {path}. Run `recgraph train` in the folder of dvc.yaml and params.yaml: the repository's "
            "root."
        ) from None
    except (OSError, YAMLError) as error:
        raise SettingsError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}. {RESTORE}") from None
    if not isinstance(read, dict):
        raise SettingsError(f"{path} holds no params. {RESTORE}")
    return read


def block(params: Params, name: str, kind: type[T]) -> T:
    """The block `name` as a dataclass. SettingsError where it is missing, and as `settings_of`."""
    if not isinstance(params.get(name), Mapping):
        raise SettingsError(f"params.yaml has no block `{name}:`. {RESTORE}")
    return settings_of(kind, params[name], name)


def text(params: Params, name: str, *allowed: str) -> str:
    """A text of the top level; one of `allowed`, where those are given. SettingsError where it is missing or
    another."""
    if name not in params:
        raise SettingsError(f"params.yaml does not set {name}. {RESTORE}")
    found = _typed(str, params[name], name)
    if allowed and found not in allowed:
        raise SettingsError(f"{name} is '{found}' in params.yaml; it must be one of {', '.join(allowed)}.")
    return str(found)


def settings_of(kind: type[T], values: Any, where: str) -> T:
    """A dataclass of settings from the mapping that stands under the key `where`: its fields may be numbers, text, true
    or false, a choice (Literal), lists (tuple[X, ...]), mappings and other such dataclasses.

    SettingsError for an unknown name, a missing one and a value of another kind, and what the dataclass itself finds
    wrong, under its key.
    """
    if not isinstance(values, Mapping):
        raise SettingsError(f"{where} is {values!r} in params.yaml; it must be a block of parameters. {RESTORE}")
    hints, known = get_type_hints(kind), {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in values if name not in known]:
        raise SettingsError(f"{where}.{unknown[0]} is no parameter; known are {', '.join(known)}.")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise SettingsError(f"params.yaml does not set {where}.{name}. {RESTORE}")
    given = {name: _typed(hints[name], value, f"{where}.{name}") for name, value in values.items()}
    try:
        return kind(**given)
    except SettingsError as error:  # it knows the names of its fields, not under which key they stand
        raise SettingsError(f"{where}.{error}") from None


def _typed(hint: Any, value: Any, key: str) -> Any:
    """The value as a field of this type holds it; a whole number goes as a number, a list becomes a tuple.
    SettingsError for another kind."""
    kind = get_origin(hint) or hint
    if kind is Literal:
        if value not in get_args(hint):
            raise SettingsError(
                f"{key} is {value!r} in params.yaml; it must be one of {', '.join(map(str, get_args(hint)))}."
            )
        return value
    if kind in (Union, types.UnionType):
        kept = next(one for one in get_args(hint) if one is not type(None))
        return None if value is None else _typed(kept, value, key)
    if is_dataclass(kind):
        return settings_of(kind, value, key)  # type: ignore[arg-type]
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_typed(get_args(hint)[0], one, f"{key}[{place}]") for place, one in enumerate(value))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    fits = isinstance(value, Mapping) if kind in (dict, Mapping) else type(value) is kind
    if not fits:
        raise SettingsError(
            f"{key} is {value!r} in params.yaml; it must be {_KINDS.get(kind, 'a block of parameters')}."
        )
    return value
