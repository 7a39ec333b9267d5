"""What containers are made and run from: valid, pinned, and at one with the code."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import yaml

from mled import install, settings
from mled.settings import ROOT
from tests.deploy import dockerfile, engine

KUBERNETES = ROOT / "deploy" / "kubernetes"
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
COMPOSE = engine.load({})
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


@pytest.fixture
def make_secrets(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "deploy"))
    import make_secrets

    return make_secrets


def test_the_compose_file_is_what_the_specification_asks_for():
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*checker, str(engine.FILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_has_no_fault_that_is_known(path):
    linter = ROOT / ".venv" / "bin" / "hadolint"
    done = subprocess.run(
        [linter, "--failure-threshold", "warning", str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_versions_are_those_of_the_locks():
    airflow, superset = (dockerfile.read(path) for path in DOCKERFILES)
    lock = install.LOCKS[install.MAIN].read_text()
    version = re.search(r"(?m)^apache-airflow==(.+)$", lock)[1]
    assert airflow.base == f"apache/airflow:slim-{version}-python3.11"
    assert superset.base.startswith("python:3.11.")
    for image in (airflow, superset):
        assert install.UV in " ".join(rest for step, rest in image.steps if step == "RUN")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_pinned_limited_watched_and_not_root(name):
    service = SERVICES[name]
    if name in OURS:
        image = dockerfile.read(ROOT / service["build"]["dockerfile"])
        assert [rest for step, rest in image.steps if step == "USER"][-1] == "50000"
    else:
        assert re.search(r":\d+\.\d+", service["image"])
        assert service["user"] not in ("root", "0")
    assert service["cap_drop"] == ["ALL"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    ends_by_itself = name in ("init", "demo")
    assert ends_by_itself or "healthcheck" in service
    assert ends_by_itself or service["restart"] == "unless-stopped"
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_every_secret_is_generated_and_given_to_a_service(make_secrets):
    names = {*make_secrets.SECRETS, "s3_config"}
    assert set(COMPOSE["secrets"]) == names
    assert {s for service in SERVICES.values() for s in service.get("secrets", [])} == names
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"deploy/secrets/{name}"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_has_the_secrets_that_its_settings_name(name):
    service = SERVICES[name]
    named = set(re.findall(r"\{(\w+)\}", " ".join(map(str, service["environment"].values()))))
    unused = {"superset_database_password"} if service["image"].startswith("mled-airflow") else {
        "airflow_database_password", "mled_database_password", "redis_password"
    }  # fmt: skip
    assert named - unused <= set(service["secrets"])


@pytest.mark.parametrize("name", OURS)
def test_a_service_s_environment_holds_settings_that_exist(name):
    known = {settings.variable(field) for field in dataclasses.fields(settings.Settings)}
    given = {key: str(value) for key, value in SERVICES[name]["environment"].items()}
    assert given.pop("AWS_CONFIG_FILE") == "/run/secrets/s3_config"
    assert given.keys() <= known
    settings.load(given)


def test_pods_start_what_containers_start():
    values = yaml.safe_load((KUBERNETES / "airflow.yaml").read_text())
    for key, name in (
        ("apiServer", "api-server"),
        ("scheduler", "scheduler"),
        ("dagProcessor", "dag-processor"),
        ("triggerer", "triggerer"),
        ("migrateDatabaseJob", "init"),
    ):
        assert values[key]["args"] == SERVICES[name]["command"]
        if "livenessProbe" in values[key]:
            probe = values[key]["livenessProbe"]["command"]
            assert probe == SERVICES[name]["healthcheck"]["test"][1:]
    for workers in values["workers"]["celery"]["sets"]:
        assert f"MLED_QUEUES={workers['queue']} " in workers["args"][-1]
        assert workers["args"][-1].endswith("exec mled run worker")
    superset = yaml.safe_load((KUBERNETES / "superset.yaml").read_text())
    image = dockerfile.read(ROOT / SERVICES["superset"]["build"]["dockerfile"])
    assert superset["supersetNode"]["command"] == image.command


def test_the_settings_of_pods_exist_and_name_secrets_that_are_generated(make_secrets):
    airflow = yaml.safe_load((KUBERNETES / "airflow.yaml").read_text())["env"]
    superset = yaml.safe_load((KUBERNETES / "superset.yaml").read_text())["extraEnv"]
    known = {settings.variable(field) for field in dataclasses.fields(settings.Settings)}
    for given in ({item["name"]: item["value"] for item in airflow}, superset):
        assert given.pop("AWS_CONFIG_FILE") == "/run/secrets/mled/s3_config"
        assert given.keys() <= known
        settings.load(given)
        assert set(re.findall(r"\{(\w+)\}", str(given))) <= make_secrets.SECRETS.keys()


def test_secrets_are_generated_once_and_hidden_from_others_on_this_machine(make_secrets, tmp_path):
    folder = tmp_path / "secrets"
    script = [sys.executable, make_secrets.__file__, str(folder)]
    subprocess.run(script, check=True, capture_output=True)
    before = {path.name: path.read_text() for path in folder.iterdir()}
    subprocess.run(script, check=True, capture_output=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == before
    assert before.keys() == {*make_secrets.SECRETS, "s3_config"}
    assert len(set(before.values())) == len(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    # The containers' users are not the folder's owner.
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in folder.iterdir())


def test_no_secret_and_no_environment_gets_into_an_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "deploy/secrets" in ignored and "**/.*" in ignored  # .git, .venv, .mled, .env
    assert os.access(ROOT / "deploy" / "postgres" / "create-databases.sh", os.X_OK)
