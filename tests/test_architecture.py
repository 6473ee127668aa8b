"""The shape that ARCHITECTURE.md promises, read from the code: who imports whom, and what is imported late."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"
PACKAGE = SOURCE / "whiteroom"
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "wire": {"wire"},
    "store": {"store"},
    "jobs": {"jobs", "store", "config", "processes"},
    "data": {"data", "store", "config", "addresses"},
    "engines": {"engines"},
    "rooms": {"rooms", "wire", "store", "jobs", "data", "engines", "config"},
    "addresses": set(),
    "config": set(),
    "problems": set(),
    "processes": set(),
    "profiles": set(),
    "datadir": {"problems"},
}
"""What of ours a part may import. Not listed: the entry points, which may import everything."""

HEAVY = ("numpy", "pyarrow", "scipy", "implicit", "boto3", "botocore", "alembic", "pandas")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    """The modules that a tree imports, anywhere in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            names |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path: Path) -> None:
    part = part_of(path)
    if part not in MAY_IMPORT:
        return
    ours = {name.split(".")[1] for name in imported(ast.parse(path.read_text())) if name.startswith("whiteroom.")}
    known = {part_of(module) for module in MODULES}
    assert ours & known <= MAY_IMPORT[part] | {part}


def test_every_part_of_the_design_is_there() -> None:
    assert {"wire", "store", "jobs", "data", "engines", "rooms"} <= {part_of(path) for path in MODULES}


def test_rooms_reach_no_engine_before_a_job_runs() -> None:
    for path in (PACKAGE / "rooms").rglob("*.py"):
        tree = ast.parse(path.read_text())
        at_import = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
        assert not [name for name in imported(at_import) if name.startswith("whiteroom.engines")], path


def test_only_the_wire_reads_the_service_models() -> None:
    readers = {part_of(path) for path in MODULES if "whiteroom.wire.model" in imported(ast.parse(path.read_text()))}
    assert readers == {"wire"}


@pytest.mark.parametrize(
    "what",
    [
        "import whiteroom.cli, whiteroom.serve, whiteroom.registry, whiteroom.doctor, whiteroom.demo.run",
        "import whiteroom.rooms, whiteroom.wire.service, whiteroom.jobs.worker",
        "import whiteroom.data.files, whiteroom.data.keys, whiteroom.data.catalog, whiteroom.data.s3",
        "from whiteroom import app, config; from pathlib import Path; import tempfile\n"
        "settings = config.load({}, data_dir=Path(tempfile.mkdtemp()) / 'data')\n"
        "from whiteroom import datadir; datadir.prepare(settings.data_dir)\n"
        "import sys; database = app.open_database(settings, migrate=True); sys.modules.pop('alembic')\n"
        "room = app.build(settings, database); app.service(room, app.Keys(database, room.secrets), dict)",
    ],
    ids=["command line", "rooms and wire", "data", "the whole API"],
)
def test_nothing_heavy_is_imported_before_it_is_needed(what: str) -> None:
    program = f"{what}\nimport sys; print(*sorted(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_an_up_to_date_database_is_opened_without_alembic(tmp_path: Path) -> None:
    program = (
        "from whiteroom import app, config; from pathlib import Path; import sys\n"
        f"settings = config.load({{}}, data_dir=Path({str(tmp_path)!r}))\n"
        "app.open_database(settings, migrate=True).close(); print('alembic' in sys.modules)"
    )
    answers = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    assert answers == ["True", "False"]


def test_files_stay_short_enough_to_read() -> None:
    assert {str(p.relative_to(SOURCE)): n for p in MODULES if (n := len(p.read_text().splitlines())) > 400} == {}
