"""Epochs that survive a crash: what is saved, what is trained again, what is logged."""

import pytest

from mled.store import reading
from training import search, session
from training.checkpoints import FileCheckpoints

MLP = {"dataset": "iris", "model": "mlp", "grid": {"epochs": [8], "hidden": [4], "dropout": [0.5],
       "patience": [6]}}  # fmt: skip
DQN = {"dataset": "cartpole", "model": "dqn",
       "grid": {"episodes": [8], "hidden": [8], "batch_size": [8], "memory": [50]}}  # fmt: skip


class Killed(BaseException):
    """Ends the training as a kill does: no checkpoint is deleted."""


def curves(trial_id):
    frame = reading.curves([trial_id])
    return {tuple(row[1:3]): row[3].hex() for row in frame.itertuples(index=False)}


@pytest.mark.parametrize("wanted", [MLP, DQN], ids=lambda wanted: wanted["model"])
def test_a_trial_goes_on_from_its_last_saved_epoch(database, settings, monkeypatch, wanted):
    monkeypatch.setattr(session, "SAVE_SECONDS", 0)
    whole, broken = ({"experiment": name, **wanted} for name in ("whole", "broken"))
    ((whole_id,),), ((broken_id,),) = search.plan(whole), search.plan(broken)
    search.run([whole_id], whole)

    logged = []
    log = session.Session.log

    def killed_at_epoch_5(self, metrics, step=None):
        logged.append(step)
        if step == 5 and logged.count(5) == 1:
            raise Killed
        log(self, metrics, step)

    monkeypatch.setattr(session.Session, "log", killed_at_epoch_5)
    with pytest.raises(Killed):
        search.run([broken_id], broken)
    kept = settings.home / "checkpoints"
    assert [path.name for path in kept.iterdir()] == [f"trial-{broken_id}.state"]
    assert search.run([broken_id], broken)["finished"] == 1
    assert logged == [0, 1, 2, 3, 4, 5, 5, 6, 7]
    assert not list(kept.iterdir())
    assert curves(broken_id) == curves(whole_id)


def test_a_trial_that_fails_starts_from_nothing_the_next_time(database, settings, monkeypatch):
    monkeypatch.setattr(session, "SAVE_SECONDS", 0)
    wanted = {"experiment": "e", **MLP}
    ((id,),) = search.plan(wanted)
    with monkeypatch.context() as patch:
        log = session.Session.log

        def fails(self, metrics, step=None):
            log(self, metrics, step)
            if step == 3:
                raise ValueError("no more")

        patch.setattr(session.Session, "log", fails)
        assert search.run([id], wanted)["failed"] == 1
    assert not list((settings.home / "checkpoints").iterdir())
    assert search.run([id], wanted)["finished"] == 1


def test_a_file_is_replaced_as_a_whole_and_can_be_absent(tmp_path):
    checkpoints = FileCheckpoints(tmp_path / "new")
    assert checkpoints.read(7) is None
    checkpoints.delete(7)
    checkpoints.write(7, b"one")
    checkpoints.write(7, b"two")
    assert checkpoints.read(7) == b"two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["trial-7.state"]
    checkpoints.delete(7)
    assert checkpoints.read(7) is None
