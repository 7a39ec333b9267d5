"""The clock stamps what any tool writes, in commit order, and never goes back."""

import json
import threading
import time

import pytest
import sqlalchemy as sa

from mled.store.experiments import Point, experiment
from mled.store.schema import Author, Metric, MetricChange, Tombstone


class Foreign:
    """Another tool with a connection of its own, which knows nothing of the clock."""

    def __init__(self, database):
        engine = sa.create_engine(database.url, isolation_level="AUTOCOMMIT")
        self.connection = engine.connect()
        self.database = database
        if engine.dialect.name == "sqlite":
            self.execute("PRAGMA foreign_keys = ON")

    def execute(self, statement, **values):
        return self.connection.execute(sa.text(statement), values)

    def now(self):
        with self.database.read() as connection:
            return self.database.dialect.high(connection)

    def stamps(self, table="author"):
        rows = self.execute(f"SELECT updated_at FROM {table} ORDER BY 1")
        return list(rows.scalars())


@pytest.fixture
def foreign(database):
    tool = Foreign(database)
    yield tool
    tool.connection.close()


@pytest.fixture
def trial_id(database):
    made = experiment("e", dataset="d", model="m", points=[Point({"a": 1})], database=database)
    return made.trial_ids[0]


def test_every_write_of_a_foreign_tool_gets_its_own_stamp(foreign):
    foreign.execute("INSERT INTO author (name) VALUES ('a'), ('b'), ('c')")
    first = foreign.stamps()
    assert len(set(first)) == 3
    assert abs(first[-1] / 1e6 - time.time()) < 5
    # The row that was stamped last is the one that a careless trigger would pass over.
    foreign.execute("UPDATE author SET name = 'd' WHERE name = 'c'")
    foreign.execute("UPDATE author SET name = 'e' WHERE name = 'd'")
    assert foreign.stamps()[-1] == foreign.now() >= first[-1] + 2


def test_a_stamp_that_a_writer_makes_up_is_replaced(foreign):
    for stamp in (7, foreign.now(), 2**62):
        foreign.execute(
            "INSERT INTO author (name, updated_at) VALUES (:n, :s)", n=str(stamp), s=stamp
        )
        assert foreign.stamps()[-1] == foreign.now() < 2**60
    foreign.execute("UPDATE author SET updated_at = :s", s=2**62)
    assert max(foreign.stamps()) == foreign.now() < 2**60


def test_the_clock_never_goes_back_with_the_systems(foreign):
    future = time.time_ns() // 1000 + 10**12
    foreign.execute(
        "UPDATE clock SET last_us = :t"
        if foreign.connection.dialect.name == "sqlite"
        else "SELECT setval('mled_clock', :t)",
        t=future,
    )
    foreign.execute("INSERT INTO author (name) VALUES ('a')")
    assert foreign.stamps() == [future + 1]


def test_a_delete_leaves_a_tombstone_and_so_do_the_rows_under_it(foreign, database, trial_id):
    foreign.execute(
        "INSERT INTO metric (trial_id, name, step, number) VALUES (:t, 'loss', 0, 1), "
        "(:t, 'loss', 1, NULL)",
        t=trial_id,
    )
    before = foreign.now()
    foreign.execute("DELETE FROM trial WHERE id = :t", t=trial_id)
    with database.read() as connection:
        buried = connection.execute(sa.select(Tombstone.table_name, Tombstone.key)).all()
        assert connection.execute(sa.select(sa.func.min(Tombstone.updated_at))).scalar() > before
    keys = sorted((table, sorted(json.loads(key).items())) for table, key in buried)
    assert keys == [
        ("hyperparameter", [("name", "a"), ("trial_id", trial_id)]),
        ("metric", [("name", "loss"), ("step", 0), ("trial_id", trial_id)]),
        ("metric", [("name", "loss"), ("step", 1), ("trial_id", trial_id)]),
        ("trial", [("id", trial_id)]),
    ]


def test_a_primary_key_never_changes(foreign):
    foreign.execute("INSERT INTO author (name) VALUES ('a')")
    with pytest.raises(sa.exc.IntegrityError, match="primary key of author never changes"):
        foreign.execute("UPDATE author SET id = 7")


