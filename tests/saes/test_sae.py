"""Encoding and decoding against dense arithmetic: sae-lens' own where it is right, a few naive lines elsewhere."""

import dataclasses
import threading

import pytest
import torch

from interp.errors import InterpError
from interp.saes import sae as module
from interp.saes.formats import converted
from interp.saes.sae import Sae
from tests.sae_checkpoints import D_IN, D_SAE, build, dense, states

KINDS = ("standard", "topk", "jumprelu", "gated")
NORMS = ("none", "constant_norm_rescale", "layer_norm")


def pair(kind, **options):
    """(sae-lens' SAE, ours) with the same weights."""
    theirs = build(kind, **options)
    # Ours may fold norms into the weights, in place.
    return theirs, converted(build(kind, **options), "it", 3, None)


def tensors(d_in=6, d_sae=300, seed=0, dtype=torch.float32, **options):
    """Our SAE with random weights, without sae-lens."""
    random = torch.Generator().manual_seed(seed)
    w_enc, b_enc, w_dec, b_dec = (
        torch.randn(shape, generator=random).to(dtype) for shape in ((d_in, d_sae), (d_sae,), (d_sae, d_in), (d_in,))
    )
    return Sae("ours", "", 0, w_enc, b_enc, w_dec, b_dec, **({"activation": "relu"} | options))


def dense_topk(x, sae):
    """Activations of a TopK SAE by its definition: [T, d_sae]."""
    pre = (x.float() - sae.b_dec.float()) @ sae.W_enc.float() + sae.b_enc.float()
    order = pre.argsort(dim=1, descending=True)
    keep = torch.zeros_like(pre, dtype=torch.bool).scatter_(1, order[:, : sae.k], value=True)
    return torch.where(keep & (pre > 0), pre, 0)


def same(acts, other):
    return all(torch.equal(getattr(acts, part), getattr(other, part)) for part in ("offsets", "features", "values", "shift", "scale"))


@pytest.fixture(params=[64 << 20, 1], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """The width of 256 that blocks have at least does not divide the number of features."""
    monkeypatch.setattr(module, "_BLOCK_BYTES", request.param)
    assert D_SAE % 256


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_encodes_and_decodes_as_sae_lens_does(kind, norm, subtract, blocks):
    theirs, ours = pair(kind, normalize_activations=norm, apply_b_dec_to_input=subtract)
    x = states()
    with torch.no_grad():
        expected = theirs.encode(x)
        rebuilt = theirs.decode(expected)
    acts = ours.encode(x)
    torch.testing.assert_close(dense(acts, D_SAE), expected, rtol=1e-4, atol=1e-5)
    assert (acts.values > 0).all()
    assert 0 < len(acts.features) < expected.numel()
    # sae-lens adds an epsilon to the deviation on the way in and forgets it on the way out.
    torch.testing.assert_close(ours.decode(acts), rebuilt, rtol=1e-4, atol=1e-3 if norm == "layer_norm" else 1e-4)


def test_topk_scaled_by_decoder_norms(blocks):
    theirs, ours = pair("topk", rescale_acts_by_decoder_norm=True)
    x = states()
    with torch.no_grad():
        expected = theirs.encode(x)
        rebuilt = theirs.decode(expected)
    plain = converted(build("topk"), "it", 3, None).encode(x)
    acts = ours.encode(x)
    torch.testing.assert_close(dense(acts, D_SAE), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(acts), rebuilt, rtol=1e-4, atol=1e-4)
    assert not torch.equal(acts.features, plain.features)


@pytest.mark.parametrize("kind", KINDS)
def test_entries_are_in_order_whatever_the_blocks(kind, monkeypatch):
    _, sae = pair(kind)
    x = states()
    found = []
    for size in (64 << 20, 4 * 20 * 300, 1):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        found.append(sae.encode(x))
    # The product's order of summation may change with its width; nothing else may.
    for acts in found[1:]:
        assert torch.equal(acts.offsets, found[0].offsets)
        assert torch.equal(acts.features, found[0].features)
        torch.testing.assert_close(acts.values, found[0].values, rtol=1e-5, atol=1e-6)
    acts = found[0]
    assert acts.offsets.dtype == acts.features.dtype == torch.int32
    assert acts.offsets[0] == 0
    assert acts.offsets[-1] == len(acts.features) == len(acts.values)
    keys = acts.tokens * D_SAE + acts.features
    assert (keys.diff() > 0).all()


def test_topk_keeps_the_k_largest_over_all_blocks(blocks):
    for k in (1, 5, 256, 257, 699, 700, 1000):
        sae = tensors(d_sae=700, activation="topk", k=k)
        x = states(9, 6)
        acts = sae.encode(x)
        torch.testing.assert_close(dense(acts, 700), dense_topk(x, sae), rtol=1e-4, atol=1e-5)
        assert int(acts.offsets.diff().max()) <= k


def test_topk_finds_them_wherever_they_lie(blocks):
    # All of the k largest in the last block, then one in each of three.
    for best in ([697, 698, 699], [0, 255, 256], [10, 300, 699], [511, 512, 513]):
        bias = torch.linspace(0.1, 0.2, 700)
        bias[best] = torch.tensor([3.0, 5.0, 4.0])
        sae = dataclasses.replace(tensors(d_sae=700, activation="topk", k=3), b_enc=bias, W_enc=torch.zeros(6, 700))
        acts = sae.encode(states(2, 6))
        assert acts.features.tolist() == best * 2
        assert acts.values.tolist() == [3.0, 5.0, 4.0] * 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [0, 1])
