"""How many threads decode best: one per physical core that this process may use. Knows no llama.cpp."""

from __future__ import annotations

import os
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")
UNLIMITED = 10_000
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def usable_cores(topology: Path = TOPOLOGY, quota: Path = QUOTA) -> int:
    """Physical cores within the CPU affinity and the container's quota; at least one."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(topology / f"cpu{cpu}") or str(cpu) for cpu in allowed}
    return max(1, min(len(cores), _quota(quota)))


def _siblings(cpu: Path) -> str:
    try:
        return (cpu / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return ""


def _quota(path: Path) -> int:
    """Whole CPUs of a cgroup v2 `cpu.max` line such as `200000 100000`; a large number without a limit."""
    try:
        limit, period = path.read_text().split()
        return UNLIMITED if limit == "max" else max(1, int(limit) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return UNLIMITED
