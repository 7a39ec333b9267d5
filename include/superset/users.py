"""The users that Superset starts with, each with a generated password; standard library only."""

from __future__ import annotations

ADMIN = "admin"
ANALYST = "analyst"
RESEARCHER = "researcher"
STAKEHOLDER = "stakeholder"
USERS = (ADMIN, ANALYST, RESEARCHER, STAKEHOLDER)


def password_name(user: str) -> str:
    """Name of the secret that holds the password of `user`."""
    return f"superset_{user}_password"
