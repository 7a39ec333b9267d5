"""The entity-relationship diagram of the store, made from its models."""

from __future__ import annotations

from mled.store.schema import Base

# The clock's stamps are on every table; they would hide the rest.
_LEFT_OUT = {"created_at", "updated_at"}


def mermaid() -> str:
    """The diagram in Mermaid's notation: tables, columns, keys, and what refers to what."""
    lines = ["erDiagram"]
    for table in Base.metadata.sorted_tables:
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
            optional = "|o" if key.parent.nullable else "||"
            lines.append(f"    {key.column.table.name} {optional}--o{{ {table.name} : {_role(key)}")
    for table in Base.metadata.sorted_tables:
        lines.append(f"    {table.name} {{")
        for column in table.columns:
            if column.name in _LEFT_OUT:
                continue
            kind = column.type.__class__.__name__.lower()
            keys = [
                name
                for name, holds in (("PK", column.primary_key), ("FK", column.foreign_keys))
                if holds
            ]
            lines.append(f"        {kind} {column.name} {', '.join(keys)}".rstrip())
        lines.append("    }")
    return "\n".join(lines) + "\n"


def _role(key) -> str:
    return key.parent.name.removesuffix("_id")
