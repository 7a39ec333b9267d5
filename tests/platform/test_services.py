"""The process manager's configuration, as its own parser reads it."""

from __future__ import annotations

import dataclasses
import os
import stat

import pytest
from supervisor.options import ServerOptions

from mled import processes, services
from mled import settings as mled_settings
from mled.secrets import SecretError


@pytest.fixture
def odd_settings(tmp_path):
    """Settings whose paths have characters that mean something to the parser."""
    return mled_settings.load(
        {
            "MLED_HOME": str(tmp_path / "it's a home, odd"),
            "MLED_STORE_URL": "postgresql://user:100%25@host/store",
        }
    )


def _parse(settings):
    for folder in (settings.run, settings.logs):
        folder.mkdir(parents=True)
    config = settings.run / "supervisord.conf"
    config.write_text(services.supervisor_config(settings))
    options = ServerOptions()
    options.realize(["-c", str(config)])
    return options


def test_supervisor_reads_exactly_what_was_meant(odd_settings):
    options = _parse(odd_settings)
    parsed = {group.name: group.process_configs[0] for group in options.process_group_configs}
    assert tuple(parsed) == tuple(sorted(services.names(odd_settings)))
    for program in services.programs(odd_settings):
        config = parsed[program.name]
        assert config.environment == dict(program.environment)
        assert config.stdout_logfile == str(services.log_file(odd_settings, program.name))
        assert config.killasgroup and config.autorestart
        # Only the scheduler's children, its tasks, are told to stop one by one.
        assert config.stopasgroup == (program.name == "scheduler")
    assert options.pidfile == str(odd_settings.run / "supervisord.pid")


@pytest.mark.parametrize("name", ['a "home"', "home #1", "home ;1", "100%", "ho\nme"])
def test_a_path_that_supervisor_would_misread_is_refused(tmp_path, name):
    settings = mled_settings.load({"MLED_HOME": str(tmp_path / name)})
    with pytest.raises(services.ServiceError, match="choose paths without"):
        services.supervisor_config(settings)


def test_the_caller_s_environment_does_not_change_the_configuration(settings, monkeypatch):
    before = services.supervisor_config(settings)
    monkeypatch.setenv("PATH", "/elsewhere")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://somebody/else")
    assert services.supervisor_config(settings) == before


def test_another_setting_changes_the_configuration(settings, monkeypatch):
    before = services.supervisor_config(settings)
    monkeypatch.setenv("MLED_WORKERS", "7")
    assert services.supervisor_config(mled_settings.load()) != before


@pytest.mark.parametrize(
    "environment", ["airflow_environment", "dbt_environment", "superset_environment"]
)
def test_only_chosen_variables_reach_the_programs(settings, environment):
    caller = {
        "PATH": "/usr/bin",
        "PIP_INDEX_URL": "https://secret@mirror",
        "UV_CACHE_DIR": "/cache",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "http_proxy": "http://proxy:3128",
        "no_proxy": "intranet",
    }
    result = getattr(services, environment)(settings, caller)
    assert result["PATH"] == "/usr/bin"
    assert not {"PIP_INDEX_URL", "UV_CACHE_DIR", "PYTHONDONTWRITEBYTECODE"} & result.keys()
    assert result.get("AIRFLOW__CORE__EXECUTOR") in (None, "LocalExecutor")
    assert result["no_proxy"].split(",") == ["intranet", settings.host, "localhost"]
    assert mled_settings.load(result) == settings


def test_the_dags_folder_can_be_chosen(settings):
    caller = {"AIRFLOW__CORE__DAGS_FOLDER": "/my/dags"}
    given = services.airflow_environment(settings, caller)
    assert given["AIRFLOW__CORE__DAGS_FOLDER"] == "/my/dags"


def test_only_the_scheduler_preloads(settings):
    preloading = [p.name for p in services.programs(settings) if "MLED_PRELOAD" in p.environment]
    assert preloading == ["scheduler"]


def test_tasks_have_room_beside_the_workers():
    parallelism = [
        int(
            services.airflow_options(mled_settings.Settings(workers=workers), {})[
                "AIRFLOW__CORE__PARALLELISM"
            ]
        )
        for workers in (1, 64)
    ]
    assert parallelism == [8, 132]


def test_a_long_home_gets_a_socket_that_the_system_accepts(tmp_path):
    short = mled_settings.load({"MLED_HOME": "/srv/mled"})
    assert services.socket_path(short) == short.run / "supervisor.sock"
    long = mled_settings.load({"MLED_HOME": str(tmp_path / ("x" * 120))})
    other = mled_settings.load({"MLED_HOME": str(tmp_path / ("y" * 120))})
    assert len(os.fsencode(services.socket_path(long))) <= services.SOCKET_PATH_BYTES
    assert services.socket_path(long) != services.socket_path(other)


def test_the_passwords_of_two_services_differ(settings):
    options = services.airflow_options(settings, {})
    keys = (
        "AIRFLOW__CORE__FERNET_KEY",
        "AIRFLOW__API__SECRET_KEY",
        "AIRFLOW__API_AUTH__JWT_SECRET",
    )
    assert len({options[key] for key in keys}) == len(keys)


