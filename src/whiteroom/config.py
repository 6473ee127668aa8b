"""Settings: one frozen object, read once from TOML and the environment and passed in.

Precedence, weakest first: the defaults here, the TOML file (`--config` or `WHITEROOM_CONFIG`, else
`whiteroom.toml` in the working directory), the environment (`WHITEROOM_<NAME>`), the command line.
`docs/settings.md` describes every one of them; a test fails when one is missing there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

PREFIX = "WHITEROOM_"


class SettingsError(ValueError):
    """A setting cannot be used; the message says which one, why, and what would do."""


@dataclass(frozen=True)
class Limits:
    """Floors, ceilings, quotas and noise. Counts unless a name says otherwise; a quota of 0 allows none.

    The `aws` preset carries the figures AWS publishes for Clean Rooms ML (quotas page, 2026). The `open`
    preset lowers the floors as far as privacy allows: see docs/settings.md for each one's reason.
    """

    min_users: int
    """Distinct users with at least two interactions that training data must hold."""
    min_interactions: int
    """Interactions that training data must hold."""
    max_interactions: int
    """Larger training data are sampled down to this many interactions."""
    max_users: int
    """Of more users, those with the most interactions are kept."""
    max_items: int
    """Of more items, the most popular are kept."""
    min_seed_ids: int
    """Distinct ids a seed must hold, and the least `minMatchingSeedSize` that is enforced."""
    max_seed_ids: int
    """Distinct ids a seed may hold."""
    max_seed_bytes: int
    """Size in bytes that a seed may have, whatever it holds."""
    min_export_users: int
    """Users that an exported audience must hold."""
    max_percentage_bin: int
    """Largest audience size bin, in percent of the model's users."""
    metrics_epsilon: float
    """Privacy loss of the metrics and of the check of matches in a job across accounts; 0 adds no noise."""
    max_pending_audience_models: int
    max_pending_generation_jobs: int
    max_pending_export_jobs: int
    max_exports_per_job: int
    max_training_datasets: int
    max_audience_models: int
    max_configured_audience_models: int


PRESETS: dict[str, Limits] = {
    "aws": Limits(
        min_users=100_000,
        min_interactions=1_000_000,
        max_interactions=20_000_000_000,
        max_users=100_000_000,
        max_items=1_000_000,
        min_seed_ids=25,
        max_seed_ids=500_000,
        max_seed_bytes=1_000_000_000,
        min_export_users=10_000,
        max_percentage_bin=20,
        metrics_epsilon=0.0,
        max_pending_audience_models=2,
        max_pending_generation_jobs=10,
        max_pending_export_jobs=20,
        max_exports_per_job=25,
        max_training_datasets=500,
        max_audience_models=500,
        max_configured_audience_models=10_000,
    ),
    "open": Limits(
        min_users=100,
        min_interactions=1_000,
        max_interactions=20_000_000_000,
        max_users=100_000_000,
        max_items=1_000_000,
        min_seed_ids=25,
        max_seed_ids=500_000,
        max_seed_bytes=1_000_000_000,
        min_export_users=25,
        max_percentage_bin=20,
        metrics_epsilon=2.0,
        max_pending_audience_models=100,
        max_pending_generation_jobs=1_000,
        max_pending_export_jobs=1_000,
        max_exports_per_job=25,
        max_training_datasets=10_000,
        max_audience_models=10_000,
        max_configured_audience_models=10_000,
    ),
}


