"""Threads: one per physical core within what the system allows."""

import os

import pytest

from rsd_cli.engine.cores import usable_cores


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of four CPUs: siblings by CPU, and a quota."""

    def make(siblings, quota=None, allowed=(0, 1, 2, 3)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(allowed), raising=False)
        for cpu, text in siblings.items():
            folder = tmp_path / f"cpu{cpu}" / "topology"
            folder.mkdir(parents=True)
            (folder / "thread_siblings_list").write_text(f"{text}\n")
        file = tmp_path / "cpu.max"
        if quota is not None:
            file.write_text(f"{quota}\n")
        return usable_cores(tmp_path, file)

    return make


def test_sibling_threads_are_one_core(machine):
    assert machine({0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}) == 2


def test_cpus_without_siblings_are_cores(machine):
    assert machine({0: "0", 1: "1", 2: "2", 3: "3"}) == 4


def test_cpus_outside_the_affinity_do_not_count(machine):
    assert machine({0: "0", 1: "1", 2: "2", 3: "3"}, allowed=(1, 3)) == 2


def test_a_system_that_does_not_tell_has_a_core_per_cpu(machine):
    assert machine({}) == 4


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("max 100000", 4),
        ("900000 100000", 4), ("", 4), ("nonsense", 4),
    ],
)  # fmt: skip
def test_the_containers_quota_holds(machine, quota, cores):
    assert machine({}, quota) == cores
