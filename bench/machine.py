"""What a measurement was taken on, as far as it matters to speed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

CPUS = Path("/sys/devices/system/cpu")
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def processors() -> list[int]:
    """Those that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """Physical cores among them: two hardware threads of one core share its multipliers."""
    siblings = {_read(CPUS / f"cpu{n}/topology/thread_siblings_list") or str(n) for n in processors()}
    return len(siblings)


def describe() -> dict[str, Any]:
    """Facts by name; those that the system does not tell are left out."""
    info = _read(Path("/proc/cpuinfo"))
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")), re.MULTILINE)
    facts: dict[str, Any] = {
        "cpu": _cpu_name(info),
        "architecture": platform.machine(),
        "processors": len(processors()),
        "cores": cores(),
        "caches": _caches(),
        "memory_bytes": int(memory[1]) * 1024 if memory else None,
        "virtual": bool(re.search(r"^flags\s*:.*\bhypervisor\b", info, re.MULTILINE)) if info else None,
        "governor": _read(CPUS / "cpu0/cpufreq/scaling_governor"),
        "os": _os_name(),
        "kernel": " ".join([platform.system(), *re.findall(r"^\d+\.\d+", platform.release())]),
        "python": platform.python_version(),
    }
    return {name: value for name, value in facts.items() if value not in (None, "", {})}


class Usage(NamedTuple):
    """Seconds on clocks that only their differences mean something of."""

    wall: float
    busy: float | None  # of all processors that this process may run on together; None where the system does not tell
    own: float  # of this process's threads together


def usage() -> Usage:
    found = dict(re.findall(r"^cpu(\d+) (.*)$", _read(Path("/proc/stat")), re.MULTILINE))
    busy = None
    if all(str(n) in found for n in processors()):
        ticks = 0
        for n in processors():
            user, nice, system, _, _, irq, softirq, steal, *_ = map(int, found[str(n)].split())
            ticks += user + nice + system + irq + softirq + steal
        busy = ticks / os.sysconf("SC_CLK_TCK")
    return Usage(time.monotonic(), busy, time.process_time())


def others(before: Usage, after: Usage) -> float | None:
    """How many processors were busy with something else in between, on average."""
    if before.busy is None or after.busy is None or after.wall <= before.wall:
        return None
    seconds = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, seconds / (after.wall - before.wall))


def _cpu_name(info: str) -> str:
    fields = dict(re.findall(r"^([^\t:\n]+?)\s*:\s*(.+)$", info, re.MULTILINE))
    name = fields.get("model name", "")
    if not name and sys.platform == "darwin":
        name = _output("sysctl", "-n", "machdep.cpu.brand_string")
    if not name:  # on ARM the kernel knows numbers only
        found = re.search(r"^Model name:\s*(.+)$", _output("lscpu"), re.MULTILINE)
        name = found[1] if found else ""
    name = name or platform.processor() or platform.machine()
    if "family" not in name and not re.search(r"\d", name) and "cpu family" in fields:  # as virtual machines hide it
        name += f" (family {fields['cpu family']}, model {fields['model']})"
    return name


def _caches() -> dict[str, int]:
    """Bytes of each level, of the first processor."""
    sizes = {}
    for index in sorted(CPUS.glob("cpu0/cache/index*")):
        kind, level, size = (_read(index / file) for file in ("type", "level", "size"))
        if found := re.fullmatch(r"(\d+)([KMG])", size):
            sizes[f"L{level}" + {"Data": "d", "Instruction": "i"}.get(kind, "")] = int(found[1]) * UNITS[found[2]]
    return sizes


def _os_name() -> str:
    release = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read(Path("/etc/os-release")), re.MULTILINE)
    return release[1] if release else platform.platform()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
