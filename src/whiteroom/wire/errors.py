"""The one exception that becomes an answer, and short names for the errors that rooms raise.

Knows no HTTP: which status an error name has is the service model's to say, or for the errors that any
AWS service may answer, `COMMON_STATUS` here (the API reference's page "Common Errors").
"""

from __future__ import annotations

from typing import Any

COMMON_STATUS = {
    "AccessDeniedException": 403,
    "IncompleteSignature": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "NotImplementedException": 501,
    "RequestEntityTooLargeException": 413,
    "RequestTimeoutException": 408,
    "ThrottlingException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
    "ValidationException": 400,
}


class ApiError(Exception):
    """An answer other than success.

    Parameters
    ----------
    name : the AWS error name, with its "Exception" ending where it has one.
    message : a sentence that the caller can act on.
    audit : why, in our own words, for the audit table; never sent.
    members : further members of the error's shape, such as `quotaName`.
    """

    def __init__(self, name: str, message: str, *, audit: str | None = None, **members: Any) -> None:
        super().__init__(f"{name}: {message}")
        self.name = name
        self.message = message
        self.audit = audit
        self.members = members


def validation(message: str, **members: Any) -> ApiError:
    return ApiError("ValidationException", message, **members)


def not_found(message: str, **members: Any) -> ApiError:
    return ApiError("ResourceNotFoundException", message, **members)


def conflict(message: str, **members: Any) -> ApiError:
    return ApiError("ConflictException", message, **members)


def access_denied(message: str, *, audit: str, **members: Any) -> ApiError:
    return ApiError("AccessDeniedException", message, audit=audit, **members)


def quota_exceeded(message: str, quota_name: str, quota_value: float) -> ApiError:
    return ApiError("ServiceQuotaExceededException", message, quotaName=quota_name, quotaValue=quota_value)
