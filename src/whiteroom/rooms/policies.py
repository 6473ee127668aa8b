"""Resource policies of configured audience models: reading them strictly, and deciding by them.

The language is IAM's, as far as it has a meaning here: accounts as principals, `cleanrooms-ml` actions, Allow
and Deny, and conditions over the keys in `CONDITION_KEYS`. An element that we could not honour is refused when
the policy is put, never ignored when it is evaluated.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

ACTION = "cleanrooms-ml:StartAudienceGenerationJob"
CONDITION_KEYS = ("cleanrooms-ml:collaborationid", "aws:principalaccount", "aws:sourceaccount")

_PRINCIPAL = re.compile(r"(?:arn:aws[-a-z]*:iam::)?([0-9]{12})(?::root)?|\*")
_ELEMENTS = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}


class PolicyError(ValueError):
    """The policy cannot be honoured; the message names the element."""


@dataclass(frozen=True)
class Decision:
    """Whether, and why. The reason is for the owner of the resource, never for the caller it refuses."""

    allowed: bool
    reason: str


@dataclass(frozen=True)
class _Statement:
    sid: str
    allow: bool
    principals: tuple[str, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[tuple[str, str, tuple[str, ...]], ...]

    def applies(self, account: str, action: str, resource: str, facts: Mapping[str, str]) -> bool:
        return (
            any(p in ("*", account) for p in self.principals)
            and any(_like(a.lower(), action.lower()) for a in self.actions)
            and any(_like(r, resource) for r in self.resources)
            and all(_holds(operator, facts.get(key), values) for operator, key, values in self.conditions)
        )


Policy = tuple[_Statement, ...]


def digest(text: str) -> str:
    """`policyHash`: the SHA-256 of the policy's bytes as stored, in lower-case hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def parse(text: str) -> Policy:
    """Read a policy document. Raises PolicyError with what to change."""
    try:
        document = json.loads(text, object_pairs_hook=_without_doubles)
        json.dumps(document, ensure_ascii=False).encode()  # finds halves of surrogate pairs
    except UnicodeEncodeError as error:
        raise PolicyError("The policy holds text that is not valid Unicode.") from error
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"The policy is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise PolicyError("The policy must be a JSON object with Version and Statement.")
    if unknown := set(document) - {"Version", "Id", "Statement"}:
        raise PolicyError(f"The policy has unknown elements: {', '.join(sorted(unknown))}.")
    if document.get("Version", "2012-10-17") != "2012-10-17":
        raise PolicyError("The policy's Version must be 2012-10-17.")
    statements = document.get("Statement")
    statements = [statements] if isinstance(statements, dict) else statements
    if not isinstance(statements, list) or not statements:
        raise PolicyError("The policy must have at least one Statement.")
    return tuple(_statement(s, f"Statement {n}") for n, s in enumerate(statements, 1))


def decide(policy: Policy, *, account: str, resource: str, related: str, facts: Mapping[str, str]) -> Decision:
    """Whether `account` may start an audience generation job on the configured audience model `resource`.

    IAM's order: an explicit Deny wins, on the model or on the job (`related`) that would be made; else a
    statement must allow the model. `facts` maps lower-case condition keys to the request's values.
    """
    for statement in policy:
        denies = not statement.allow and any(
            statement.applies(account, ACTION, arn, facts) for arn in (resource, related)
        )
        if denies:
            return Decision(False, f"the policy's statement {statement.sid} denies it")
    for statement in policy:
        if statement.allow and statement.applies(account, ACTION, resource, facts):
            return Decision(True, f"the policy's statement {statement.sid} allows it")
    return Decision(False, f"no statement of the policy allows account {account} with {dict(facts)}")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):  # the last would win, and a Condition or a Deny above it be lost
        raise ValueError("an object names a member twice")
    return members


def _statement(raw: Any, where: str) -> _Statement:
    if not isinstance(raw, dict):
        raise PolicyError(f"{where} must be an object.")
    if unknown := set(raw) - _ELEMENTS:
        raise PolicyError(
            f"{where}: {', '.join(sorted(unknown))} is not supported; use {', '.join(sorted(_ELEMENTS))}."
        )
    if raw.get("Effect") not in ("Allow", "Deny"):
        raise PolicyError(f"{where}: Effect must be Allow or Deny.")
    sid = raw.get("Sid", where)
    if not isinstance(sid, str) or not sid.isprintable():
        raise PolicyError(f"{where}: Sid must be a string of printable characters.")
    return _Statement(
        sid=sid,
        allow=raw["Effect"] == "Allow",
        principals=_principals(raw.get("Principal"), where),
        actions=_strings(raw.get("Action"), f"{where}: Action"),
        resources=_strings(raw.get("Resource"), f"{where}: Resource"),
        conditions=tuple(_conditions(raw.get("Condition", {}), where)),
    )


def _principals(raw: Any, where: str) -> tuple[str, ...]:
    if isinstance(raw, dict) and set(raw) == {"AWS"}:
        raw = raw["AWS"]
    elif raw != "*":
        raise PolicyError(f'{where}: Principal must be {{"AWS": [account ids]}}.')
    principals = []
    for name in _strings(raw, f"{where}: Principal"):
        match = _PRINCIPAL.fullmatch(name)
        if match is None:
            raise PolicyError(
                f"{where}: the Principal {name!r} is not an account. Give its 12 digits or "
                "arn:aws:iam::<account>:root; roles and users of an account are not told apart here."
            )
        principals.append(match[1] or "*")
    return tuple(principals)


def _conditions(raw: Any, where: str) -> list[tuple[str, str, tuple[str, ...]]]:
    if not isinstance(raw, dict):
        raise PolicyError(f"{where}: Condition must be an object.")
    found = []
    for operator, keys in raw.items():
        if operator not in _OPERATORS:
            raise PolicyError(f"{where}: the condition operator {operator!r} is not one of {', '.join(_OPERATORS)}.")
        if not isinstance(keys, dict) or not keys:
            raise PolicyError(f"{where}: {operator} must name at least one condition key.")
        for key, values in keys.items():
            if key.lower() not in CONDITION_KEYS:
                raise PolicyError(f"{where}: the condition key {key!r} is not one of {', '.join(CONDITION_KEYS)}.")
            found.append((operator, key.lower(), _strings(values, f"{where}: {key}")))
    return found


def _strings(raw: Any, where: str) -> tuple[str, ...]:
    values = [raw] if isinstance(raw, str) else raw
    if not isinstance(values, list) or not values or not all(isinstance(v, str) and v for v in values):
        raise PolicyError(f"{where} must be a string or a list of strings.")
    return tuple(values)


def _like(pattern: str, value: str) -> bool:
    """IAM's wildcards: * and ?. Brackets stand for themselves."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))


def _holds(operator: str, value: str | None, wanted: tuple[str, ...]) -> bool:
    """A missing key fulfils the negated and the IfExists operators only, as in IAM."""
    test = _OPERATORS[operator]
    if value is None:
        return operator.endswith("IfExists") or "Not" in operator
    return not any(test(w, value) for w in wanted) if "Not" in operator else any(test(w, value) for w in wanted)


_TESTS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, value: wanted == value,
    "StringNotEquals": lambda wanted, value: wanted == value,
    "StringEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringNotEqualsIgnoreCase": lambda wanted, value: wanted.lower() == value.lower(),
    "StringLike": _like,
    "StringNotLike": _like,
}
_OPERATORS = _TESTS | {f"{name}IfExists": test for name, test in _TESTS.items()}
