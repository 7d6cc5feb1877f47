"""What the figures of a benchmark depend on beside the code: one account for all results."""

import datetime
import os
import platform
import subprocess
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent


def machine(versions: dict[str, str]) -> dict[str, str]:
    """Date, processor, memory, system, versions and commit."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    commit = subprocess.run(["git", "-C", HERE, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True)
    dirty = subprocess.run(["git", "-C", HERE, "status", "--porcelain", "-uno"], capture_output=True, text=True)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cpu": f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.machine()}",
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "commit": (commit.stdout.strip() or "none") + (" with local changes" if dirty.stdout.strip() else ""),
    }
