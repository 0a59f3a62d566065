"""The CPUs that a process may use, and the number of its threads."""

import math
import os
from collections.abc import MutableMapping
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use, at least 1.

    It is the affinity of the process, limited by the quota of its container, and divided by the
    number of processes that a launcher started on this machine.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpus = found or 1
    quota = _container_quota(CGROUPS)
    if quota is not None:
        cpus = min(cpus, math.ceil(quota))
    return max(1, cpus // _local_processes())


def limit_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set the number of threads of this process's libraries, and how they wait.

    Call it before torch or numpy is imported. Variables that the user has set stay:

    - `OMP_NUM_THREADS` is `usable_cpus()` where that is less than the machine has. Libraries know
      the affinity of a process, but neither a container's quota nor the other ranks.
    - `OMP_WAIT_POLICY` is `PASSIVE`: a thread that waits for others sleeps. By default it spins,
      and so takes CPU time from other programs, and from the very threads that it waits for.
    """
    cpus = usable_cpus()
    if cpus < (os.cpu_count() or 1):
        environment.setdefault("OMP_NUM_THREADS", str(cpus))
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _local_processes() -> int:
    """Return how many processes the launcher (torchrun, deepspeed) started on this machine."""
    text = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1"
    return int(text) if text.isdigit() and int(text) > 0 else 1


def _container_quota(root: Path) -> float | None:
    """Return the CPUs that the container's control group may use, None without a limit."""
    try:  # version 2: "200000 100000", or "max 100000"
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # version 1, where -1 is no limit
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(period)):
        return None
    return int(quota) / int(period) or None
