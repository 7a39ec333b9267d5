"""What `mled` refuses, and what it deletes."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mled import startup
from mled.settings import ROOT
from mled.startup import StartupError
from mled.steps import StepError, Steps, run_logged

MLED = Path(sys.executable).with_name("mled")


def _mled(*arguments, **environ):
    return subprocess.run(
        [MLED, *arguments],
        env={**os.environ, **environ},
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("home", [Path("/"), Path.home(), ROOT, ROOT.parent])
def test_a_home_that_holds_something_precious_is_never_deleted(home):
    with pytest.raises(StartupError, match="is not deleted: it holds"):
        startup.check_resettable(home)


def test_a_link_to_something_precious_is_not_followed(tmp_path):
    link = tmp_path / "home"
    link.symlink_to(ROOT)
    with pytest.raises(StartupError, match="it holds"):
        startup.check_resettable(link)


def test_a_folder_that_mled_did_not_make_is_not_deleted(home):
    home.mkdir()
    (home / "thesis.tex").touch()
    done = _mled("reset", "--yes")
    assert done.returncode == 1 and "mled did not make it" in done.stderr
    assert (home / "thesis.tex").exists()


@pytest.fixture
def made_home(home):
    home.mkdir()
    (home / startup.HOME_MARK).touch()
    return home


def test_reset_asks_first(made_home):
    done = _mled("reset")
    assert done.returncode != 0 and "Delete" in done.stdout
    assert made_home.exists()


def test_reset_deletes_what_mled_made(made_home):
    done = _mled("reset", "--yes")
    assert done.returncode == 0, done.stderr
    assert not made_home.exists()


def test_down_and_reset_of_nothing_say_so(home):
    assert "nothing is running" in _mled("down").stdout
    assert "nothing to delete" in _mled("reset", "--yes").stdout


def test_status_fails_when_nothing_runs(home):
    done = _mled("status")
    assert done.returncode == 1
    assert done.stdout.count("stopped") >= 5


def test_a_wrong_setting_is_one_line_without_a_traceback(home):
    done = _mled("status", MLED_AIRFLOW_PORT="http")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "MLED_AIRFLOW_PORT='http'" in done.stderr


def test_a_home_that_cannot_be_made_is_one_line_without_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    done = _mled("up", MLED_HOME=str(tmp_path / "file" / "home"))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Not a directory" in done.stderr


def test_an_unknown_log_is_refused_with_those_there_are(home):
    done = _mled("logs", "webserver")
    assert done.returncode != 0 and "webserver: the logs are api-server" in done.stderr


def test_the_settings_are_listed(home):
    listed = _mled("settings", MLED_WORKERS="9").stdout
    assert f"MLED_HOME                 {home}" in listed
    assert "(default: 8080)" not in listed and "MLED_WORKERS              9" in listed


def test_help_does_not_wait_for_heavy_imports():
    code = (
        "import sys, mled.cli; print(sorted({'airflow', 'httpx', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_second_start_waits_for_the_first(settings, capsys):
    settings.home.mkdir()
    handle = os.open(settings.home, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    entered = threading.Event()

    def second():
        with startup._one_at_a_time(settings):
            entered.set()

    thread = threading.Thread(target=second)
    thread.start()
    assert not entered.wait(0.5)
    os.close(handle)
    thread.join(10)
    assert entered.is_set()
    assert "waiting for it" in capsys.readouterr().out


def test_a_step_that_fails_is_named_and_the_others_end(tmp_path, capsys):
    log = tmp_path / "log"
    ended = threading.Event()

    def fail():
        run_logged(["sh", "-c", "echo first; echo no such table; exit 3"], dict(os.environ), log)

    steps = Steps()
    with pytest.raises(StepError, match=rf"database: no such table; all of it: {log}"):
        steps.parallel({"database": fail, "other": ended.set})
    assert ended.is_set() and "other" in steps.seconds
    assert log.read_text() == "first\nno such table\n"


def test_a_database_is_initialised_again_when_a_file_changes(settings, tmp_path):
    chart = tmp_path / "charts" / "a.yaml"
    chart.parent.mkdir()
    chart.write_text("title: A")
    before = startup._digest(settings, [tmp_path])
    assert startup._digest(settings, [tmp_path]) == before
    chart.write_text("title: B")
    assert startup._digest(settings, [tmp_path]) != before
