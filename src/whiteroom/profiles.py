"""An access key as the AWS profile that AWS's clients read: pure text, knows no file and no server."""

from __future__ import annotations

from collections.abc import Mapping

REGION = "us-east-1"


def profile(name: str, access_key_id: str, secret_access_key: str, endpoints: Mapping[str, str]) -> str:
    """Sections for `~/.aws/config` and `~/.aws/credentials`, with a comment above each.

    endpoints : the URL of each service by the identifier that AWS's configuration uses ("cleanroomsml").
    """
    section = f'"{name}"' if " " in name else name
    services = name.replace(" ", "-") + "-whiteroom"
    lines = [
        "# in ~/.aws/config",
        f"[profile {section}]",
        f"region = {REGION}",
        f"services = {services}",
        # A bucket is part of the path at an endpoint that has no name server of its own.
        "s3 =",
        "  addressing_style = path",
        "",
        f"[services {services}]",
    ]
    for service, url in endpoints.items():
        lines += [f"{service} =", f"  endpoint_url = {url}"]
    lines += [
        "",
        "# in ~/.aws/credentials",
        f"[{name}]",
        f"aws_access_key_id = {access_key_id}",
        f"aws_secret_access_key = {secret_access_key}",
    ]
    return "\n".join(lines)