def test_few_tokens(kind, tokens, blocks):
    _, sae = pair(kind)
    x = states()[:tokens]
    acts = sae.encode(x)
    assert len(acts.offsets) == tokens + 1
    assert acts.shift.shape == acts.scale.shape == (tokens, 1)
    rebuilt = sae.decode(acts)
    assert rebuilt.shape == (tokens, D_IN)
    torch.testing.assert_close(rebuilt, sae.decode(sae.encode(states()))[:tokens], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"activation": "topk", "k": 4}], ids=["relu", "topk"])
def test_nothing_active(options, dtype, blocks):
    sae = tensors(dtype=dtype, **options)
    sae = dataclasses.replace(sae, b_enc=torch.full_like(sae.b_enc, -1000))
    acts = sae.encode(states(3, 6))
    assert acts.offsets.tolist() == [0, 0, 0, 0]
    assert len(acts.features) == len(acts.values) == len(acts.tokens) == 0
    torch.testing.assert_close(sae.decode(acts), sae.b_dec.float().expand(3, -1))
    none = sae.decode(sae.encode(states(0, 6)))
    assert none.shape == (0, 6)


def test_pre_activations_of_exactly_0_and_of_the_threshold_are_inactive():
    zero = torch.zeros(6, 3)
    base = dataclasses.replace(tensors(d_sae=3), W_enc=zero, b_enc=torch.tensor([0.0, 1.0, 2.0]))
    assert base.encode(states(1, 6)).features.tolist() == [1, 2]
    jump = dataclasses.replace(base, activation="jumprelu", threshold=torch.tensor([-1.0, 1.0, 1.9]))
    assert jump.encode(states(1, 6)).features.tolist() == [2]
    gated = dataclasses.replace(base, activation="gated", gate=(torch.tensor([1.0, 0.0, 1.0]), torch.zeros(3)))
    assert gated.encode(states(1, 6)).features.tolist() == [2]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_in_bfloat16_are_computed_with_in_float32(kind, blocks):
    theirs, _ = pair(kind)
    rounded = theirs.to(torch.bfloat16)
    sae = converted(rounded, "it", 3, None)
    assert sae.W_enc.dtype == sae.W_dec.dtype == torch.bfloat16
    exact = rounded.to(torch.float32)
    x = states()
    with torch.no_grad():
        expected = exact.encode(x)
        rebuilt = exact.decode(expected)
    acts = sae.encode(x)
    torch.testing.assert_close(dense(acts, D_SAE), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae.decode(acts), rebuilt, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_in_half_precision_are_computed_with_in_float32(dtype):
    sae = tensors()
    x = states(5, 6).to(dtype)
    assert same(sae.encode(x), sae.encode(x.float()))
    assert sae.decode(sae.encode(x)).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_decoding_is_the_dense_product(dtype, blocks):
    sae = tensors(dtype=dtype)
    some = dataclasses.replace(sae, b_enc=sae.b_enc - 4)  # some tokens have entries, some none
    acts = some.encode(torch.cat([states(6, 6), sae.b_dec.float().expand(2, -1), states(6, 6, seed=3)]))
    counts = acts.offsets.diff()
    assert counts.min() == 0
    assert counts.max() > 5
    expected = dense(acts, sae.d_sae).double() @ sae.W_dec.double() + sae.b_dec.double()
    torch.testing.assert_close(some.decode(acts), expected.float(), rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-3)


@pytest.mark.parametrize("norm", NORMS[1:])
def test_decoding_undoes_the_normalisation(norm):
    # As many features as inputs, each its own direction: x comes back exactly.
    eye = torch.eye(6)
    both = torch.cat([eye, -eye])
    sae = Sae("mirror", "", 0, both.T.contiguous(), torch.zeros(12), both, torch.zeros(6), "relu", normalisation=norm)
    x = states(5, 6) * torch.tensor([[0.1], [1], [10], [100], [1000]])
    acts = sae.encode(x)
    torch.testing.assert_close(sae.decode(acts), x, rtol=1e-4, atol=1e-4)
    normal = (x - acts.shift) * acts.scale
    if norm == "layer_norm":
        torch.testing.assert_close(normal.mean(1), torch.zeros(5), atol=1e-5, rtol=0)
        torch.testing.assert_close(normal.std(1), torch.ones(5), atol=1e-3, rtol=0)
    else:
        torch.testing.assert_close(normal.norm(dim=1), torch.full((5,), 6**0.5))


@pytest.mark.parametrize("norm", NORMS)
def test_a_state_of_zeros_gives_no_nan(norm):
    sae = tensors(normalisation=norm)
    acts = sae.encode(torch.zeros(2, 6))
    assert acts.values.isfinite().all()
    assert sae.decode(acts).isfinite().all()


@pytest.mark.parametrize("rows", [[], [0], [4, 1, 1, 7], [7, 6, 5, 4, 3, 2, 1, 0], [2, 2, 2], list(range(8))])
def test_rows_of_codes(rows):
    sae = tensors(activation="jumprelu", threshold=torch.full((300,), 3.0), normalisation="layer_norm")
    x = states(8, 6)
    x[4] = 0  # no entries
    acts = sae.encode(x)
    some = acts.rows(torch.tensor(rows))
    assert same(some, dataclasses.replace(some, offsets=some.offsets.int(), features=some.features.int()))
    assert torch.equal(dense(some, 300), dense(acts, 300)[rows])
    assert torch.equal(some.shift, acts.shift[rows])
    assert torch.equal(some.scale, acts.scale[rows])
    assert torch.equal(sae.decode(some), sae.decode(acts)[rows])
    assert same(acts.rows(torch.arange(8)), acts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_by_cosine(dtype, blocks):
    sae = tensors(dtype=dtype)
    sae.W_dec[17] = 0
    sae.W_dec[40] = 3 * sae.W_dec[5]
    sae.W_dec[41] = -sae.W_dec[5]
    rows = sae.W_dec.double()
    naive = [(f, float(rows[f] @ rows[5] / max(float(rows[f].norm() * rows[5].norm()), 1e-12))) for f in range(300) if f != 5]
    naive.sort(key=lambda pair: -pair[1])
    found = sae.neighbours(5, 299)
    assert found[0][0] == 40
    assert found[-1][0] == 41
    assert [cosine for _, cosine in found] == pytest.approx([cosine for _, cosine in naive], abs=1e-3)
    assert {feature for feature, _ in found} == {feature for feature, _ in naive}
    assert dict(found)[17] == 0
    assert sae.neighbours(5) == found[:5]
    assert len(sae.neighbours(5, 10_000)) == 299
    assert all(cosine == 0 for _, cosine in sae.neighbours(17))


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_feature_by_itself_reads_what_it_reads_among_all(kind, norm, subtract):
    _, sae = pair(kind, normalize_activations=norm, apply_b_dec_to_input=subtract)
    x = states()
    # Which of a TopK's features are among the k largest cannot be told from one of them: as if it kept them all.
    acts = (dataclasses.replace(sae, k=D_SAE) if kind == "topk" else sae).encode(x)
    on = 0
    for feature in (0, 5, 255, 256, 699):
        only = sae.only(feature, torch.device("cpu"))
        activation, scale = only.read(x)
        torch.testing.assert_close(activation[:, 0], dense(acts, D_SAE)[:, feature], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scale, acts.scale)
        assert torch.equal(only.W_dec, sae.W_dec[feature : feature + 1])
        assert (only.d_in, only.d_sae, only.layer, only.name) == (D_IN, 1, sae.layer, sae.name)
        assert torch.equal(only.encode(x).values, activation[activation > 0])
        on += int((activation > 0).sum())
    assert 0 < on < 5 * len(x)


@pytest.mark.parametrize(
    "options", [{}, {"activation": "jumprelu", "threshold": torch.full((300,), 2.0, dtype=torch.bfloat16)}], ids=["relu", "jumprelu"]
)
def test_one_feature_by_itself_is_in_float32_and_small(options):
    sae = tensors(dtype=torch.bfloat16, **options)
    only = sae.only(7, torch.device("cpu"))
    parts = [only.W_enc, only.b_enc, only.W_dec, only.b_dec, *([only.threshold] if options else [])]
    assert {part.dtype for part in parts} == {torch.float32}
    assert sum(part.untyped_storage().nbytes() for part in parts) < 100
    x = states(5, 6)
    torch.testing.assert_close(only.read(x)[0][:, 0], dense(sae.encode(x), 300)[:, 7], rtol=1e-4, atol=1e-4)
    with pytest.raises(InterpError, match="Feature 300 does not exist"):
        sae.only(300, torch.device("cpu"))


def test_reading_leaves_the_states_as_they_are():
    x = states(5, 6)
    for norm in NORMS:
        for options in ({}, {"activation": "gated", "gate": (torch.ones(300), torch.ones(300))}):
            tensors(normalisation=norm, **options).only(0, x.device).read(x)
    assert torch.equal(x, states(5, 6))


def test_what_warns_of_an_sae_of_another_model():
    sae = dataclasses.replace(tensors(), model_name="Someone/Llava-7B", notes=("damaged",))
    assert sae.notes_for(["mine", "other/llava-7b"]) == ["damaged"], "owners, folders and capitals mean nothing"
    assert sae.notes_for(["mine", ""]) == ["damaged", "trained on another model: Someone/Llava-7B"]
    assert tensors().notes_for(["mine"]) == [], "nobody said what it was trained on"


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "5"])
def test_a_wrong_number_of_neighbours_is_refused(k):
    with pytest.raises(InterpError, match="k is"):
        tensors().neighbours(0, k)


