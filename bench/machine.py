"""What a measurement was taken on, as far as it matters to speed."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "os": _os_name(),
        "kernel": " ".join([platform.system(), *re.findall(r"^\d+\.\d+", platform.release())]),
        "python": platform.python_version(),
    }
    return {name: value for name, value in facts.items() if value not in (None, "", {})}


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