@dataclass(frozen=True)
class Settings:
    """Everything a server, a worker or a job's child process needs to know. Secrets are kept out of `repr`."""

    data_dir: Path = Path("whiteroom-data")
    """Directory of the database, the keys, the buckets and the artifacts. One server at a time."""
    host: str = "127.0.0.1"
    """Address the API and the embedded S3 endpoint listen on."""
    port: int = 8080
    """Port of the API; 0 takes a free one."""
    s3_port: int = 9000
    """Port of the embedded S3 endpoint; 0 takes a free one, -1 starts none."""
    database_url: str = ""
    """SQLAlchemy URL; empty means SQLite in the data directory."""
    workers: int = 2
    """Jobs that run at one time; 0 starts no worker."""
    limits_preset: str = "open"
    """`open` or `aws`."""
    limits: Limits = field(default_factory=lambda: PRESETS["open"])
    """The preset's limits with single ones replaced (`[limits]` in TOML, `WHITEROOM_LIMITS_<NAME>`)."""
    max_body_bytes: int = 4 * 1024 * 1024
    """Largest request body in bytes that the API reads; larger ones are answered 413."""
    lease_seconds: float = 10.0
    """How long a worker may be silent before its job is given to another."""
    max_attempts: int = 3
    """How often a job that crashes is tried."""
    job_memory_bytes: int = 0
    """Memory in bytes that one job's process may take; 0: the workers share out four fifths of the machine's."""
    server_key: str = field(default="", repr=False)
    """Base64 of 32 bytes that encrypt secrets at rest; empty means a key file in the data directory."""
    s3_endpoint_url: str = ""
    """S3 endpoint that holds the buckets; empty means the data directory."""
    s3_region: str = "us-east-1"
    """Region the S3 and Glue requests are signed for."""
    s3_access_key_id: str = ""
    """Access key id for `s3_endpoint_url`."""
    s3_secret_access_key: str = field(default="", repr=False)
    """Secret access key for `s3_endpoint_url`."""
    glue_endpoint_url: str = ""
    """AWS Glue endpoint that describes the tables; empty means the built-in catalog."""
    glue_access_key_id: str = ""
    """Access key id for `glue_endpoint_url`."""
    glue_secret_access_key: str = field(default="", repr=False)
    """Secret access key for `glue_endpoint_url`."""
    export_format: str = "jsonl"
    """Format of exported audiences: `jsonl` or `csv`."""
    random_state: int = 0
    """Seed of the lookalike engine's sampling: the same data and state give the same audiences."""
    spark_master: str = ""
    """Spark master on which audience models of many interactions are trained, such as `local[*]` or `spark://host:7077`
    (the extra `spark`, and Java). Its machines must see the data directory. Empty: never."""
    spark_from_interactions: int = 200_000_000
    """From so many interactions on, `spark_master` is used. Models with `kmsKeyArn` are never trained there: nothing of
    theirs may lie on a disk unencrypted."""

    @property
    def sqlalchemy_url(self) -> str:
        return self.database_url or f"sqlite:///{(self.data_dir / 'whiteroom.db').absolute()}"

    def to_environment(self) -> dict[str, str]:
        """The environment that makes another process of ours read these very settings."""
        flat = {k: v for k, v in _raw(self).items() if k != "limits"}
        flat |= {f"limits_{k}": v for k, v in asdict(self.limits).items()}
        return {PREFIX + k.upper(): str(v) for k, v in flat.items()} | {PREFIX + "CONFIG": os.devnull}


