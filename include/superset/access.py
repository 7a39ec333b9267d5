"""Who may do what in Superset: the roles, a user for each, and people who have not logged in.

A role's permissions are made exactly these at each bootstrap; further roles that an administrator
gives to a user stay.
"""

from __future__ import annotations

from collections.abc import Iterable

from superset import appbuilder, db, security_manager
from superset.connectors.sqla.models import SqlaTable
from superset.models.core import Database
from users import ADMIN, ANALYST, RESEARCHER, STAKEHOLDER
from werkzeug.security import check_password_hash, generate_password_hash

# Superset's name for the role of those who have not logged in.
PUBLIC = "Public"
ROLES = {ADMIN: "Admin", ANALYST: "Analyst", RESEARCHER: "Researcher", STAKEHOLDER: "Stakeholder"}

# Beyond seeing dashboards: the list of them, and one's own page.
_VIEWING = {
    ("menu_access", "Dashboards"),
    ("can_recent_activity", "Log"),
    ("can_read", "Tag"),
}
# A theme and a CSS template change what everybody sees.
_SHARED_LOOKS = {"Theme", "CssTemplate"}
# What SQL Lab offers for a query that deserves charts.
_SAVE_QUERY_AS_DATASET = {("can_write", "Dataset")}


def sync_builtin_roles() -> None:
    """Superset's own roles and all permissions that its views ask for."""
    appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()


def sync_roles(anonymous_dashboards: bool) -> None:
    """Make our roles what this module says; call it once the assets are imported."""
    database = db.session.query(Database).filter(Database.is_managed_externally).one()
    datasets = db.session.query(SqlaTable).filter(SqlaTable.is_managed_externally)
    mart = {("database_access", database.perm)}
    explore = {
        permission
        for permission in _permissions_of("Gamma")
        if not (permission[0] == "can_write" and permission[1] in _SHARED_LOOKS)
    }
    view = security_manager.PUBLIC_ROLE_PERMISSIONS | {
        ("datasource_access", dataset.perm) for dataset in datasets
    }
    sql = _permissions_of("sql_lab") | _SAVE_QUERY_AS_DATASET
    _grant(ROLES[ANALYST], explore | sql | mart)
    _grant(ROLES[RESEARCHER], explore | mart)
    _grant(ROLES[STAKEHOLDER], view | _VIEWING)
    _grant(PUBLIC, view if anonymous_dashboards else ())
    db.session.commit()


def repair_user(name: str, password: str) -> None:
    """Create the user `name`, or give it back its password, its role and its right to log in."""
    role = security_manager.find_role(ROLES[name]) or security_manager.add_role(ROLES[name])
    user = security_manager.find_user(name)
    if user is None:
        created = security_manager.add_user(
            name, "MLED", ROLES[name], f"{name}@localhost", role, password
        )
        if not created:
            raise RuntimeError(f"Superset could not create the user {name!r}; its log says why")
        return
    if not check_password_hash(user.password, password):
        user.password = generate_password_hash(password)
    if role not in user.roles:
        user.roles.append(role)
    user.active = True
    db.session.commit()


def _permissions_of(role: str) -> set[tuple[str, str]]:
    return {
        (entry.permission.name, entry.view_menu.name)
        for entry in security_manager.find_role(role).permissions
    }


def _grant(role_name: str, permissions: Iterable[tuple[str, str]]) -> None:
    role = security_manager.find_role(role_name) or security_manager.add_role(role_name)
    wanted = [
        security_manager.find_permission_view_menu(permission, view)
        for permission, view in sorted(permissions)
    ]
    role.permissions = [entry for entry in wanted if entry is not None]
