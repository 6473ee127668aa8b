"""Settings: documented to the last one, read in the documented order, refused clearly."""

from __future__ import annotations

import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from whiteroom import config
from whiteroom.config import PRESETS, Limits, Settings, SettingsError

PAGE = (Path(__file__).parent.parent / "docs" / "settings.md").read_text("utf-8")
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]
DOCUMENTED = {row[0].strip("`"): row[1:] for row in ROWS}
NAMES = [f.name for f in fields(Settings) if f.name != "limits"]
LIMITS = [f.name for f in fields(Limits)]


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_is_documented_with_its_environment_name_and_default(name: str) -> None:
    environment, default, meaning = DOCUMENTED[name]
    assert environment == f"`WHITEROOM_{name.upper()}`"
    assert default == (f"`{getattr(Settings(), name)}`" if getattr(Settings(), name) != "" else "empty")
    assert meaning


@pytest.mark.parametrize("name", LIMITS)
def test_every_limit_is_documented_with_its_figures_in_both_presets(name: str) -> None:
    environment, of_open, of_aws, meaning = DOCUMENTED[name]
    assert environment == f"`WHITEROOM_LIMITS_{name.upper()}`"
    assert int(of_open) == getattr(PRESETS["open"], name)
    assert int(of_aws) == getattr(PRESETS["aws"], name)
    assert meaning


def test_nothing_is_documented_that_does_not_exist() -> None:
    assert sorted(DOCUMENTED) == sorted(NAMES + LIMITS)
    assert len(ROWS) == len(DOCUMENTED)


@pytest.mark.parametrize("name", [n for n in LIMITS if n.startswith("min_")])
def test_every_floor_has_a_reason_that_names_both_figures(name: str) -> None:
    reason = re.search(rf"- \*\*`{name}`\*\* \((?P<figures>[^)]*)\)", PAGE)
    assert reason, f"{name} is a floor and docs/settings.md gives no reason for its figure"
    ours, theirs = getattr(PRESETS["open"], name), getattr(PRESETS["aws"], name)
    expected = f"{ours:,} in both" if ours == theirs else f"{ours:,} instead of {theirs:,}"
    assert reason["figures"] == expected


def test_the_command_line_wins_over_the_environment_over_the_file_over_the_default(tmp_path: Path) -> None:
    file = tmp_path / "whiteroom.toml"
    file.write_text("port = 1\nworkers = 1\nhost = '1.1.1.1'\n")
    environment = {"WHITEROOM_PORT": "2", "WHITEROOM_WORKERS": "2"}
    settings = config.load(environment, config=file, port=3)
    assert (settings.port, settings.workers, settings.host) == (3, 2, "1.1.1.1")
    assert settings.s3_port == Settings().s3_port


def test_an_option_that_was_not_given_changes_nothing() -> None:
    assert config.load({"WHITEROOM_PORT": "2"}, port=None).port == 2


def test_the_file_is_the_option_then_the_variable_then_the_one_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("whiteroom.toml").write_text("port = 1")
    Path("named.toml").write_text("port = 2")
    Path("given.toml").write_text("port = 3")
    named = {"WHITEROOM_CONFIG": "named.toml"}
    assert config.load({}).port == 1
    assert config.load(named).port == 2
    assert config.load(named, config=Path("given.toml")).port == 3


def test_a_preset_is_chosen_and_single_limits_replaced(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("limits_preset = 'aws'\n[limits]\nmin_users = 7\nmin_seed_ids = 30\n")
    limits = config.load({"WHITEROOM_LIMITS_MIN_SEED_IDS": "40"}, config=file).limits
    assert (limits.min_users, limits.min_seed_ids) == (7, 40)
    assert limits.max_pending_audience_models == PRESETS["aws"].max_pending_audience_models


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"WHITEROOM_PROT": "80"}, "WHITEROOM_PROT: there is no setting 'prot'"),
        ({"WHITEROOM_PORT": "eighty"}, "WHITEROOM_PORT: 'eighty' is not a whole number"),
        ({"WHITEROOM_PORT": "65536"}, "port must be 0 to 65535"),
        ({"WHITEROOM_S3_PORT": "-2"}, "s3_port must be -1"),
        ({"WHITEROOM_WORKERS": "-1"}, "workers must be 0 or more"),
        ({"WHITEROOM_LEASE_SECONDS": "0.1"}, "lease_seconds must be 0.5"),
        ({"WHITEROOM_LEASE_SECONDS": "nan"}, "lease_seconds must be 0.5"),
        ({"WHITEROOM_MAX_ATTEMPTS": "0"}, "max_attempts must be 1"),
        ({"WHITEROOM_EXPORT_FORMAT": "xml"}, "export_format must be jsonl or csv"),
        ({"WHITEROOM_LIMITS_PRESET": "mine"}, "use one of aws, open"),
        ({"WHITEROOM_LIMITS_MIN_USERS": "-1"}, "limits must be 0 or more"),
        ({"WHITEROOM_LIMITS_MAX_PERCENTAGE_BIN": "101"}, "max_percentage_bin must be 1 to 100"),
        ({"WHITEROOM_LIMITS_MIN_COATS": "1"}, "there is no setting 'limits_min_coats'"),
        ({"WHITEROOM_CONFIG": "no-such.toml"}, "cannot read the settings file no-such.toml"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(environment: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError) as refused:
        config.load(environment)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("port = true", "port: True is not a whole number"),
        ("port = [1]", "port: [1] is not a whole number"),
        ("limits = 3", "limits must be a table"),
        ("port = ", "cannot read the settings file"),
        ("ports = 1", "there is no setting 'ports'"),
    ],
)
def test_a_bad_file_is_refused_with_its_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        config.load({}, config=file)
    assert told in str(refused.value)
    assert str(file) in str(refused.value)


def test_another_process_reads_the_very_same_settings(tmp_path: Path) -> None:
    limits = Limits(**{name: number for number, name in enumerate(LIMITS, 1)})
    settings = Settings(data_dir=tmp_path, port=1, database_url="sqlite:///x", limits=limits, lease_seconds=1.5)
    assert config.load(settings.to_environment()) == settings


def test_secrets_are_shown_nowhere() -> None:
    secret = {"server_key": "s3cret-a", "s3_secret_access_key": "s3cret-b", "glue_secret_access_key": "s3cret-c"}
    settings = Settings(**secret)
    assert "s3cret" not in repr(settings)
    assert "s3cret" not in str(config.shown(settings))
    assert config.shown(settings)["server_key"] == "(set)"
    assert set(config.shown(settings)) == {*NAMES, *(f"limits.{name}" for name in asdict(settings.limits))}
