"""What a service remembers is bounded by number and by bytes."""

from dataclasses import dataclass, replace

import pytest

from interp.service import service as module
from interp.service.recent import Recent
from interp.service.requests import Ranking, TraceRequest
from interp.service.service import Service
from tests import tiny


@dataclass(frozen=True, eq=False)
class Part:
    nbytes: int


def kept(recent, keys):
    return [key for key in keys if recent.get(key) is not None]


def test_the_least_recently_used_goes_first():
    recent = Recent(2, 100, lambda part: [part])
    recent.put("a", Part(1))
    recent.put("b", Part(1))
    recent.get("a")
    recent.put("c", Part(1))
    assert kept(recent, "abc") == ["a", "c"]


def test_bytes_are_bounded_and_the_newest_always_stays():
    recent = Recent(10, 100, lambda part: [part])
    for key in "abc":
        recent.put(key, Part(40))
    assert kept(recent, "abc") == ["b", "c"]
    assert recent.nbytes == 80
    recent.put("d", Part(1000))
    assert kept(recent, "abcd") == ["d"]
    recent.clear()
    assert recent.nbytes == 0


def test_a_part_that_values_share_is_counted_once():
    trace = Part(90)
    recent = Recent(10, 100, lambda own: [own, trace])
    for key in "abc":
        recent.put(key, Part(2))
    assert kept(recent, "abc") == ["a", "b", "c"]
    assert recent.nbytes == 96


@pytest.fixture(scope="module")
def service():
    return Service()


def trace_of(service, seed):
    return service.trace(TraceRequest(tiny.noise(96, 96, seed=seed), "Describe the image.", max_new_tokens=2))


def test_results_count_their_tensors_and_each_trace_once(service):
    trace = trace_of(service, 1)
    lens = service.read(trace)
    found = service.features(trace, Ranking(top_k=5))
    assert lens.nbytes == sum(tensor.nbytes for tensor in (lens.ids, lens.probs, lens.entropy, lens.log_z))
    assert found.encoding.nbytes >= found.encoding.acts.values.nbytes + found.encoding.acts.features.nbytes
    assert found.nbytes == 5 * 4 * trace.length
    service.remember(lens)
    service.remember(found)
    assert service._results.nbytes == trace.nbytes + lens.nbytes + found.nbytes + found.encoding.nbytes


def test_an_sae_that_is_no_longer_in_use_is_counted_with_its_results(service):
    found = service.features(trace_of(service, 1), Ranking(top_k=5))
    other = replace(found, encoding=replace(found.encoding, sae=replace(found.encoding.sae)))
    assert found.encoding.sae.nbytes > 1_000_000
    assert found.encoding.sae not in service._parts(found)
    assert other.encoding.sae in service._parts(other)


def test_a_service_keeps_no_more_traces_alive_than_its_bytes_allow(monkeypatch):
    size = trace_of(Service(), 1).nbytes
    monkeypatch.setattr(module, "_MAX_BYTES", 2 * size)
    service = Service()
    lenses = [service.read(trace_of(service, seed)) for seed in range(6)]
    runs = [service.remember(lens) for lens in lenses]
    assert service._lenses.nbytes <= 2 * size
    assert service._results.nbytes <= 4 * size
    assert service.remembered(runs[-1], module.Lens) is lenses[-1]
    with pytest.raises(module.InterpError, match="no longer keeps"):
        service.remembered(runs[0], module.Lens)
