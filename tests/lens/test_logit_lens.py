import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import interp
from interp import EMBED, InterpError
from interp.lens.directions import promoted_words
from interp.lens.reading import affordable_layers, top_scores
from interp.models import unembed
from interp.models.unembed import block_peaks
from tests import tiny
from tests.conftest import PROMPT

ANSWER = "dog and cat on a red boat"
# name, quantize, what the model does to logits after its head
MODELS = [
    pytest.param(("crop", "none", None), id="plain"),
    pytest.param(("interleave", "none", None), id="siglip, qwen2, padded, tied"),
    pytest.param(("padded", "none", None), id="padded"),
    pytest.param(("ignored cap", "none", None), id="soft cap in the config alone"),
    pytest.param(("capped", "none", tiny.SOFT_CAP), id="soft cap"),
    pytest.param(("crop", "4bit", None), id="4-bit"),
    pytest.param(("interleave", "4bit", None), id="4-bit, tied"),
]


@pytest.fixture(params=MODELS)
def case(request, load, picture):
    """(trace, naive logits [layers + 1, T, vocabulary]) of one model."""
    name, quantize, cap = request.param
    vlm = load(name, quantize)
    trace = vlm.trace(picture, PROMPT, answer=ANSWER)
    finish = (lambda logits: torch.tanh(logits / cap) * cap) if cap else (lambda logits: logits)
    return trace, tiny.naive_logits(vlm, trace, finish)


def listed(vlm, logits):
    """Logits where ids without a token cannot win."""
    logits = logits.clone()
    logits[..., list(vlm.vocabulary.undecodable)] = -math.inf
    return logits


def rounding(vlm):
    """How much further than usual numbers may differ: in 4 bit, few rows are multiplied by other code than many."""
    return 100 if getattr(vlm.model, "is_loaded_in_4bit", False) else 1


def check_readings(lens, logits):
    """Top ids, probabilities, entropy and log_z against logits of the same shape. Equal values may be listed in any order."""
    vlm, k = lens.trace.vlm, lens.ids.shape[-1]
    rough = rounding(vlm)
    atol, rtol = 1e-5 * rough, 1e-4 * rough
    log_p = logits.double().log_softmax(-1)
    top = listed(vlm, log_p).topk(k)
    torch.testing.assert_close(lens.probs, top.values.exp().float(), atol=atol, rtol=rtol)
    torch.testing.assert_close(log_p.gather(-1, lens.ids).exp().float(), lens.probs, atol=atol, rtol=rtol)
    sure = (top.values[..., 0] - listed(vlm, log_p).topk(2).values[..., 1]) > rtol
    assert sure.float().mean() > 0.9
    assert torch.equal(lens.ids[..., 0][sure], top.indices[..., 0][sure])
    assert all(len(set(row)) == k for row in lens.ids.flatten(0, 1).tolist())
    torch.testing.assert_close(lens.log_z, logits.double().logsumexp(-1).float(), atol=1e-4 * rough, rtol=rtol)
    torch.testing.assert_close(lens.entropy, -(log_p.exp() * log_p).sum(-1).float(), atol=1e-4 * rough, rtol=rtol)


def test_the_last_layer_is_the_model_itself(case):
    trace, _ = case
    vlm = trace.vlm
    lens = interp.logit_lens(trace, top_k=5, layers=[trace.n_layers - 1])
    logits = tiny.full_forward(vlm, trace).logits[0].float()
    rough = rounding(vlm)
    torch.testing.assert_close(lens.log_z[0], logits.logsumexp(-1), atol=1e-5 * rough, rtol=1e-5 * rough)
    check_readings(lens, logits[None])
    own = lens.probs[0].log() + lens.log_z[0, :, None]
    torch.testing.assert_close(own, logits.gather(-1, lens.ids[0]), atol=1e-4 * rough, rtol=1e-4 * rough)


def test_every_layer_equals_a_naive_lens(case):
    trace, logits = case
    lens = interp.logit_lens(trace, top_k=4)
    assert lens.layers == tuple(range(EMBED, trace.n_layers))
    check_readings(lens, logits)


def test_the_models_differ_where_a_bug_would_hide(load, trace):
    """What makes the comparisons above sharp: a second norm, a layer more or less, and a cap left out each change the reading visibly."""
    norm, head = trace.vlm.norm, trace.vlm.head
    with torch.inference_mode():
        once, twice = head(norm(trace.states[-1])), head(norm(norm(trace.states[-1])))
        assert (once - twice).abs().max() > 0.1
        assert (head(norm(trace.states[1:])) - head(norm(trace.states[:-1]))).abs().amax((1, 2)).min() > 0.1
        capped = load("capped").trace(trace.image, PROMPT, answer=ANSWER)
        plain = load("capped").head(load("capped").norm(capped.states))
        assert (torch.tanh(plain / tiny.SOFT_CAP) * tiny.SOFT_CAP - plain).abs().max() > 0.5


