"""Transactions and migrations, on both databases."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from whiteroom.store import migrations, schema
from whiteroom.store.database import Database, Stale
from whiteroom.store.migrations import SchemaTooNew


@pytest.fixture
def empty(database_url):
    database = Database(database_url)
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE number (value INTEGER NOT NULL)")
        tx.exec_driver_sql("INSERT INTO number VALUES (0)")
    yield database
    database.close()


def number(database):
    with database.read() as tx:
        return tx.exec_driver_sql("SELECT value FROM number").scalar_one()


def test_a_write_that_raises_leaves_no_trace(empty):
    def fail():
        with empty.write() as tx:
            tx.exec_driver_sql("UPDATE number SET value = 7")
            raise KeyError("later")

    with pytest.raises(KeyError):
        fail()
    assert number(empty) == 0


def test_a_read_transaction_refuses_to_write(empty):
    with pytest.raises(DBAPIError, match=r"readonly|read-only"), empty.read() as tx:
        tx.exec_driver_sql("UPDATE number SET value = 7")
    assert number(empty) == 0


def test_a_reader_does_not_wait_for_a_writer(empty):
    with empty.write() as tx:
        tx.exec_driver_sql("UPDATE number SET value = 7")
        assert number(empty) == 0
    assert number(empty) == 7


def test_one_sqlite_read_transaction_sees_one_moment(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE number (value INTEGER)")
    with database.read() as tx:
        before = tx.exec_driver_sql("SELECT count(*) FROM number").scalar_one()
        with database.write() as other:
            other.exec_driver_sql("INSERT INTO number VALUES (1)")
        assert tx.exec_driver_sql("SELECT count(*) FROM number").scalar_one() == before
    database.close()


def test_writers_of_many_threads_wait_their_turn(empty):
    def add_one(_):
        with empty.write() as tx:
            tx.exec_driver_sql("UPDATE number SET value = value + 1")

    with ThreadPoolExecutor(40) as threads:
        list(threads.map(add_one, range(200)))
    assert number(empty) == 200


def test_sqlite_commits_are_durable_and_foreign_keys_hold(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/x.db")
    with database.write() as tx:
        assert tx.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert tx.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert tx.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    database.close()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_other_processes_cannot_see_is_refused(url):
    with pytest.raises(ValueError, match="name a file"):
        Database(url)


def test_settle_repeats_a_change_that_lost_a_race(empty):
    tries = []

    def change(tx):
        tries.append(1)
        tx.exec_driver_sql("UPDATE number SET value = value + 1")
        if len(tries) < 3:
            raise Stale("lost")
        return "done"

    assert empty.settle(change, patience_seconds=5) == "done"
    assert (len(tries), number(empty)) == (3, 1)


def test_settle_gives_up_with_the_last_error_when_its_patience_ends(empty):
    def change(_tx):
        raise OperationalError("SELECT 1", {}, Exception("the server is away"))

    with pytest.raises(OperationalError, match="the server is away"):
        empty.settle(change, patience_seconds=0.1)


def test_settle_does_not_repeat_what_is_wrong_in_itself(empty):
    tries = []

    def change(_tx):
        tries.append(1)
        raise KeyError("wrong")

    with pytest.raises(KeyError):
        empty.settle(change, patience_seconds=5)
    assert len(tries) == 1


def test_the_pulse_of_a_file_stays_while_nobody_commits_and_changes_when_another_process_does(tmp_path):
    url = f"sqlite:///{tmp_path}/x.db"
    database = Database(url)
    database.migrate()
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE number (value INTEGER)")
    before = database.pulse()
    with database.read() as tx:
        tx.exec_driver_sql("SELECT * FROM number").all()
    assert database.pulse() == before
    program = f"""
from whiteroom.store.database import Database
with Database({url!r}).write() as tx:
    tx.exec_driver_sql("INSERT INTO number VALUES (1)")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert database.pulse() not in (None, before)
    database.close()


