"""The emulator finds the mistakes that it is there to find, and nothing where there is none."""

import os
import re
import subprocess

import pytest

import cuda_runner
from cuda_toolkit import ROOT

ORDERS = (("forward", 1), ("reverse", 1), ("random", 1), ("random", 2), ("random", 3))

# What finds a mistake, in which build and under which orders. ThreadSanitizer needs no particular order, nor do the
# scheduler's own checks; a block that ends too soon shows only if it does end before the other.
RACE, SHARED = ("thread", "data race"), ("address", "use-after-poison")
FOUND_BY = {
    "no_barrier_before_reading": RACE,
    "no_barrier_before_release": RACE,
    "no_barrier_after_waiting": RACE,
    "relaxed_poll": RACE,
    "read_only_load_of_written": ("plain", "__ldg of memory that the same launch wrote"),
    "cluster_left_too_soon": SHARED,
    "shared_off_by_one": SHARED,
    "misaligned_vector": ("address", "misaligned address"),
    "more_blocks_than_fit": ("plain", "deadlock: 3 of 4 blocks resident"),
    "barrier_in_a_branch": ("plain", "divergent barrier"),
    "full_mask_in_half_a_warp": ("plain", "deadlock"),
    "block_barrier_for_cluster": RACE,
    "overlapping_partition": RACE,
    "barrier_left_out_by_a_warp": RACE,
}


@pytest.fixture(scope="module")
def programs():
    folder = cuda_runner.build()
    if isinstance(folder, str):
        pytest.skip(folder)
    return folder


def run(programs, mode, *arguments):
    """What the program of kernels and mistakes ends with, and what it says."""
    command = [programs / f"cuda_bugs_{mode}", *map(str, arguments)]
    environment = os.environ | cuda_runner.ENVIRONMENT
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
    return done.returncode, done.stdout + done.stderr


def test_every_mistake_is_in_the_table(programs):
    _, names = run(programs, "plain", "--list")
    assert set(names.split()) == {"none", *FOUND_BY}


@pytest.mark.parametrize("mode", cuda_runner.MODES)
def test_nothing_is_found_where_nothing_is_wrong(programs, mode):
    for order, seed in ORDERS:
        code, said = run(programs, mode, "--order", order, "--seed", seed)
        assert code == 0, f"{order} {seed}: {said}"


@pytest.mark.parametrize("bug", FOUND_BY)
def test_every_mistake_is_found(programs, bug):
    mode, expected = FOUND_BY[bug]
    for order, seed in ORDERS:
        if bug == "cluster_left_too_soon" and order == "reverse":
            continue  # the block that reads the others' memory runs first
        code, said = run(programs, mode, "--order", order, "--seed", seed, bug)
        assert code != 0, (order, seed)
        assert expected in said, (order, seed)


def test_the_same_seed_gives_the_same_schedule(programs):
    """So that what a random order finds can be looked at again."""
    first, second = (run(programs, "plain", "--order", "random", "--seed", 5, "barrier_in_a_branch") for _ in range(2))
    assert first == second


ORDERING = re.compile(r"\b(__syncthreads|__syncwarp|cluster_barrier|wait_for_copies|load_acquire|store_release)\(")
LINES = [
    (name, number)
    for name in ("exchange.cuh", "resident.cuh")
    for number, line in enumerate((ROOT / "cuda" / name).read_text().splitlines(), 1)
    if ORDERING.search(line.partition("//")[0])
]


def run_weakened(programs, *arguments):
    command = [programs / "cuda_weakened", *map(str, arguments)]
    environment = os.environ | cuda_runner.ENVIRONMENT
    return subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)


def test_nothing_is_found_in_the_kernels_as_they_are(programs):
    done = run_weakened(programs)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("name", "line"), LINES)
def test_no_call_that_orders_memory_can_be_left_out(programs, name, line):
    """Each barrier, wait, acquire and release of the kernels with W_hh on chip, by leaving it out or weakening it."""
    done = run_weakened(programs, name, line)
    assert done.returncode != 0, "nothing shows that it is gone"
    assert "data race" in done.stderr or "a result that is not finite" in done.stdout, done.stdout + done.stderr
