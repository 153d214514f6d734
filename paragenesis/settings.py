"""Frozen settings: the one way in which a component is configured.

A component's settings stand beside the component as a subclass of `Settings`; a campaign is settings made of
settings. Unknown keys and wrong values are an `InputError` that names the field and the cure.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from paragenesis.errors import InputError


class Settings(BaseModel):
    """Immutable, comparable settings that refuse unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Settings from plain values, as read from TOML or JSON.

        Args:
            values: The settings by name; nested settings are nested mappings.
            where: What the values belong to, for the message ("campaign.toml").

        Raises:
            InputError: A key is unknown, missing, or has a value that does not fit.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(_sentence(cls, error, where)) from None


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
        return f"{prefix}'{field}': {message}"
    return f"{prefix}'{field}': {message}, but {first['input']!r} was given"


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
