"""JSON Schemas of frozen dataclasses: the shape of what ``storage.json.dumps`` writes, published for other programs.

The types are the only source: a comment behind a field is its description, a docstring that of its class. Every field is
required, since ``encode`` writes all of them. Further keys are allowed, since a newer moeprof may add some.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
COMMENT = re.compile(r"^    (\w+): [^#\n]*#\s*(.+)$", flags=re.MULTILINE)


def schema(options: tuple[type, ...], title: str, keywords: Mapping[str, Schema] | None = None) -> Schema:
    """The schema of a document of one of these types; ``keywords``: further ones of a field, under "Class.field".

    Raises:
        TypeError: a field has a type that ``storage.json`` does not write.
        ValueError: a name of ``keywords`` is no field of these types.
    """
    definitions = _Definitions(keywords or {})
    body = definitions.object(options[0]) if len(options) == 1 else {"anyOf": [definitions.of(cls) for cls in options]}
    unused = set(definitions.keywords) - definitions.used
    if unused:
        raise ValueError(f"no such field: {', '.join(sorted(unused))}")
    return {"$schema": DIALECT, "title": title, **body, "$defs": dict(sorted(definitions.schemas.items()))}


class _Definitions:
    """The dataclasses of one schema, each under its own name."""

    def __init__(self, keywords: Mapping[str, Schema]) -> None:
        self.keywords = keywords
        self.used: set[str] = set()
        self.schemas: dict[str, Schema] = {}
        self.names: dict[type, str] = {}

    def of(self, hint: Any) -> Schema:
        """The schema of a type."""
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if hint is Any or hint is object:
            return {}
        if hint in SCALARS:
            return {"type": SCALARS[hint]}
        if origin in (typing.Union, types.UnionType):
            return self._union([self.of(option) for option in args])
        if origin is typing.Literal:
            return {"enum": list(args)}
        if origin is dict:
            return {"type": "object", "additionalProperties": self.of(args[1])}
        if origin is list or (origin is tuple and args[-1] is Ellipsis):
            return {"type": "array", "items": self.of(args[0])}
        if origin is tuple:
            return {
                "type": "array",
                "prefixItems": [self.of(arg) for arg in args],
                "minItems": len(args),
                "items": False,
            }
        if dataclasses.is_dataclass(hint):
            return {"$ref": f"#/$defs/{self._name(typing.cast(type, hint))}"}
        raise TypeError(f"{hint} is not written as JSON")

    def _union(self, options: list[Schema]) -> Schema:
        if all(set(option) == {"type"} for option in options):
            return {"type": [option["type"] for option in options]}
        return {"anyOf": options}

    def _name(self, cls: type) -> str:
        """The name of a dataclass in ``$defs``; its module is added if another class has that name."""
        if cls not in self.names:
            taken = cls.__name__ in self.names.values()
            self.names[cls] = f"{cls.__module__}.{cls.__name__}" if taken else cls.__name__
            self.schemas[self.names[cls]] = self.object(cls)
        return self.names[cls]

    def object(self, cls: type) -> Schema:
        hints, comments = typing.get_type_hints(cls), _comments(cls)
        properties: Schema = {}
        for field in dataclasses.fields(cls):
            key, path = field.name.rstrip("_"), f"{cls.__name__}.{field.name}"
            is_version = field.name == "schema_version"
            properties[key] = {"const": field.default} if is_version else self.of(hints[field.name])
            properties[key] |= {"description": comments[field.name]} if field.name in comments else {}
            properties[key] |= self.keywords.get(path, {})
            self.used.add(path)
        description = " ".join((cls.__doc__ or "").split())
        return {"type": "object", "description": description, "properties": properties, "required": list(properties)}


def _comments(cls: type) -> dict[str, str]:
    """The comment behind each field, those of base classes included."""
    comments: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        comments |= dict(COMMENT.findall(inspect.getsource(base)))
    return comments
