"""Generates the passwords and keys of a cluster, once, into a folder (deploy/secrets by default).

    python3 deploy/make_secrets.py [FOLDER]

A file that is there stays as it is, so you may put values of your own. Nothing needs to be
installed for this.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "include"))

from mled.secrets import create  # noqa: E402

# Name → bytes; as docker-compose.yml lists them.
SECRETS = {
    "airflow_admin_password": 16,
    "airflow_api_secret_key": 32,
    "airflow_database_password": 32,
    "airflow_fernet_key": 32,
    "airflow_jwt_secret": 64,
    "mled_database_password": 32,
    "postgres_password": 32,
    "redis_password": 32,
    "superset_admin_password": 16,
    "superset_analyst_password": 16,
    "superset_database_password": 32,
    "superset_guest_key": 32,
    "superset_researcher_password": 16,
    "superset_secret_key": 32,
    "superset_stakeholder_password": 16,
}
# What only a person can know: to be filled in for MLED_OBJECT_STORE, and not used without it.
S3_CONFIG = """\
# [default]
# endpoint_url = https://s3.example
# region = eu-central-1
# aws_access_key_id = ...
# aws_secret_access_key = ...
"""


def main() -> None:
    """Generate what is missing, and say where it lies."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else HERE / "secrets").absolute()
    for name, nbytes in SECRETS.items():
        create(folder / name, nbytes)
    if not (folder / "s3_config").exists():
        (folder / "s3_config").write_text(S3_CONFIG)
    for path in folder.iterdir():
        # The users of the containers read it through a mount of their own; on this machine nobody
        # else comes through the folder.
        path.chmod(0o444)
    print(f"{len(SECRETS)} passwords and keys are in {folder}")


if __name__ == "__main__":
    main()