def test_greedy_tokens_are_the_last_layers_top_reading(trace, lens):
    start = next(i for i, token in enumerate(trace.tokens) if token.kind == "answer")
    assert lens.ids[-1, start - 1 :, 0].tolist() == [token.id for token in trace.tokens[start:]]


@pytest.mark.parametrize("k", [1, 5, 64, 287])
def test_any_k(trace, k):
    lens = interp.logit_lens(trace, top_k=k)
    assert lens.ids.shape == lens.probs.shape == (4, 32, k)
    assert (lens.probs.diff(dim=-1) <= 0).all()
    three = interp.logit_lens(trace, top_k=min(k, 3))
    assert torch.equal(lens.probs[..., :3], three.probs)
    if k == 287:
        torch.testing.assert_close(lens.probs.sum(-1), torch.ones(4, 32))


@pytest.mark.parametrize("columns", [64, 320, 64 * 40])
@pytest.mark.parametrize("values", [2, 9, 100_000], ids=["nearly all tied", "many ties", "no ties"])
@pytest.mark.parametrize("k", [1, 3, 4, 5, 7, 60])
def test_top_k_is_exact(columns, values, k):
    torch.manual_seed(columns + k)
    logits = torch.randint(values, (50, columns)).float()
    found, ids = top_scores(logits, block_peaks(logits), k)
    assert torch.equal(found, logits.topk(k).values)
    assert torch.equal(logits.gather(1, ids), found)
    assert all(len(set(row)) == k for row in ids.tolist())


def test_top_k_when_all_winners_share_a_block():
    logits = torch.zeros(1, 640)
    logits[0, 130:140] = torch.arange(1.0, 11)
    assert top_scores(logits, block_peaks(logits), 6)[1].tolist() == [[139, 138, 137, 136, 135, 134]]


def test_undecodable_ids_are_never_listed_but_stay_in_the_denominator(load, picture):
    vlm = load("padded")
    trace = vlm.trace(picture, PROMPT, answer=ANSWER)
    known, rows = len(vlm.tokenizer), vlm.head.weight.shape[0]
    assert rows == known + tiny.PADDING_ROWS
    logits = tiny.naive_logits(vlm, trace)
    assert (logits.argmax(-1) >= known).float().mean() > 0.25  # many winners are rows that no token belongs to
    lens = interp.logit_lens(trace, top_k=known)
    assert lens.ids.max() < known
    torch.testing.assert_close(lens.probs.sum(-1), logits.softmax(-1)[..., :known].sum(-1))
    assert lens.probs.sum(-1).min() < 0.9
    with pytest.raises(InterpError, match=f"from 1 to {known}"):
        interp.logit_lens(trace, top_k=known + 1)


@pytest.mark.parametrize("k", [0, -1, 288, 1.5, "3", True, None])
def test_badtop_scores(trace, k):
    with pytest.raises(InterpError, match="top_k"):
        interp.logit_lens(trace, top_k=k)


def test_four_bit_stays_inside_the_decoder(load):
    model = load("crop", "4bit").model
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    four_bit = {name for name, kind in kinds.items() if kind == "Linear4bit"}
    assert four_bit == {name for name in kinds if name.startswith("model.language_model.layers.")}
    assert len(four_bit) == 3 * 7
    assert {parameter.dtype for name, parameter in model.named_parameters() if name.rpartition(".")[0] not in four_bit} == {torch.float32}
    assert load("crop", "4bit").head.weight.equal(load("crop").head.weight)


def test_probability_and_rank_of_a_word(case):
    trace, logits = case
    lens = interp.logit_lens(trace, top_k=1)
    spellings = lens.resolve("dog")
    assert set(spellings) == {" dog", "dog", " Dog"}
    ids = list(spellings.values())
    rough = rounding(trace.vlm)
    torch.testing.assert_close(lens.probability("dog"), logits.softmax(-1)[..., ids].sum(-1), atol=1e-6 * rough, rtol=1e-4 * rough)
    best = logits[..., ids].amax(-1, keepdim=True)
    assert (lens.rank("dog") - (logits > best).sum(-1)).abs().max() <= 1  # rounding may swap two that are all but equal
    assert (lens.rank("dog") == (logits > best).sum(-1)).float().mean() > 0.98


def test_rounding_makes_no_probability_larger_than_1(lens):
    rounded = dataclasses.replace(lens, log_z=lens.log_z - 20)
    assert rounded.probability("dog").max() == 1


