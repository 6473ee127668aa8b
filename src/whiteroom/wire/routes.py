"""Which operation a method and a raw path mean. Knows no signatures and no bodies.

Paths are matched as they came over the wire: an ARN is one percent-encoded segment, and decoding before
matching would tear it apart at its slashes. In both services names and labels take turns in a path
(`/memberships/{membershipIdentifier}/trained-models/{trainedModelArn}`), so a dictionary is router enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from whiteroom.wire.errors import ApiError
from whiteroom.wire.spec import Operation

Key = tuple[tuple[str, ...], int]
"""The names of a path in order, and how many segments it has."""


class Routes:
    """The operations by path, by method and, for the paths that both services have, by signing name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._routes: dict[Key, dict[str, dict[str, tuple[Operation, tuple[str, ...]]]]] = {}
        for operation in operations:
            segments = operation.path.split("/")[1:]
            names, labels = tuple(segments[::2]), tuple(s[1:-1] for s in segments[1::2])
            if "{" in "".join(names) or any(f"{{{la}}}" != s for la, s in zip(labels, segments[1::2], strict=True)):
                raise ValueError(f"names and labels do not take turns in {operation.path} of {operation.name}")
            methods = self._routes.setdefault((names, len(segments)), {})
            methods.setdefault(operation.method, {})[operation.signing_name] = operation, labels

    def match(self, method: str, raw_path: str, signing_name: str | None) -> tuple[Operation, Mapping[str, str]]:
        """Find the operation, and its labels as they were sent, still percent-encoded.

        `signing_name` is what the credential scope claims; it decides only where a path is in both services.
        Raises UnknownOperationException.
        """
        segments = raw_path.split("/")[1:]
        methods = self._routes.get((tuple(segments[::2]), len(segments)))
        if methods is None or any(s in ("", ".", "..") for s in segments):
            raise ApiError("UnknownOperationException", f"No operation has the path {raw_path[:200]}.")
        services = methods.get(method)
        if services is None:
            message = f"{method[:20]} is no operation on {raw_path[:200]}; it has {', '.join(sorted(methods))}."
            raise ApiError("UnknownOperationException", message)
        operation, labels = services.get(signing_name or "") or next(iter(services.values()))
        return operation, dict(zip(labels, segments[1::2], strict=True))
