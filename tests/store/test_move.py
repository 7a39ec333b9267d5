"""A store moves from SQLite to PostgreSQL while it is written to, and nothing is lost."""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import sqlite3
import subprocess
import threading
import time

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from click.testing import CliRunner

import mled
from mled import cli
from mled import settings as settings_module
from mled.store import StoreError, changes, connect, migrate, move
from mled.store.experiments import Point
from mled.store.incoming import TABLES
from mled.store.schema import Attempt, Author, Base, Clock, Experiment, Metric, Trial
from mled.warehouse.extract import extract
from tests import postgres


@pytest.fixture
def settings(home):
    """Only SQLite's stores move."""
    return settings_module.load()


@pytest.fixture
def to(postgres_server):
    """The URL of an empty database."""
    return postgres.new_database(postgres_server)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(move, "CHUNK_ROWS", 40)
    monkeypatch.setattr(move, "IDLE_S", 0.05)


def fill(trials=30, points=20, name="study"):
    """Trials with all kinds of values, tags, notes, files and errors."""
    study = mled.experiment(name, dataset="d", model="m", author=f"Ada {name}", grid={"a": [1]})
    for number in range(trials):
        params = {"a": number, "big": 2**60 + number, "text": "ü\n'\"", "none": None, "on": True}
        with study.trial(params) as trial:
            for step in range(points):
                trial.log({"loss": math.nan if step % 3 else -math.inf, "ok": 0.1 + step}, step)
            trial.log({"word": "ä", "yes": True, "nothing": None, "minus": -0.0}, step=2**62)
            trial.tag("json", {"deep": [1, None, "x"], "ñ": 1e300})
            trial.note("a note\twith a tab \\N and \\.")
    return study


def contents(database):
    """Every row of every table, by table."""
    with database.read() as connection:
        return {t.name: sorted(map(repr, connection.execute(changes.rows(t)))) for t in TABLES}


def moved_settings(to):
    return settings_module.load(os.environ | {"MLED_STORE_URL": to})


