"""Threads change no batch, share the pieces of work, and never wait for a helper that did not begin."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from test_sampler import EPOCH, RUN_SEED, Case, cases, crowd, plain

from backends import sampler as sampler_module
from backends.crew import Crew
from backends.sampler import TemporalSampler
from backends.samplers import make_sampler
from backends.spec import SamplerSpec
from backends.subgraph import Subgraph


def draw(case: Case, threads: int, kernel: str = "numba") -> Subgraph:
    """Sample a case in so many threads."""
    spec = SamplerSpec(
        fanout=case.spec.fanout,
        strategy=case.spec.strategy,
        time_rule=case.spec.time_rule,
        threads=threads,
        kernel=kernel,
    )
    sampler = make_sampler(case.graph, spec, RUN_SEED, torch.device("cpu"))
    return sampler.sample(case.seeds, np.array(case.rows, np.int64), split=case.split, epoch=EPOCH)


@pytest.fixture
def tiny_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even the smallest batch into stretches."""
    monkeypatch.setattr(sampler_module, "_LEAST_SEEDS", 1)


@pytest.mark.usefixtures("tiny_stretches")
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_any_number_of_threads_draws_the_same_batch(case: Case) -> None:
    """One, two and five threads, and the torch kernel, agree bit for bit on graphs with every oddity."""
    expected = plain(draw(case, 1))
    assert plain(draw(case, 2)) == expected
    assert plain(draw(case, 5)) == expected
    assert plain(draw(case, 1, "torch")) == expected


@pytest.mark.parametrize("strategy", ["uniform", "last", "full"])
def test_threads_on_a_crowd(strategy: str) -> None:
    """Batches of 300 seeds with thousands of nodes, one after the other through the same memory, do not change."""
    graph, seeds = crowd()
    rng = np.random.default_rng(2)
    specs = [SamplerSpec(fanout=(20, 5, 3), strategy=strategy, threads=threads) for threads in (1, 2, 3)]
    one, *others = (TemporalSampler(graph, spec, RUN_SEED) for spec in specs)
    for size in (300, 40, 0, 300):
        rows = rng.permutation(len(seeds))[:size]
        expected = plain(one.sample(seeds, rows, split="train", epoch=size))
        for other in others:
            assert plain(other.sample(seeds, rows, split="train", epoch=size)) == expected


def test_callers_in_threads_share_one_sampler() -> None:
    """Several callers at once, each with two threads, draw what one draws alone."""
    graph, seeds = crowd()
    sampler = TemporalSampler(graph, SamplerSpec(fanout=(6, 3), threads=2), RUN_SEED)
    parts = [np.random.default_rng(part).permutation(len(seeds)) for part in range(6)]
    expected = [plain(sampler.sample(seeds, rows, split="train", epoch=0)) for rows in parts]
    with ThreadPoolExecutor(3) as pool:
        drawn = list(pool.map(lambda rows: plain(sampler.sample(seeds, rows, split="train", epoch=0)), parts))
    assert drawn == expected


def test_a_crew_does_each_piece_once_on_several_threads() -> None:
    """No piece is lost or done twice, and helpers help."""
    done, names = [], set()

    def work(index: int) -> None:
        time.sleep(0.002)
        done.append(index)
        names.add(threading.current_thread().name)

    crew = Crew(3)
    crew.do(work, 50)
    assert sorted(done) == list(range(50))
    assert len(names) > 1


def test_a_crew_does_not_wait_for_a_helper_that_did_not_begin() -> None:
    """With the only helper held up elsewhere, the caller does all the work and is through."""
    crew, release = Crew(2), threading.Event()
    assert crew._pool is not None
    held = crew._pool.submit(release.wait)
    done: list[int] = []
    crew.do(done.append, 5)
    assert done == [0, 1, 2, 3, 4]
    assert not held.done()
    release.set()


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_in_a_piece_is_raised(threads: int) -> None:
    """What goes wrong in any thread reaches the caller."""
    crew = Crew(threads)

    def work(index: int) -> None:
        if index == 7:
            raise OverflowError("piece 7")

    with pytest.raises(OverflowError, match="piece 7"):
        crew.do(work, 20)


def test_what_cannot_have_threads_is_refused() -> None:
    """Threads belong to the numba kernel of the shared sampler; others say so."""
    with pytest.raises(ValueError, match=r"sampler\.threads=2 .*allowed is 1"):
        SamplerSpec(threads=2, kernel="torch")
    with pytest.raises(ValueError, match=r"sampler\.threads=2 .*allowed is 1"):
        SamplerSpec(threads=2, kind="native", blocks=True)
    with pytest.raises(ValueError, match=r"sampler\.kernel='torch'.*allowed is 'numba'"):
        SamplerSpec(kernel="torch", kind="native", blocks=True)
    with pytest.raises(ValueError, match=r"sampler\.kernel='cuda': allowed are numba, torch"):
        SamplerSpec(kernel="cuda")