def test_points_of_a_foreign_tool_are_noted_for_the_extraction(foreign, database, trial_id):
    foreign.execute("INSERT INTO metric (trial_id, name, step) VALUES (:t, 'loss', 0)", t=trial_id)
    foreign.execute("UPDATE metric SET number = 3")
    with database.read() as connection:
        change = connection.execute(sa.select(MetricChange)).one()
        assert change.updated_at == connection.execute(sa.select(Metric.updated_at)).scalar()


def test_a_ticket_gives_its_rows_one_stamp_and_is_closed_after(database, foreign, trial_id):
    rows = [(trial_id, "loss", step, 0.5, None) for step in range(3)]
    with database.write() as connection, database.ticket(connection) as stamp:
        database.dialect.write_points(connection, rows, stamp)
    with database.read() as connection:
        assert connection.execute(sa.select(Metric.updated_at)).scalars().all() == [stamp] * 3
        assert connection.execute(sa.select(MetricChange.updated_at)).scalar() == stamp
    foreign.execute("UPDATE metric SET number = 1 WHERE step = 2")
    assert foreign.stamps("metric")[-1] > stamp


def test_a_ticket_of_a_transaction_that_fails_leaves_the_clock_closed(database, foreign):
    with (
        pytest.raises(ZeroDivisionError),
        database.write() as connection,
        database.ticket(connection),
    ):
        raise ZeroDivisionError
    foreign.execute("INSERT INTO author (name) VALUES ('after')")
    assert foreign.stamps() == [foreign.now()]


def test_writes_inside_a_ticket_that_do_not_carry_it_are_stamped_too(database, trial_id):
    with database.write() as connection, database.ticket(connection) as stamp:
        connection.execute(sa.insert(Author).values(name="new"))
        database.dialect.write_points(connection, [(trial_id, "loss", 0, 1.0, None)], stamp)
    with database.read() as connection:
        author = sa.select(Author.updated_at).where(Author.name == "new")
        assert connection.execute(author).scalar() > stamp
        assert connection.execute(sa.select(Metric.updated_at)).scalar() >= stamp


def test_a_reader_of_windows_misses_nothing_and_sees_nothing_twice(database):
    """Four writers, one of them slow, while windows (low, high] are read one after the other."""
    stop = time.monotonic() + 2
    seen: list[int] = []

    def write(worker):
        count = 0
        while time.monotonic() < stop:
            with database.write() as connection:
                connection.execute(sa.insert(Author).values(name=f"{worker}-{count}"))
                if worker == 0:
                    time.sleep(0.02)
            count += 1

    def read(low):
        with database.snapshot() as (connection, high):
            window = sa.select(Author.id).where(Author.updated_at > low, Author.updated_at <= high)
            seen.extend(connection.execute(window).scalars())
        return high

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    low = 0
    while any(thread.is_alive() for thread in threads):
        low = read(low)
        time.sleep(0.005)
    read(low)
    with database.read() as connection:
        everything = connection.execute(sa.select(Author.id)).scalars().all()
    assert len(everything) > 20
    assert sorted(seen) == sorted(everything)


def test_a_window_ends_below_a_transaction_that_is_under_way(database, settings):
    """Only where writers run side by side: one is slow, another commits a later stamp first."""
    if settings.store.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")

    def window(low):
        with database.snapshot() as (connection, high):
            picked = sa.select(Author.name).where(
                Author.updated_at > low, Author.updated_at <= high
            )
            return set(connection.execute(picked).scalars()), high

    with database.write() as slow:
        slow.execute(sa.insert(Author).values(name="slow"))
        with database.write() as quick:
            quick.execute(sa.insert(Author).values(name="quick"))
        names, high = window(0)
        assert names == set()
    assert window(high)[0] == {"slow", "quick"}


def test_a_late_announcement_does_not_make_a_window_go_back(database, settings):
    """A writer announces a value that was the clock's before an extraction went beyond it."""
    if settings.store.startswith("sqlite"):
        pytest.skip("SQLite has one writer at a time")
    with database.snapshot() as (_, early):
        pass
    with database.write() as connection:
        connection.execute(sa.insert(Author).values(name="a"))
    with database.snapshot() as (_, high):
        assert high > early
    with database.write() as late:
        late.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(early)))
        with database.snapshot(high) as (_, again):
            assert again == high
    with database.snapshot(high + 10**12) as (_, gone_back):
        assert gone_back < high + 10**12
