"""The operations of both services as botocore's service models describe them; the only importer of botocore.

`python -m whiteroom.wire.spec` prints the fingerprint: every operation, member and constraint, one a line.
It is committed as tests/conformance/fingerprint.txt, so that a botocore bump is a reviewed diff.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel

Shape = Any
"""A botocore.model.Shape; what it has goes by its `type_name`, which the type checker cannot follow."""

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
def _model(service: str) -> ServiceModel:
    # Only the models botocore ships: one in the user's ~/.aws/models must not change what the server accepts.
    loader = Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)
    return ServiceModel(loader.load_service_model(service, "service-2"), service)


def _load(service: str) -> Iterator[Operation]:
    model = _model(service)
    shapes = model.error_shapes
    errors = ServiceErrors(
        by_name={s.name: ErrorModel(s.name, s.metadata["error"]["httpStatusCode"], s) for s in shapes},
        internal=next(s.name for s in shapes if s.metadata["error"]["httpStatusCode"] == 500),
    )
    for name in model.operation_names:
        operation = model.operation_model(name)
        yield Operation(
            service=service,
            name=name,
            signing_name=model.signing_name,
            method=operation.http["method"],
            path=operation.http["requestUri"],
            status=operation.http["responseCode"],
            input=operation.input_shape,
            output=operation.output_shape,
            declares=tuple(sorted(s.name for s in operation.error_shapes)),
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
        model = _model(service)
        for name in sorted(model.shape_names):
            lines.extend(f"{service}:{line}" for line in _describe(model.shape_for(name)))
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