def test_connections_outlive_a_restart_of_the_server(postgresql):
    database = Database(postgresql.new_database())
    with database.write() as tx:
        tx.exec_driver_sql("CREATE TABLE number (value INTEGER)")
    with database.read():
        pass
    postgresql.kill()
    with pytest.raises(OperationalError), database.read() as tx:
        tx.exec_driver_sql("SELECT 1")
    postgresql.start()
    with database.read() as tx, database.write() as other:
        assert tx.exec_driver_sql("SELECT count(*) FROM number").scalar() == 0
        other.exec_driver_sql("INSERT INTO number VALUES (1)")
    database.close()


# --- migrations ----------------------------------------------------------------------------------------


def described(database):
    """Every fact of the tables that the database itself can tell."""
    with database.read() as tx:
        inspector = inspect(tx)
        names = sorted(set(inspector.get_table_names()) - {"alembic_version"})
        facts = {}
        for name in names:
            columns = [
                (c["name"], str(c["type"]), c["nullable"], c.get("default"), c.get("autoincrement"))
                for c in inspector.get_columns(name)
            ]
            facts[name] = {
                "columns": sorted(columns),
                "primary key": inspector.get_pk_constraint(name),
                "foreign keys": sorted(map(str, inspector.get_foreign_keys(name))),
                "unique": sorted(map(str, inspector.get_unique_constraints(name))),
                "indexes": sorted(map(str, inspector.get_indexes(name))),
                "checks": sorted(map(str, inspector.get_check_constraints(name))),
                "options": inspector.get_table_options(name),
            }
        if database.is_sqlite:
            rows = tx.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql LIKE '%AUTOINCREMENT%'")
            facts["never reuse a key"] = sorted(row[0] for row in rows)
        return facts


def test_the_migrations_make_exactly_the_tables_of_the_schema(database, postgresql, tmp_path):
    other = Database(f"sqlite:///{tmp_path}/created.db" if database.is_sqlite else postgresql.new_database())
    with other.write() as tx:
        schema.metadata.create_all(tx)
    assert described(database) == described(other)
    assert set(described(database)) >= set(schema.metadata.tables)
    with database.write() as tx:
        context = MigrationContext.configure(tx, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    other.close()


def test_head_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


def test_migrating_again_changes_nothing(database):
    before = described(database)
    database.migrate()
    assert described(database) == before


def test_processes_may_migrate_at_the_same_time(database_url):
    program = f"from whiteroom.store.database import Database; Database({database_url!r}).migrate()"
    processes = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    database = Database(database_url)
    assert set(described(database)) >= set(schema.metadata.tables)
    database.close()


def test_a_database_of_a_newer_version_is_refused_and_left_alone(database):
    with database.write() as tx:
        tx.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaTooNew, match="9999"):
        database.migrate()
    with database.read() as tx:
        assert migrations.version(tx) == "9999"


def test_starting_on_a_migrated_database_imports_no_alembic(database, database_url):
    program = f"""
import sys
from whiteroom.store.database import Database
Database({database_url!r}).migrate()
print([name for name in sys.modules if name.split(".")[0] in ("alembic", "mako")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_threads_that_read_never_see_half_of_a_write(empty):
    torn = []
    stop = threading.Event()

    def watch():
        while not stop.is_set():
            with empty.read() as tx:
                rows = {row[0] for row in tx.exec_driver_sql("SELECT value FROM number")}
                if len(rows) != 1:
                    torn.append(rows)

    with empty.write() as tx:
        tx.exec_driver_sql("INSERT INTO number VALUES (0)")
    threads = [threading.Thread(target=watch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for value in range(1, 30):
        with empty.write() as tx:
            for _ in range(2):
                tx.exec_driver_sql(f"UPDATE number SET value = {value}")
    stop.set()
    for thread in threads:
        thread.join()
    assert torn == []