def test_words_of_several_pieces(lens):
    with pytest.raises(InterpError, match="'zebra' is 5 tokens"):
        lens.probability("zebra")
    with pytest.raises(InterpError, match="tokens"):
        lens.rank("zebra")
    with pytest.raises(InterpError, match="empty"):
        lens.probability(" ")
    assert set(lens.resolve("z")) == {"z", "Z"}
    assert set(lens.resolve("zebra", first_piece=True)) == {"z"}
    assert (lens.probability("zebra", first_piece=True) < lens.probability("z")).all()
    assert (lens.rank("zebra", first_piece=True) >= lens.rank("z")).all()


def test_first_layer(lens):
    found = lens.first_layer()
    top = lens.ids[..., 0]
    for t, layer in enumerate(found.tolist()):
        same = [lens.layers[axis] for axis in range(len(lens.layers)) if top[axis, t] == top[-1, t]]
        assert layer == same[0]
    assert len(set(found.tolist())) > 1


@pytest.mark.parametrize(
    ("layers", "positions"), [([2, EMBED], None), (None, [31, 0, 7]), ([1], range(4, 20)), (torch.tensor([0, 2]).tolist(), [5])]
)
def test_subsets_equal_the_full_lens(trace, lens, layers, positions):
    part = interp.logit_lens(trace, top_k=3, layers=layers, positions=positions)
    rows = [lens.layers.index(layer) for layer in part.layers]
    for field in ("ids", "probs", "entropy", "log_z"):
        torch.testing.assert_close(getattr(part, field), getattr(lens, field)[rows][:, list(part.positions)])
    torch.testing.assert_close(part.probability("dog"), lens.probability("dog")[rows][:, list(part.positions)])
    assert torch.equal(part.rank("dog"), lens.rank("dog")[rows][:, list(part.positions)])
    layer, position = part.layers[0], part.positions[-1]
    assert part.texts(layer, position) == lens.texts(layer, position)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"layers": [3]}, "Layer 3 does not exist"),
        ({"layers": [-2]}, "Layer -2"),
        ({"positions": [32]}, "Position 32"),
        ({"positions": [-1]}, "Position -1"),
        ({"layers": []}, "at least one"),
        ({"positions": []}, "at least one"),
        ({"layers": 1}, "layers is 1; it must be a list of layer numbers"),
        ({"layers": ["1"]}, "Layer '1' does not exist"),
        ({"layers": [True]}, "Layer True does not exist"),
        ({"positions": [1.5]}, "Position 1.5 does not exist"),
        ({"positions": range(10**12)}, "positions has 1000000000000 entries"),
    ],
)
def test_layers_and_positions_that_do_not_exist(trace, wanted, message):
    with pytest.raises(InterpError, match=message):
        interp.logit_lens(trace, **wanted)


def test_layers_and_positions_of_numpy_and_torch(trace, lens):
    part = interp.logit_lens(trace, np.int64(3), layers=np.array([1, 2]), positions=torch.tensor([4, 5]))
    assert (part.layers, part.positions) == ((1, 2), (4, 5))
    assert part.texts(np.int64(1), torch.tensor(4)) == lens.texts(1, 4)


