"""Cores: no more processes at a time than there are, and none lost when one is killed."""

import time
from multiprocessing import get_context

from training.cores import one_core


def hold(folder, number):
    """Hold a core until a file says that it is enough."""
    with one_core(folder / "cores", 2):
        (folder / f"held-{number}").touch()
        while not (folder / "enough").exists():
            time.sleep(0.01)


def test_a_core_is_free_again_when_its_process_ends_in_whatever_way(tmp_path):
    processes = [get_context("fork").Process(target=hold, args=(tmp_path, i)) for i in range(4)]

    def holding(count):
        end = time.monotonic() + 20
        while len(list(tmp_path.glob("held-*"))) < count:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.1)
        held = sorted(int(path.name[5:]) for path in tmp_path.glob("held-*"))
        assert len(held) == count
        return held

    for process in processes:
        process.start()
    processes[holding(2)[0]].kill()
    holding(3)
    (tmp_path / "enough").touch()
    holding(4)
    for process in processes:
        process.join(20)
    with one_core(tmp_path / "cores", 1):
        pass
