"""The part of the machine that a process uses: affinity, a container's quota, ranks, the user's own
choice."""

import os

import pytest
from clim_data.command_line import limit_threads, threads, usable_cpus


@pytest.fixture(autouse=True)
def _machine(monkeypatch, tmp_path):
    """Eight CPUs, no quota, no launcher."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(8), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(threads, "CGROUPS", tmp_path)
    for name in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)


def write_quota(folder, version, quota):
    if version == 2:
        (folder / "cpu.max").write_text(f"{quota} 100000\n")
    else:
        (folder / "cpu").mkdir()
        (folder / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu" / "cpu.cfs_period_us").write_text("100000\n")


@pytest.mark.parametrize(
    ("version", "quota", "cpus"), [(2, 250000, 3), (2, "max", 8), (1, 200000, 2), (1, -1, 8)]
)
def test_quota_of_a_container_limits_the_cpus(tmp_path, version, quota, cpus):
    write_quota(tmp_path, version, quota)
    assert usable_cpus() == cpus


@pytest.mark.parametrize("variable", ["LOCAL_WORLD_SIZE", "LOCAL_SIZE"])  # torchrun, deepspeed
@pytest.mark.parametrize(("processes", "cpus"), [("4", 2), ("16", 1), ("none", 8)])
def test_ranks_of_a_machine_share_its_cpus(monkeypatch, variable, processes, cpus):
    monkeypatch.setenv(variable, processes)
    assert usable_cpus() == cpus


def test_whole_machine_keeps_the_threads_of_the_libraries():
    environment: dict[str, str] = {}
    limit_threads(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE"}


def test_part_of_a_machine_gets_as_many_threads(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    environment: dict[str, str] = {}
    limit_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "2"


def test_what_the_user_has_set_stays(tmp_path):
    write_quota(tmp_path, 2, 100000)
    environment = {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "ACTIVE"}
    limit_threads(environment)
    assert environment == {"OMP_NUM_THREADS": "5", "OMP_WAIT_POLICY": "ACTIVE"}