@pytest.mark.parametrize("place", ["", None, 3, "a\0b", "nowhere/lens.json", "."])
def test_files_that_cannot_be_written(lens, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (lens.to_json, lens.to_html):
        with pytest.raises(InterpError, match=r"^path is .*(must be the path of a file|nothing can be written)"):
            write(place)


def test_grid(trace, lens):
    cells = lens.grid(1)
    grid = trace.grids[0]
    assert (len(cells), len(cells[0])) == (grid.rows, grid.cols) == (4, 4)
    for row in range(4):
        for col in range(4):
            at = int(grid.positions[row, col])
            text, probability = cells[row][col]
            assert text == lens.texts(1, at)[0]
            assert probability == lens.probs[2, at, 0]  # axis 2 is layer 1: the first is EMBED
    for call in (lambda: lens.grid(3), lambda: lens.grid(0, grid=1), lambda: lens.grid(0, grid=-1), lambda: lens.texts(0, 99)):
        with pytest.raises(InterpError):
            call()
    with pytest.raises(InterpError, match="does not hold position"):
        interp.logit_lens(trace, positions=[0]).grid(1)


def test_json_round_trip(case, tmp_path):
    trace, _ = case
    lens = interp.logit_lens(trace, top_k=3)
    lens.to_json(tmp_path / "lens.json")

    def never(text):
        raise AssertionError(text)

    data = json.loads((tmp_path / "lens.json").read_text(encoding="utf-8"), parse_constant=never)  # NaN and Infinity are no JSON
    assert data["schema"] == "llava-microscope/logit-lens/1"
    assert torch.tensor(data["ids"]).equal(lens.ids)
    torch.testing.assert_close(torch.tensor(data["probs"]), lens.probs, rtol=1e-3, atol=0)
    torch.testing.assert_close(torch.tensor(data["entropy"]), lens.entropy, rtol=0, atol=1e-4)
    assert (data["layers"], data["positions"]) == (list(lens.layers), list(lens.positions))
    assert [token["kind"] for token in data["tokens"]] == [token.kind for token in trace.tokens]
    assert data["grids"][0]["positions"] == trace.grids[0].positions.tolist()
    assert {data["vocabulary"][str(i)] for i in lens.ids.flatten().tolist()} <= set(trace.vlm.vocabulary.texts)
    assert (data["prompt"], data["answer"], data["model"]) == (PROMPT, ANSWER, trace.vlm.name)


def test_chunks_change_nothing(trace, lens, monkeypatch):
    monkeypatch.setitem(unembed._BUFFER_BYTES, "cpu", 7 * 320 * 4)  # 7 rows: chunks that end inside every layer
    small = interp.logit_lens(trace, top_k=3)
    assert trace.vlm.unembed.buffers(trace.length)[0].shape == (7, 320)
    for field in ("ids", "probs", "entropy", "log_z"):
        torch.testing.assert_close(getattr(small, field), getattr(lens, field))
    assert torch.equal(small.rank("dog"), lens.rank("dog"))


class LargestTensor(TorchDispatchMode):
    """The most elements of any tensor that is made; views of what was there before do not count."""

    def __init__(self, *before):
        super().__init__()
        self.elements = 0
        self._before = {tensor.untyped_storage().data_ptr() for tensor in before}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor) and value.untyped_storage().data_ptr() not in self._before:
                self.elements = max(self.elements, value.numel())
        return out


READS = {
    "lens": lambda lens: interp.logit_lens(lens.trace),
    "rank": lambda lens: lens.rank("dog"),
    "probability": lambda lens: lens.probability("dog"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_layers_by_positions_by_vocabulary_never_exists(trace, lens, monkeypatch, read):
    monkeypatch.setitem(unembed._BUFFER_BYTES, "cpu", 7 * 320 * 4)
    assert trace.vlm.unembed  # found before, by a forward of its own
    with LargestTensor(trace.states, *trace.vlm.model.parameters()) as largest:
        read(lens)
    assert 0 < largest.elements <= 7 * 320  # one buffer; a single layer would be 32 x 287


def test_the_lens_does_not_change_its_trace(vlm, picture):
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    before = trace.states.clone()
    interp.logit_lens(trace)
    assert torch.equal(trace.states, before)


def test_a_trace_without_its_model_has_no_lens(trace, tmp_path):
    trace.save(tmp_path / "trace")
    with pytest.raises(InterpError, match="loaded without its model"):
        interp.logit_lens(interp.Trace.load(tmp_path / "trace"))


def test_affordable_layers_are_spread_and_hold_the_ends_and_the_default(trace):
    vlm = trace.vlm
    one = 2e-12 * trace.length * vlm.d_model * len(vlm.vocabulary.texts)
    assert affordable_layers(trace, 100 * one) == (EMBED, 0, 1, 2)
    assert affordable_layers(trace, 0) == (EMBED, vlm.default_layer, 2)
    deep = dataclasses.replace(trace, states=trace.states[:1].expand(33, -1, -1))
    chosen = affordable_layers(deep, 9 * one)
    assert chosen == (-1, 1, 3, 7, 11, 15, 19, 23, 27, 31)  # vlm.default_layer is 1
    assert len(affordable_layers(deep, 33 * one)) == 33


class Counted:
    """A lock that says whether it is held."""

    def __init__(self):
        self.held = 0

    def __enter__(self):
        self.held += 1

    def __exit__(self, *_):
        self.held -= 1


@pytest.mark.parametrize(
    "read",
    [
        lambda trace, _lens: interp.logit_lens(trace, layers=[1]),
        lambda _trace, lens: lens.probability("dog"),
        lambda _trace, lens: lens.rank("dog"),
        lambda trace, _lens: promoted_words(trace.vlm, trace.residual(0)[:2]),
    ],
    ids=["logit_lens", "probability", "rank", "promoted_words"],
)
def test_the_norm_and_the_head_are_used_under_the_models_lock(trace, lens, read, monkeypatch):
    vlm, held = trace.vlm, []
    vlm.unembed  # noqa: B018 - found before, under the real lock
    lock = Counted()
    monkeypatch.setattr(vlm, "lock", lock)
    handle = vlm.norm.register_forward_pre_hook(lambda _module, _args: held.append(lock.held))
    try:
        read(trace, lens)
    finally:
        handle.remove()
    assert held
    assert all(held)
    assert lock.held == 0
