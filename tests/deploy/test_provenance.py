"""The version of the code that trials in a container record."""

from __future__ import annotations

from mled.store import provenance


def test_an_image_knows_the_commit_that_it_was_built_from(tmp_path):
    code = tmp_path / "mled" / "training"
    code.mkdir(parents=True)
    assert provenance.code_version(code) is None
    (tmp_path / "mled" / "COMMIT").write_text("\n")
    assert provenance.code_version(code) is None
    (tmp_path / "mled" / "COMMIT").write_text("0a1b2c\n")
    assert provenance.code_version(code)["git_commit"] == "0a1b2c"
