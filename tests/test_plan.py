"""The cost model on paper: what it would do on machines of 1 to 64 cores."""

import pytest

import fastrnn
from fastrnn import _core

NETWORKS = {
    "small": fastrnn.LSTM(64, 64),
    "large": fastrnn.GRU(512, 512),
    "bidirectional": fastrnn.RNN(128, 128, bidirectional=True),
    "projected": fastrnn.LSTM(64, 256, num_layers=2, proj_size=64),
    "reset before": fastrnn.GRU(128, 128, reset_after=False),
}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def ways(network, rows, *, threads, backward=False, steps=100):
    """(directions, teams, team size), total of each, the best first."""
    fastrnn.set_num_threads(threads)
    table = _core.explain_plan(network.spec, steps, rows, backward).splitlines()
    assert table[1].split()[:2] == ["directions", "teams"]
    return [(tuple(map(int, line.split()[:3])), float(line.split()[3])) for line in table[2:]]


@every_network
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 5, 64])
def test_ways(network, rows, backward):
    for threads in (1, 2, 3, 16, 64):
        found = ways(network, rows, threads=threads, backward=backward)
        assert [total for _, total in found] == sorted(total for _, total in found)
        assert len({way for way, _ in found}) == len(found)
        for (directions, teams, team_size), _ in found:
            assert directions * teams * team_size <= threads
            assert directions <= network.spec.bidirectional + 1
            assert teams <= max(rows, 1)


@every_network
def test_more_cores_are_never_worse(network):
    best = [ways(network, 16, threads=threads)[0][1] for threads in (1, 2, 4, 8, 16, 32, 64)]
    assert best == sorted(best, reverse=True)
    assert best[-1] < best[0]


def test_what_is_plain():
    assert ways(NETWORKS["small"], 1, threads=64, steps=1)[0][0] == (1, 1, 1)  # not worth a second thread
    (_, teams, team_size), _ = ways(NETWORKS["large"], 1, threads=16)[0]
    assert teams == 1
    assert team_size > 4  # one row's weights are too many for one core's cache
    (_, teams, team_size), _ = ways(NETWORKS["small"], 64, threads=8)[0]
    assert (teams, team_size) == (8, 1)  # nobody needs to meet
    assert ways(NETWORKS["bidirectional"], 1, threads=2)[0][0] == (2, 1, 1)


def test_weights_that_no_cache_keeps():
    """The smallest network there is has its weights in the nearer cache, the largest that can be described in none."""
    for hidden, place in ((8, "the L2"), (1 << 17, "memory")):
        spec = _core.make_spec("lstm", hidden, hidden)
        assert f"weights come from {place};" in _core.explain_plan(spec, 10, 4, False)
