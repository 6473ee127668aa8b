"""The operations of both services as the service models that botocore ships describe them.

`python -m whiteroom.wire.spec` prints the fingerprint: every operation, member and constraint, one a line.
It is committed as tests/conformance/fingerprint.txt, so that a botocore bump is a reviewed diff.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from whiteroom.wire.model import Model, Shape, load

SERVICES = ("cleanroomsml", "cleanrooms")


@dataclass(frozen=True)
class ErrorModel:
    """An error that a service's model declares."""

    name: str
    status: int
    shape: Shape


@dataclass(frozen=True)
class ServiceErrors:
    """All errors of one service; a name means one shape and one status wherever the service raises it."""

    by_name: Mapping[str, ErrorModel]
    internal: str
    """Name of the error that is the server's own fault; the two services differ in it."""


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation. Compared and hashed by identity: there is one object for each."""

    service: str
    """Botocore's name of the service."""
    name: str
    signing_name: str
    """The service's name in a signature's credential scope."""
    method: str
    path: str
    """Path template; a `{label}` stands for one percent-encoded segment."""
    status: int
    input: Shape
    output: Shape | None
    declares: tuple[str, ...]
    """Names of the errors that the model says this operation raises."""
    errors: ServiceErrors


@cache
def operations() -> Mapping[tuple[str, str], Operation]:
    """All operations of both services by (service, name)."""
    return {(o.service, o.name): o for service in SERVICES for o in _load(service)}


@cache
def model(service: str) -> Model:
    """The model of one of `SERVICES`."""
    return load(service)


def _load(service: str) -> Iterator[Operation]:
    shapes = model(service)
    by_name = {s.name: ErrorModel(s.name, s.metadata["error"]["httpStatusCode"], s) for s in shapes.errors()}
    errors = ServiceErrors(by_name, internal=next(e.name for e in by_name.values() if e.status == 500))
    for name, operation in shapes.operations.items():
        http = operation["http"]
        yield Operation(
            service=service,
            name=name,
            signing_name=shapes.signing_name,
            method=http["method"],
            path=http["requestUri"],
            status=http["responseCode"],
            input=shapes.resolve(operation["input"]),
            output=shapes.resolve(operation["output"]) if "output" in operation else None,
            declares=tuple(sorted(reference["shape"] for reference in operation["errors"])),
            errors=errors,
        )


def fingerprint() -> str:
    """Everything of the models that the server acts on, one fact a line, in a stable order."""
    lines = []
    for service in SERVICES:
        for o in sorted(_load(service), key=lambda o: o.name):
            output = o.output.name if o.output else "nothing"
            lines.append(
                f"{service} {o.name} {o.method} {o.path} {o.input.name} -> {o.status} {output}"
                f" raises {' '.join(o.declares)}"
            )
        shapes = model(service)
        for name in sorted(shapes.shapes):
            lines.extend(f"{service}:{line}" for line in _describe(shapes.shape(name)))
    return "\n".join(lines) + "\n"


def _describe(shape: Shape) -> Iterator[str]:
    traits: dict[str, Any] = {k: v for k, v in shape.metadata.items() if k != "required"}
    if "timestampFormat" in shape.serialization:
        traits["timestampFormat"] = shape.serialization["timestampFormat"]
    if shape.type_name == "list":
        traits["of"] = shape.member.name
    if shape.type_name == "map":
        traits["of"] = f"{shape.key.name}:{shape.value.name}"
    yield " ".join([shape.name, shape.type_name, *(f"{k}={v}" for k, v in sorted(traits.items()))])
    if shape.type_name == "structure":
        for name, member in sorted(shape.members.items()):
            place = member.serialization.get("location", "body")
            required = " required" if name in shape.required_members else ""
            yield f"{shape.name}.{name} {member.name} {place}{required}"


if __name__ == "__main__":
    print(fingerprint(), end="")  # noqa: T201