def load(environment: Mapping[str, str] | None = None, *, config: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings.

    Parameters
    ----------
    environment : where `WHITEROOM_*` are looked up; the process's own by default.
    config : the TOML file; without it `WHITEROOM_CONFIG`, else `whiteroom.toml` where it exists.
    overrides : values from the command line; None means not given.

    Raises
    ------
    SettingsError : an unknown name, a value of the wrong type, or one outside its range.
    """
    environment = os.environ if environment is None else environment
    named = {k.removeprefix(PREFIX).lower(): v for k, v in environment.items() if k.startswith(PREFIX)}
    named_config = named.pop("config", None)
    named.pop("data", None)  # WHITEROOM_DATA belongs to the tests and the benchmarks
    path = config or (Path(named_config) if named_config else None)
    values = _from_toml(path)
    values |= {k: (v, f"environment variable {PREFIX}{k.upper()}") for k, v in named.items()}
    values |= {k: (v, f"option --{k.replace('_', '-')}") for k, v in overrides.items() if v is not None}

    preset, where = values.get("limits_preset", ("open", ""))
    if preset not in PRESETS:
        raise SettingsError(f"{where}: limits_preset is {preset!r}; use one of {', '.join(PRESETS)}.")
    limit_names = {f"limits_{f.name}": f for f in fields(Limits)}
    known = {f.name: f for f in fields(Settings) if f.name != "limits"}
    taken: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for name, (value, source) in values.items():
        if name in limit_names:
            limit = limit_names[name].name
            limits[limit] = _convert(type(getattr(PRESETS[preset], limit)), value, source)
        elif name in known:
            taken[name] = _convert(type(known[name].default), value, source)
        else:
            raise SettingsError(f"{source}: there is no setting {name!r}; docs/settings.md lists them.")
    settings = replace(Settings(), **taken, limits=replace(PRESETS[preset], **limits))
    _check(settings)
    return settings


def _raw(settings: Settings) -> dict[str, Any]:
    return {f.name: getattr(settings, f.name) for f in fields(settings)}


def _from_toml(path: Path | None) -> dict[str, tuple[Any, str]]:
    if path is None:
        path = Path("whiteroom.toml")
        if not path.is_file():
            return {}
    try:
        document = tomllib.loads(path.read_text("utf-8")) if str(path) != os.devnull else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read the settings file {path}: {error}") from error
    limits = document.pop("limits", {})
    if not isinstance(limits, dict):
        raise SettingsError(f"{path}: limits must be a table, [limits].")
    flat = document | {f"limits_{k}": v for k, v in limits.items()}
    return {k: (v, f"{path}: {k}") for k, v in flat.items()}


_KINDS = {int: "a whole number", float: "a number", str: "a string", type(Path()): "a path"}


def _convert(kind: type, value: Any, source: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Path)):
        raise SettingsError(f"{source}: {value!r} is not {_KINDS[kind]}.")
    try:
        return Path(str(value)) if issubclass(kind, Path) else kind(value)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{source}: {value!r} is not {_KINDS[kind]}.") from error


def _check(settings: Settings) -> None:
    rules = (
        (settings.port in range(65536), "port must be 0 to 65535."),
        (settings.s3_port in range(-1, 65536), "s3_port must be -1 (none) to 65535."),
        (settings.workers >= 0, "workers must be 0 or more."),
        (settings.lease_seconds >= 0.5, "lease_seconds must be 0.5 or more."),
        (settings.max_attempts >= 1, "max_attempts must be 1 or more."),
        (settings.max_body_bytes >= 1024, "max_body_bytes must be 1024 or more."),
        (settings.job_memory_bytes >= 0, "job_memory_bytes must be 0 or more."),
        (settings.export_format in ("jsonl", "csv"), "export_format must be jsonl or csv."),
        (all(v >= 0 for v in asdict(settings.limits).values()), "limits must be 0 or more."),
        (1 <= settings.limits.max_percentage_bin <= 100, "limits.max_percentage_bin must be 1 to 100."),
        (
            settings.limits.metrics_epsilon == 0 or 0.01 <= settings.limits.metrics_epsilon <= 100,
            "limits.metrics_epsilon must be 0 (no noise) or 0.01 to 100.",
        ),
    )
    for holds, message in rules:
        if not holds:
            raise SettingsError(message)


def shown(settings: Settings) -> dict[str, str]:
    """Every setting as a person may see it: secrets only as `set` or `not set`."""
    flat = {f.name: (getattr(settings, f.name), f.repr) for f in fields(settings) if f.name != "limits"}
    flat |= {f"limits.{name}": (value, True) for name, value in asdict(settings.limits).items()}
    return {
        name: str(value) if visible else ("(set)" if value else "(not set)") for name, (value, visible) in flat.items()
    }
