"""Stage 0: what counts as installed, pip's settings for uv, and errors in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from mled import install
from mled.install import InstallError


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "requirements.txt"
    path.write_text("click==8.2.1\n")
    return path


@pytest.fixture
def environment(tmp_path):
    folder = tmp_path / "environment"
    folder.mkdir()
    return folder


def test_an_environment_that_was_marked_is_installed(environment, lock):
    install.mark_installed(environment, lock)
    assert install.is_installed(environment, lock)


def test_a_half_made_environment_is_not_installed(environment, lock):
    (environment / "bin").mkdir()
    assert not install.is_installed(environment, lock)


def test_another_lock_asks_for_another_installation(environment, lock):
    install.mark_installed(environment, lock)
    lock.write_text("click==8.3.0\n")
    assert not install.is_installed(environment, lock)


def test_another_python_asks_for_another_installation(environment, lock, monkeypatch):
    install.mark_installed(environment, lock)
    monkeypatch.setattr(sys, "version", "3.11.99 (main)")
    assert not install.is_installed(environment, lock)


def test_the_wrong_python_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 12, 1))
    with pytest.raises(InstallError, match=r"Python 3\.11 is needed.*make up PYTHON="):
        install.check_python()


def test_a_python_without_ensurepip_is_refused_with_the_package_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ensurepip", None)
    with pytest.raises(InstallError, match=r"apt-get install python3\.11-venv"):
        install.check_python()


def test_a_full_disk_is_refused_with_both_figures(tmp_path):
    with pytest.raises(InstallError, match=r"\d+ MB are free .* needs 999999999 MB"):
        install.check_disk(tmp_path, 999_999_999)


def test_pip_s_own_listing_is_understood(tmp_path):
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://global/simple\ntimeout = 5\n"
        "[install]\nindex-url = https://install/simple\nextra-index-url = https://a\n  https://b\n"
        "[download]\nindex-url = https://download/simple\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")}
    environ |= {"PIP_CONFIG_FILE": str(config), "PIP_FIND_LINKS": "/wheels /more"}
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=environ,
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    found = install.pip_settings(listing)
    assert found["index-url"] == "https://install/simple"
    assert found["extra-index-url"].split() == ["https://a", "https://b"]
    assert found["find-links"] == "/wheels /more"


def test_pip_s_settings_become_uv_s():
    pip = {
        "index-url": "https://mirror/simple",
        "extra-index-url": "https://a\nhttps://b",
        "find-links": "/wheels /more",
        "cert": "/ca.pem",
    }
    assert install.uv_environment(pip, {"PATH": "/bin", "PYTHONPATH": "/x"}) == {
        "PATH": "/bin",
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://a https://b",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/ca.pem",
    }


def test_what_is_set_for_uv_wins_over_pip_s_settings():
    pip = {"index-url": "https://pip", "extra-index-url": "https://a", "find-links": "/pip"}
    environ = {"UV_DEFAULT_INDEX": "https://uv", "UV_FIND_LINKS": "/uv"}
    assert install.uv_environment(pip, environ) == environ


def test_a_build_of_torch_among_the_find_links_is_seen(tmp_path):
    environ = {"UV_FIND_LINKS": f"https://elsewhere/wheels,file://{tmp_path}"}
    assert not install.find_links_have_torch(environ)
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    assert install.find_links_have_torch(environ)
    assert not install.find_links_have_torch({})


def test_the_lock_does_not_depend_on_the_build_of_torch_that_was_found():
    with_cpu = "tqdm==1\ntorch==2.13.0+cpu\nurllib3==2\n"
    with_cuda = (
        "cuda-bindings==13\nnvidia-nccl-cu13==2\ntqdm==1\ntorch==2.13.0\ntriton==3\nurllib3==2\n"
    )
    assert install.portable(with_cpu) == "tqdm==1\ntorch==2.13.0\nurllib3==2\n"
    assert install.portable(with_cuda) == install.portable(with_cpu)


@pytest.mark.parametrize(
    ("printed", "advice"),
    [
        (
            "error: Failed to fetch: https://host/simple/click/\n  cause: error sending request",
            "check the network",
        ),
        ("WARNING: Retrying after connection broken by 'NewConnectionError'", "check the network"),
        (
            "error: No solution found when resolving dependencies\n"
            "  cause: Because there is no version of click==99 and you require click==99",
            "click==99",
        ),
        ("failed to copy file: No space left on device (os error 28)", "free some space"),
        ("something unheard of", "something unheard of"),
        ("", "printed nothing"),
    ],
)
def test_a_failure_becomes_one_line_with_advice(printed, advice):
    explained = install.explain(printed)
    assert advice in explained and "\n" not in explained


def test_a_real_uv_without_network_is_explained(tmp_path):
    command = [str(install.MAIN / "bin" / "uv"), "pip", "install", "--python", sys.executable]
    environ = {**os.environ, "UV_CACHE_DIR": str(tmp_path), "UV_OFFLINE": "1"}
    with pytest.raises(InstallError, match=r"check the network.*; all of it: .*log"):
        install.run([*command, "a-package-that-is-not-here"], tmp_path / "log", environ)
