"""Frozen settings: the one way in which a component is configured.

A component's settings stand beside the component as a subclass of `Settings`; a campaign is settings made of
settings. Unknown keys and wrong values are an `InputError` that names the field and the cure.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from paragenesis.errors import InputError

_DEEPEST = 64  # levels of nesting; a campaign has six
_LARGEST = 2**128  # a seed may have 128 bits
_LONGEST_VALUE = 200
_LONGEST_MESSAGE = 1_000


class Settings(BaseModel):
    """Immutable, comparable settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    def __init__(self, **values: Any) -> None:
        """Take the settings by name.

        Raises:
            InputError: A key is unknown, missing, or has a value that does not fit.
        """
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InputError(one_line(_sentence(type(self), error, type(self).__name__))) from None

    # pydantic's own mark: what it validates inside of other settings does not come by here, and keeps its place in them
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Settings from plain values, as read from TOML or JSON.

        Args:
            values: The settings by name; nested settings are nested mappings.
            where: What the values belong to, for the message ("campaign.toml").

        Raises:
            InputError: A key is unknown, missing, or has a value that does not fit.
        """
        if fault := _fault(values):
            raise InputError(one_line(f"{where}: {fault}" if where else fault))
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(one_line(_sentence(cls, error, where))) from None


def shown(value: object) -> str:
    """A value as a message names it, in one line and not longer than a line; an object may refuse to be written."""
    try:
        return one_line(repr(value), _LONGEST_VALUE)
    except Exception:  # noqa: BLE001  what a user's object does when it is written is not what is wrong with it here
        return f"a {type(value).__name__}"


def one_line(text: str, longest: int = _LONGEST_MESSAGE) -> str:
    """A text without line breaks and control characters, cut where it is long."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line if len(line) <= longest else f"{line[:longest]}..."


def _fault(values: Mapping[str, Any]) -> str:
    """What no field can be, even one that takes anything: a ledger keeps settings as JSON, and compares them."""
    level: list[tuple[str, Any]] = [("", values)]
    seen: set[int] = set()
    for _ in range(_DEEPEST):
        inner = []
        for path, one in level:
            seen.add(id(one))
            for key, value in one.items() if isinstance(one, Mapping) else enumerate(one):
                place = f"{path}.{key}".lstrip(".")
                if fault := _scalar_fault(value) or _scalar_fault(key):
                    return f"'{place}' {fault}, but {shown(value)} was given"
                if isinstance(value, Mapping | list | tuple) and id(value) not in seen:
                    inner.append((place, value))
        level = inner
    return f"'{level[0][0]}' is nested more than {_DEEPEST} levels deep; flatten it" if level else ""


def _scalar_fault(value: object) -> str:
    """Why a value cannot be kept as JSON and compared, or ""."""
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if isinstance(value, int) and abs(value) >= _LARGEST:
        return "must be a number of at most 128 bits"
    if isinstance(value, bytes | bytearray):
        return "must be a text"
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return "must be a text that can be written as UTF-8"
    return ""


def _sentence(cls: type[BaseModel], error: ValidationError, where: str) -> str:
    """The first problem of `error` as one sentence: field, what is wrong, what was given, the cure."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or cls.__name__.lower()
    prefix = f"{where}: " if where else ""
    if first["type"] == "extra_forbidden":
        known = _known_fields(cls, first["loc"][:-1])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
        cure = f"did you mean '{close[0]}'?" if close else f"known keys here: {', '.join(known)}"
        return f"{prefix}unknown key '{field}'; {cure}"
    if first["type"] == "missing":
        return f"{prefix}'{field}' is missing; add it"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("tuple_type", "list_type"):
        message = "must be a list (a TOML table in a list is written [[name]])"
    elif first["type"] == "too_short":
        return f"{prefix}'{field}' is empty; name at least {first['ctx']['min_length']}"
    if first["type"] == "value_error":
        return f"{where}: {message}" if where and not first["loc"] else f"{prefix}'{field}': {message}"
    return f"{prefix}'{field}': {message}, but {shown(first['input'])} was given"


def _known_fields(cls: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that stand beside an unknown key at `path` below `cls`."""
    current: type[BaseModel] = cls
    for part in path:
        if isinstance(part, int) or part not in current.model_fields:
            continue
        nested = _model_in(current.model_fields[part].annotation)
        if nested is None:
            break
        current = nested
    return sorted(current.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class named somewhere in a type annotation, if any."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