def test_check():
    sae = tensors(d_sae=30)
    assert (sae.d_in, sae.d_sae) == (6, 30)
    assert [sae.check(feature) for feature in (0, 29)] == [0, 29]
    for wrong in (-1, 30, 1.5, "3", None, True):
        with pytest.raises(InterpError, match="ours has features 0 to 29"):
            sae.check(wrong)
    with pytest.raises(InterpError, match="Feature 30"):
        sae.neighbours(30)


def test_two_threads_at_once_get_what_each_gets_alone():
    sae = tensors(d_in=32, d_sae=2000, normalisation="layer_norm")
    inputs = [states(40, 32, seed=seed) * (seed + 1) for seed in range(4)]
    alone = [(sae.encode(x), sae.decode(sae.encode(x))) for x in inputs]
    together = [[] for _ in inputs]
    start = threading.Barrier(len(inputs))

    def run(at):
        start.wait()
        for _ in range(20):
            acts = sae.encode(inputs[at])
            together[at].append((acts, sae.decode(acts)))

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (acts, rebuilt), results in zip(alone, together, strict=True):
        assert len(results) == 20
        assert all(same(acts, other) and torch.equal(rebuilt, again) for other, again in results)


def test_encoding_needs_no_dense_matrix(monkeypatch):
    widest = []
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda a, b, *, out: widest.append(out.numel()) or mm(a, b, out=out))
    monkeypatch.setattr(module, "_BLOCK_BYTES", 1 << 20)
    tensors(d_in=4, d_sae=20_000, activation="topk", k=8).encode(states(100, 4))
    assert max(widest) * 4 <= 1 << 20
    assert sum(widest) == 100 * 20_000