def schema_of(url):
    plain = sa.make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    done = subprocess.run(
        [postgres.binaries() / "pg_dump", "--schema-only", "--restrict-key=x", plain],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def test_every_row_arrives_with_its_stamps_and_so_does_the_clock(settings, to, tmp_path):
    source = connect(settings)
    study = fill()
    with pytest.raises(ZeroDivisionError), study.trial({"a": "fails"}) as trial:
        (tmp_path / "model.bin").write_bytes(b"weights")
        trial.artifact(tmp_path / "model.bin")
        raise ZeroDivisionError
    study.register([Point({"a": "pending"})])
    with source.write() as connection:
        connection.execute(sa.delete(Trial).where(Trial.id.in_([3, 32])))
        connection.execute(sa.insert(Author).values(id=77, name="gone"))
        connection.execute(sa.delete(Author).where(Author.id == 77))
    before = contents(source)
    with source.read() as connection:
        clock = connection.execute(sa.select(Clock)).one()

    moved = move.move(settings, to)

    target = connect(moved_settings(to))
    assert contents(target) == before
    assert {name: digest.rows for name, digest in moved.tables.items()} == {
        name: len(rows) for name, rows in before.items()
    }
    assert target.identity() == clock.store_id
    with target.snapshot() as (connection, high):
        assert high == clock.last_us
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    with target.write() as connection:
        author = sa.insert(Author).values(name="new").returning(Author.id, Author.updated_at)
        id, stamp = connection.execute(author).one()
    assert id == 78
    assert stamp > clock.last_us


def test_the_new_store_has_the_schema_of_one_that_began_there(settings, to, postgres_server):
    connect(settings)
    fill(trials=2)
    move.move(settings, to)
    fresh = postgres.new_database(postgres_server)
    migrate(moved_settings(fresh))
    assert schema_of(to) == schema_of(fresh)


def test_a_text_with_nul_arrives_with_a_sign_in_its_place(settings, to):
    source = connect(settings)
    study = mled.experiment("study", dataset="d", model="m")
    with pytest.raises(ValueError), study.trial({}):
        raise ValueError("a\x00b")
    with source.write() as connection:
        connection.execute(sa.update(Attempt).values(error_message="a\x00b"))
    move.move(settings, to)
    with connect(moved_settings(to)).read() as connection:
        assert connection.execute(sa.select(Attempt.error_message)).scalar() == "a\u2400b"


def test_the_warehouse_goes_on_and_reads_only_what_is_new(settings, to):
    fill(trials=5)
    first = extract(settings)
    move.move(settings, to)
    after = moved_settings(to)
    assert extract(after) is None
    with connect(after).write() as connection:
        connection.execute(sa.insert(Author).values(name="new"))
        connection.execute(sa.delete(Trial).where(Trial.id == 2))
    second = extract(after)
    assert (second.low, second.store_id) == (first.high, first.store_id)
    changed = {name: (f.inserted, f.updated, f.deleted) for name, f in second.tables.items()}
    assert changed.pop("metric") == (0, 0, 44)
    assert changed.pop("author") == (1, 0, 0)
    assert changed.keys() == {"trial", "attempt", "hyperparameter", "tag", "note"}
    assert all(counts[:2] == (0, 0) for counts in changed.values())


def test_a_store_that_has_moved_refuses_every_writer_with_the_new_address(settings, to):
    study = fill(trials=1)
    late = study.trial({"late": 1}).__enter__()
    move.move(settings, to)
    late.log({"loss": 1.0})
    address = to.replace("+psycopg", "")
    message = f"the store has moved to {address}: set MLED_STORE_URL to it"
    for write in (
        lambda: late.flush(),
        lambda: study.trial({"new": 1}),
        lambda: migrate(settings),
        lambda: mled.experiment("other", dataset="d", model="m"),
    ):
        with pytest.raises(StoreError, match=message):
            write()
    path = settings.store.removeprefix("sqlite:///")
    for statement in ("UPDATE author SET name = 'x'", "DELETE FROM metric"):
        with (
            contextlib.closing(sqlite3.connect(path)) as foreign,
            pytest.raises(sqlite3.IntegrityError, match=message),
        ):
            foreign.execute(statement)
    with pytest.raises(StoreError, match=message):
        late.__exit__(None, None, None)
    assert len(mled.trials("study")) == 2  # it can still be read


def test_a_trial_that_ran_meanwhile_goes_on_in_the_new_store(settings, to, monkeypatch):
    study = mled.experiment("study", dataset="d", model="m")
    with pytest.raises(StoreError, match="has moved"), study.trial({"a": 1}) as trial:
        trial.log({"loss": 1.0}, step=0)
        trial.flush()
        assert move.move(settings, to).running == 1
        trial.log({"loss": 2.0}, step=1)
    monkeypatch.setenv("MLED_STORE_URL", to)
    study = mled.experiment("study", dataset="d", model="m")
    with study.trial({"a": 1}, resume=True) as again:
        again.log({"loss": 3.0})
    assert (again.id, again.attempt) == (trial.id, 2)
    assert mled.curves([trial.id]).value.tolist() == [1.0, 3.0]


def test_when_idle_waits_for_the_trials_that_run(settings, to):
    study = fill(trials=1)
    with study.trial({"slow": 1}) as trial:
        mover = threading.Thread(target=move.move, args=(settings, to), kwargs={"when_idle": True})
        mover.start()
        for step in range(20):
            trial.log({"loss": 1.0}, step=step)
            trial.flush()
            time.sleep(0.05)
        assert mover.is_alive()
    mover.join(30)
    with connect(moved_settings(to)).read() as connection:
        states = connection.execute(sa.select(Trial.state)).scalars().all()
    assert states == ["finished", "finished"]


def test_moving_again_when_all_is_done_changes_nothing(settings, to):
    fill(trials=1)
    move.move(settings, to)
    with connect(moved_settings(to)).write() as connection:
        connection.execute(sa.insert(Author).values(name="new"))
    before = contents(connect(moved_settings(to)))
    assert move.move(settings, to).tables == {}
    assert contents(connect(moved_settings(to))) == before


def test_a_moved_store_does_not_move_elsewhere(settings, to, postgres_server):
    fill(trials=1)
    move.move(settings, to)
    with pytest.raises(StoreError, match="the store has moved to"):
        move.move(settings, postgres.new_database(postgres_server))


def execute(url, *statements):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def test_a_database_that_holds_something_else_is_refused(settings, to, postgres_server, tmp_path):
    fill(trials=1)
    other = moved_settings(to)
    with connect(other).write() as connection:
        connection.execute(sa.insert(Author).values(name="somebody"))
    with pytest.raises(StoreError, match=r"holds another store \(.*\) with rows in author"):
        move.move(settings, to)
    foreign = postgres.new_database(postgres_server)
    execute(foreign, "CREATE TABLE dag (id int)")
    with pytest.raises(StoreError, match=r"already has tables \(dag"):
        move.move(settings, foreign)
    assert len(contents(connect(other))["author"]) == 1


def test_an_empty_store_is_taken_over(settings, to):
    connect(moved_settings(to))
    fill(trials=2)
    before = contents(connect(settings))
    move.move(settings, to)
    assert contents(connect(moved_settings(to))) == before


def test_what_cannot_be_moved_says_so(settings, to):
    connect(settings)
    with pytest.raises(StoreError, match="is not PostgreSQL"):
        move.move(settings, "sqlite:////tmp/other.db")
    with pytest.raises(StoreError, match="is not in SQLite"):
        move.move(moved_settings(to), to)
    with pytest.raises(StoreError, match="server cannot be reached"):
        move.move(settings, f"postgresql://nobody@127.0.0.1:{postgres.free_port()}/nowhere")


class Broken(Exception):
    pass


def break_off(monkeypatch, settings, to, method):
    """Run a move that ends with an error when it comes to `method` of the store to be."""

    def fail(*arguments):
        raise Broken

    with monkeypatch.context() as broken, pytest.raises(Broken):
        broken.setattr(f"mled.store.incoming.Incoming.{method}", fail)
        move.move(settings, to)


def test_a_half_filled_store_is_refused_by_all_but_its_own_move(
    settings, to, monkeypatch, tmp_path
):
    fill(trials=3)
    break_off(monkeypatch, settings, to, "apply")
    for opening in (connect, migrate):
        with pytest.raises(StoreError, match="`mled store move` was filling it"):
            opening(moved_settings(to))
    other = settings_module.load({"MLED_HOME": str(tmp_path / "other")})
    with pytest.raises(StoreError, match="half filled from another store"):
        move.move(other, to)
    before = contents(connect(settings))
    move.move(settings, to)
    assert contents(connect(moved_settings(to))) == before


@pytest.mark.parametrize("method", ["add", "copied", "apply", "filled", "complete", "open"])
def test_a_move_that_was_broken_off_goes_on(settings, to, monkeypatch, method):
    fill(trials=3)
    break_off(monkeypatch, settings, to, method)
    if method != "open":  # then the old store is closed already
        fill(trials=3, name="later")
    before = contents(connect(settings))
    move.move(settings, to)
    assert contents(connect(moved_settings(to))) == before


def test_two_moves_at_once_are_one_too_many(settings, to, monkeypatch):
    fill(trials=1)

    def second(*arguments):
        with pytest.raises(StoreError, match="being filled by another"):
            move.move(settings, to)
        raise Broken

    with monkeypatch.context() as patched, pytest.raises(Broken):
        patched.setattr("mled.store.incoming.Incoming.filled", second)
        move.move(settings, to)


def test_a_difference_is_found_and_the_old_store_stays(settings, to, monkeypatch):
    fill(trials=3)
    copied = move.Incoming.filled

    def tamper(incoming):
        copied(incoming)
        execute(to, "UPDATE metric SET number = number + 1e-12 WHERE name = 'ok' AND step = 7")

    monkeypatch.setattr("mled.store.incoming.Incoming.filled", tamper)
    with pytest.raises(StoreError, match="metric has 132 rows with the checksum"):
        move.move(settings, to)
    fill(trials=1, name="still in use")


def scribble(rng, database):
    """One random change, of the kinds that a careless copy would trip over."""
    with database.write() as connection:
        authors = connection.execute(sa.select(Author.id)).scalars().all()
        trials = connection.execute(sa.select(Trial.id)).scalars().all()
        name = f"author {rng.randrange(8)}"
        action = rng.randrange(7)
        if action == 0 or not authors or not trials:
            # A name passes from one row to another.
            connection.execute(
                sa.update(Author).where(Author.name == name).values(name=f"author {rng.random()}")
            )
            connection.execute(sa.insert(Author).values(name=name))
        elif action == 1:
            used = sa.select(Experiment.author_id)
            connection.execute(
                sa.delete(Author).where(Author.id == rng.choice(authors), Author.id.not_in(used))
            )
        elif action == 2:
            connection.execute(sa.delete(Trial).where(Trial.id == rng.choice(trials)))
        elif action == 3:
            connection.execute(
                sa.delete(Metric).where(
                    Metric.trial_id == rng.choice(trials), Metric.step == rng.randrange(20)
                )
            )
        else:
            rows = [(rng.choice(trials), "loss", rng.randrange(40), rng.random(), None)]
            with database.ticket(connection) as stamp:
                database.dialect.write_points(connection, rows, stamp)


def scribble_for_ever(seed):
    rng, database = random.Random(seed), connect()
    try:
        while True:
            study = mled.experiment("scribbles", dataset="d", model="m")
            study.register([Point({"a": rng.randrange(50)})])
            for _ in range(5):
                scribble(rng, database)
    except StoreError as error:
        os._exit(7 if "has moved" in str(error) else 1)


def forked(function, *arguments):
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def move_under_fire(settings, to, kills, seed):
    """Move while two processes write, killed at random moments; both stores are equal after."""
    connect(settings)
    fill(trials=12)
    connect(settings).engine.dispose()
    rng = random.Random(seed)
    writers = [forked(scribble_for_ever, rng.random()) for _ in range(2)]
    try:
        for _ in range(kills):
            mover = forked(move.move, settings, to)
            time.sleep(rng.uniform(0.05, 2.5))
            os.kill(mover, signal.SIGKILL)
            os.waitpid(mover, 0)
        move.move(settings, to)
        ended = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in writers]
        writers = []
    finally:
        for pid in writers:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    assert ended == [7, 7], seed
    assert contents(connect(settings)) == contents(connect(moved_settings(to))), seed
    assert connect(settings).identity() == connect(moved_settings(to)).identity()


