"""Holds the instructions of some small calls against those of instructions.json: a guard that needs no clock.

    python tests/native/instructions.py DRIVER            DRIVER: fastrnn_driver of an optimised build
    python tests/native/instructions.py DRIVER --update   write instructions.json

They are counted by valgrind in the AVX2 kernels, which it can run. A count is that of a call once all is warm: what
three calls take beyond two. It depends on the compiler, so there is a set of counts for each; without one for this
compiler the check fails and says so.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COUNTS = Path(__file__).with_suffix(".json")
TOLERANCE = 0.03
CASES = [
    f"{cell} {mode} {shape}"
    for cell in ("rnn_tanh", "lstm", "gru", "gru_reset_before")
    for mode, shapes in (("inference", ("20 1 64", "4 16 128")), ("training", ("10 1 64", "4 16 128", "40 16 40")))
    for shape in shapes
]


def collected(driver: str, case: str, calls: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", driver, "--call", *case.split()]
    done = subprocess.run(
        [*command, str(calls)], capture_output=True, text=True, env=os.environ | {"FASTRNN_ISA": "avx2"}
    )
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode != 0 or not found or "FASTRNN_ISA" in done.stderr:
        raise SystemExit(f"instructions: {' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return int(found[1])


def count(driver: str, case: str) -> int:
    return collected(driver, case, 3) - collected(driver, case, 2)


def compiler() -> str:
    """Name and major version of the one that CMake takes by default."""
    text = subprocess.run(
        [os.environ.get("CXX", "c++"), "--version"], capture_output=True, text=True, check=True
    ).stdout
    version = re.search(r"(\d+)\.\d+", text)
    return f"{'Clang' if 'clang' in text else 'GCC'} {version[1] if version else '?'}"


def main(driver: str, update: bool) -> int:
    if shutil.which("valgrind") is None:
        raise SystemExit("instructions: there is no valgrind; install the package of that name")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(CASES, pool.map(lambda case: count(driver, case), CASES), strict=True))
    known = json.loads(COUNTS.read_text("utf-8")) if COUNTS.exists() else {}
    if update:
        known[compiler()] = found
        COUNTS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    expected = known.get(compiler())
    if expected is None:
        raise SystemExit(f"instructions: there are no counts for {compiler()}; make some with --update")
    worse = 0
    for case, instructions in found.items():
        change = instructions / expected[case] - 1
        worse += abs(change) > TOLERANCE
        print(f"{case:<36} {instructions:>12,} {change:+7.1%}{'  <-- more than 3%' * (abs(change) > TOLERANCE)}")
    if worse:
        print(f"{worse} of {len(found)} counts have changed; if that is meant, run with --update")
    return min(worse, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--update" in sys.argv[2:]))
