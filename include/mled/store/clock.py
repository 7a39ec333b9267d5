"""The store's logical clock: triggers that stamp every row, whoever writes it.

The clock gives out integer microseconds UTC that never go back, even when the system's clock
does, in the order in which transactions commit. A row gets its stamp from a trigger, so a write
by any tool counts. A bulk writer may take one stamp for its whole transaction (`ticket`): rows
that carry it pass the triggers untouched, which more than halves the cost of a row.

The clock is open only between the taking of a ticket and the end of that transaction, and nobody
else can see it open; so no row can pass with a stamp that an extraction has already gone beyond.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from mled.store.schema import STAMPED

_NOW = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
SQLITE_TICK = f"UPDATE clock SET last_us = max(last_us + 1, {_NOW})"


def _match(table: Table, row: str) -> str:
    return " AND ".join(f'"{c.name}" = {row}."{c.name}"' for c in table.primary_key)


def _change(table: Table, row: str) -> str:
    """Note in `metric_change` that a trial's points changed; nothing for other tables."""
    if table.name != "metric":
        return ""
    return (
        f"INSERT INTO metric_change (trial_id, updated_at) "
        f"SELECT {row}.trial_id, last_us FROM clock WHERE true "
        "ON CONFLICT (trial_id) DO UPDATE SET updated_at = excluded.updated_at;"
    )


def sqlite_triggers() -> Iterator[tuple[str, str]]:
    """The name and the SQL of each trigger that a SQLite store has."""
    for table in STAMPED:
        t = table.name
        stamp = "(SELECT last_us FROM clock)"
        passes = "(SELECT last_us FROM clock WHERE is_open)"
        keys = [f'"{c.name}"' for c in table.primary_key]
        key_json = ", ".join(f"'{c.name}', OLD.\"{c.name}\"" for c in table.primary_key)
        yield (
            f"{t}_stamp_insert",
            f"AFTER INSERT ON {t} WHEN NEW.updated_at IS NOT {passes} BEGIN "
            f"{SQLITE_TICK}, is_open = 1; "
            f"UPDATE {t} SET updated_at = {stamp}, created_at = {stamp} "
            f"WHERE {_match(table, 'NEW')}; "
            f"UPDATE clock SET is_open = 0; {_change(table, 'NEW')} END",
        )
        yield (
            f"{t}_stamp_update",
            f"AFTER UPDATE ON {t} WHEN NEW.updated_at IS NOT {passes} BEGIN "
            f"{SQLITE_TICK}, is_open = 1; "
            f"UPDATE {t} SET updated_at = {stamp} WHERE {_match(table, 'NEW')}; "
            f"UPDATE clock SET is_open = 0; {_change(table, 'NEW')} END",
        )
        yield (
            f"{t}_keep_key",
            f"BEFORE UPDATE OF {', '.join(keys)} ON {t} "
            f"WHEN {' OR '.join(f'OLD.{k} IS NOT NEW.{k}' for k in keys)} BEGIN "
            f"SELECT RAISE(ABORT, 'the primary key of {t} never changes: "
            "insert a new row and delete the old one'); END",
        )
        yield (
            f"{t}_bury",
            f"AFTER DELETE ON {t} BEGIN {SQLITE_TICK}, is_open = 0; "
            f"INSERT INTO tombstone (table_name, key, updated_at) "
            f"SELECT '{t}', json_object({key_json}), last_us FROM clock; END",
        )