def test_killed_at_random_moments_while_others_write(settings, to):
    move_under_fire(settings, to, kills=5, seed=random.randrange(10**6))


@pytest.mark.long
def test_killed_at_random_moments_many_times(home, postgres_server, monkeypatch, tmp_path):
    for number in range(20):
        monkeypatch.setenv("MLED_HOME", str(tmp_path / f"home {number}"))
        to = postgres.new_database(postgres_server)
        move_under_fire(settings_module.load(), to, kills=6, seed=random.randrange(10**6))


def test_the_command_says_what_it_did_and_what_is_left_to_do(settings, to):
    fill(trials=3)
    done = CliRunner().invoke(cli.mled, ["store", "move", "--to", to])
    assert done.exit_code == 0, done.output
    address = to.replace("+psycopg", "")
    assert "copy metric" in done.output and "132 rows" in done.output
    assert f"export MLED_STORE_URL='{address}'" in done.output
    assert "make down && make up" in done.output
    again = CliRunner().invoke(cli.mled, ["store", "move", "--to", to])
    assert again.exit_code == 0
    assert f"The store is in {address} now." in again.output


def test_a_password_is_never_shown(settings):
    fill(trials=1)
    with pytest.raises(StoreError) as error:
        move.move(settings, f"postgresql://me:secret@127.0.0.1:{postgres.free_port()}/x")
    assert "secret" not in str(error.value)
    assert "***" in move.what_next(settings, "postgresql://me:secret@h/x", move.Moved({}, 0, 0))


def test_a_secret_of_the_settings_may_stand_in_the_url(settings, to):
    fill(trials=1)
    settings.secrets.mkdir()
    (settings.secrets / "user").write_text("mled")
    with_name = to.replace("+psycopg://mled@", "://{user}@")
    moved = move.move(settings, with_name)
    assert f"MLED_STORE_URL='{with_name}'" in move.what_next(settings, with_name, moved)
    with pytest.raises(StoreError, match=r"moved to postgresql://\{user\}@"):
        fill(trials=1)