def test_the_configuration_is_private(settings, sleepers):
    processes.launch(settings)
    mode = stat.S_IMODE((settings.run / "supervisord.conf").stat().st_mode)
    assert mode == 0o600


CLUSTER = {
    "MLED_BROKER_URL": "redis://:{redis_password}@redis:6379/0",
    "MLED_AIRFLOW_DATABASE_URL": "postgresql://airflow:{database_password}@postgres/airflow",
    "MLED_AIRFLOW_SERVER": "http://api-server:8080/",
    "MLED_WORKERS": "3",
    "MLED_CLUSTER_WORKERS": "12",
    "MLED_QUEUES": "training,gpu",
    "MLED_WORKER_NAME": "one",
}


@pytest.fixture
def cluster(tmp_path):
    """The settings of a cluster with an executor."""
    for name in ("redis_password", "database_password"):
        path = tmp_path / "home" / "secrets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}/\n")
    home = {"MLED_HOME": str(tmp_path / "home")}
    return lambda executor: mled_settings.load({**home, **CLUSTER, "MLED_EXECUTOR": executor})


@pytest.mark.parametrize(
    ("executor", "command"),
    [
        ("celery", ["celery", "worker", "--celery-hostname", "one", "--queues", "training,gpu"]),
        ("edge", ["edge", "worker", "--edge-hostname", "one", "--queues", "training,gpu"]),
    ],
)
def test_a_cluster_has_a_worker_that_serves_its_queues(cluster, executor, command):
    programs = {program.name: program for program in services.programs(cluster(executor))}
    worker = programs.pop(services.WORKER)
    assert list(worker.command[1:]) == command
    assert "MLED_PRELOAD" in worker.environment
    assert not [p.name for p in programs.values() if "MLED_PRELOAD" in p.environment]


def test_secrets_and_addresses_reach_airflow(cluster):
    options = services.airflow_options(cluster("celery"), {})
    database = "postgresql://airflow:database_password%2F@postgres/airflow"
    assert options["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == database
    assert options["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] == database
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONNECT_ARGS" not in options
    assert options["AIRFLOW__CELERY__BROKER_URL"] == "redis://:redis_password%2F@redis:6379/0"
    server = "http://api-server:8080/execution/"
    assert options["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == server
    # What a child process is told of the settings holds no secret.
    assert not [v for k, v in options.items() if k.startswith("MLED_") and "password%2F" in v]


def test_the_parallelism_counts_all_machines_and_a_worker_s_only_its_own(cluster):
    options = services.airflow_options(cluster("celery"), {})
    assert int(options["AIRFLOW__CORE__PARALLELISM"]) > 12
    assert options["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == "6"
    warehouse = dataclasses.replace(cluster("celery"), queues="default")
    options = services.airflow_options(warehouse, {})
    assert options["AIRFLOW__CELERY__WORKER_CONCURRENCY"] == "8"
    assert dict((name, slots) for name, slots, _ in services.pools(cluster("celery"))) == {
        services.TRAINING_POOL: 24,
        services.DBT_POOL: 1,
    }


def test_celery_without_a_broker_says_what_is_missing(tmp_path):
    settings = mled_settings.load({"MLED_HOME": str(tmp_path), "MLED_EXECUTOR": "celery"})
    with pytest.raises(services.ServiceError, match="MLED_BROKER_URL is not set"):
        services.programs(settings)


def test_one_machine_has_no_worker_and_says_how_to_get_one(settings):
    with pytest.raises(services.ServiceError, match="a worker needs MLED_EXECUTOR=celery or edge"):
        services.program(settings, services.WORKER)


def test_a_secret_that_is_not_there_is_named(tmp_path):
    settings = mled_settings.load(
        {"MLED_HOME": str(tmp_path), "MLED_STORE_URL": "postgresql://mled:{lost}@host/mled"}
    )
    with pytest.raises(SecretError, match=f"no secret {tmp_path}/secrets/lost"):
        _ = settings.store


def test_behind_a_proxy_with_tls_the_api_server_knows_it(tmp_path):
    settings = mled_settings.load(
        {"MLED_HOME": str(tmp_path), "MLED_AIRFLOW_PUBLIC_URL": "https://airflow.example"}
    )
    server = services.program(settings, services.API_SERVER)
    assert server.command[1:] == ("api-server", "--proxy-headers")
    assert server.environment["AIRFLOW__API__BASE_URL"] == "https://airflow.example"


def test_the_programs_reach_the_object_store(settings):
    environ = {"AWS_ENDPOINT_URL": "http://s3", "AWS_SECRET_ACCESS_KEY": "s", "OTHER": "x"}
    given = services.inherited_environment(settings, environ)
    assert given["AWS_ENDPOINT_URL"] == "http://s3"
    assert given["AWS_SECRET_ACCESS_KEY"] == "s"
    assert "OTHER" not in given
    # Not in the process manager's file.
    assert "AWS_" not in services.supervisor_config(settings)
