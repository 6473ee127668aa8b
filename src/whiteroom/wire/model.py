"""The service models that botocore ships, as shapes. Knows no operation's meaning and does not import botocore.

Only the files are read: importing botocore.model would take the server a quarter of its start and of its memory.
Names and meanings are those of botocore.model, of which this is the part that a server needs.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_SERIALIZATION = {"location": "location", "locationName": "name", "timestampFormat": "timestampFormat"}
_METADATA = frozenset(
    ("required", "min", "max", "pattern", "sensitive", "enum", "idempotencyToken", "error", "exception", "retryable",
     "document", "union")
)  # fmt: skip


class Shape:
    """A shape where it is used: its own traits and those of the member that refers to it.

    Only a structure has `members`, only a list `member`, only a map `key` and `value`.
    """

    def __init__(self, model: Model, name: str, traits: Mapping[str, Any]) -> None:
        self._model = model
        self._traits = traits
        self.name = name
        self.type_name: str = traits["type"]

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """Constraints: `min`, `max`, `pattern`, `enum`, `required`, `sensitive`, `union` and the like."""
        return {trait: value for trait, value in self._traits.items() if trait in _METADATA}

    @cached_property
    def serialization(self) -> Mapping[str, Any]:
        """How it goes over the wire: `location` and `name` there, `timestampFormat`."""
        return {ours: self._traits[theirs] for theirs, ours in _SERIALIZATION.items() if theirs in self._traits}

    @property
    def enum(self) -> list[str]:
        return list(self._traits.get("enum", ()))

    @property
    def required_members(self) -> list[str]:
        return list(self._traits.get("required", ()))

    @cached_property
    def members(self) -> Mapping[str, Shape]:
        return {name: self._model.resolve(reference) for name, reference in self._traits["members"].items()}

    @property
    def member(self) -> Shape:
        return self._model.resolve(self._traits["member"])

    @property
    def key(self) -> Shape:
        return self._model.resolve(self._traits["key"])

    @property
    def value(self) -> Shape:
        return self._model.resolve(self._traits["value"])


class Model:
    """A service's model: the JSON document without its prose."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.signing_name: str = document["metadata"]["signingName"]
        self.operations: Mapping[str, Any] = document["operations"]
        self.shapes: Mapping[str, Any] = document["shapes"]

    def shape(self, name: str) -> Shape:
        return Shape(self, name, self.shapes[name])

    def resolve(self, reference: Mapping[str, Any]) -> Shape:
        """The shape that `{"shape": name}` means; what else the reference says adds to the shape's own traits."""
        name = reference["shape"]
        traits = {trait: value for trait, value in reference.items() if trait != "shape"}
        return Shape(self, name, self.shapes[name] | traits if traits else self.shapes[name])

    def errors(self) -> Iterator[Shape]:
        """The shapes that are errors."""
        return (self.shape(name) for name, traits in self.shapes.items() if traits.get("exception"))


def load(service: str) -> Model:
    """The model of a service by botocore's name for it, in the newest version that is installed.

    Always botocore's own: one in the user's ~/.aws/models must not change what the server accepts.
    """
    package = find_spec("botocore")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("botocore, which has the service models, is not installed", name="botocore")
    newest = max(path for path in (Path(package.origin).parent / "data" / service).iterdir() if path.is_dir())
    return Model(json.loads(gzip.decompress((newest / "service-2.json.gz").read_bytes()), object_hook=_without_prose))


def _without_prose(value: dict[str, Any]) -> dict[str, Any]:
    if isinstance(value.get("documentation"), str):  # a member of that name would be an object
        del value["documentation"]
    return value
