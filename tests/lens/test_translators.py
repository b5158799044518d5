import dataclasses
import json
import shlex

import pytest
import torch
from safetensors.torch import load_file, save_file

import interp
from interp import EMBED, InterpError, Translators
from interp.lens.translators import Affine
from interp.models.identity import fingerprint
from tests import tiny

READ = {"tuned": interp.tuned_lens, "token": interp.token_lens}


def made(vlm, kind, *, rank=None, size=0.3, seed=0, weights=True):
    """A lens of random maps."""
    make = torch.Generator().manual_seed(seed)
    d, maps = vlm.d_model, {}
    for layer in range(EMBED, vlm.n_layers - (kind == "tuned")):
        up = size * torch.randn(d, rank or d, generator=make) / d**0.5
        down = torch.randn(rank, d, generator=make) if rank else None
        maps[layer] = Affine(up, size * torch.randn(d, generator=make), down)
    return Translators(kind, maps, vlm.name, d, vlm.n_layers, "nothing", {}, fingerprint(vlm) if weights else None)


@pytest.mark.parametrize("kind", READ)
def test_identity_translators_are_the_logit_lens_exactly(trace, lens, kind):
    read = READ[kind](trace, made(trace.vlm, kind, size=0), top_k=3)
    for name in ("ids", "probs", "entropy", "log_z"):
        assert torch.equal(getattr(read, name), getattr(lens, name))
    assert torch.equal(read.rank("dog"), lens.rank("dog"))
    assert (read.method, read.score_name, read.note) == (kind, "probability", "")
    assert read.reads == {"tuned": "next", "token": "here"}[kind]


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("rank", [None, 5])
def test_every_layer_equals_the_formula(trace, kind, rank):
    vlm, translators = trace.vlm, made(trace.vlm, kind, rank=rank)
    moved = trace.states.clone()
    for layer, move in translators.maps.items():
        matrix = move.up if move.down is None else move.up @ move.down
        moved[layer + 1] += trace.states[layer + 1] @ matrix.T + move.bias
    with torch.inference_mode():
        naive = vlm.head(vlm.norm(moved)).log_softmax(-1)
    read = READ[kind](trace, translators, top_k=4)
    torch.testing.assert_close(naive.gather(-1, read.ids).exp(), read.probs, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(read.probs, naive.topk(4).values.exp(), atol=1e-5, rtol=1e-4)
    ids = list(read.resolve("dog").values())
    torch.testing.assert_close(read.probability("dog"), naive.exp()[..., ids].sum(-1), atol=1e-6, rtol=1e-4)
    above = (naive > naive[..., ids].amax(-1, keepdim=True)).sum(-1)
    assert ((read.rank("dog") - above).abs() <= 1).all()
    some = READ[kind](trace, translators, top_k=4, layers=[1], positions=[3, 7])
    torch.testing.assert_close(some.probs, read.probs[[2]][:, [3, 7]])


def test_the_last_layer_of_a_tuned_lens_is_the_model(trace, lens):
    read = interp.tuned_lens(trace, made(trace.vlm, "tuned"), top_k=3)
    assert torch.equal(read.probs[-1], lens.probs[-1])
    assert not torch.equal(read.probs[0], lens.probs[0])


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("rank", [None, 5])
def test_a_saved_lens_reads_the_same(trace, kind, rank, tmp_path):
    before = made(trace.vlm, kind, rank=rank)
    before = dataclasses.replace(before, trained_on="Gedichte, größtenteils.", figures={"top1": {"1": 0.5}})
    before.save(tmp_path / "new" / "folder")
    after = interp.load_translators(tmp_path / "new" / "folder")
    assert {file.name for file in (tmp_path / "new" / "folder").iterdir()} == {"lens.json", "lens.safetensors"}
    same = ("kind", "model_name", "width", "n_layers", "trained_on", "figures", "layers")
    assert [getattr(after, name) for name in same] == [getattr(before, name) for name in same]
    assert {move.up.dtype for move in after.maps.values()} == {torch.float16}
    assert after.check(trace.vlm) == ""
    torch.testing.assert_close(READ[kind](trace, after).probs, READ[kind](trace, before).probs, atol=2e-3, rtol=2e-2)


def test_values_beyond_float16_are_kept(vlm, tmp_path):
    before = made(vlm, "token")
    before.maps[0].bias[3] = 1e6
    before.save(tmp_path)
    assert interp.load_translators(tmp_path).maps[0].bias[3].float() == pytest.approx(1e6, rel=0.01)


def test_another_shape_is_refused_and_other_weights_are_told(trace, load, picture):
    vlm = trace.vlm
    translators = made(vlm, "tuned")
    for change, told in (({"width": 32}, "3 layers of width 32"), ({"n_layers": 9}, "9 layers of width 64")):
        with pytest.raises(InterpError, match=told):
            interp.tuned_lens(trace, dataclasses.replace(translators, **change))
    other = load("pad").trace(picture, "Describe the image.", max_new_tokens=2)
    fits = (other.vlm.d_model, other.vlm.n_layers) == (vlm.d_model, vlm.n_layers)
    assert fits
    changed = {name: [dtype, shape, [value + 1 for value in values]] for name, (dtype, shape, values) in fingerprint(vlm).items()}
    assert "other weights" in interp.tuned_lens(trace, dataclasses.replace(translators, weights=changed)).note
    assert interp.tuned_lens(trace, made(vlm, "tuned", weights=False)).note == ""


def test_the_wrong_kind_and_absent_layers_are_refused(trace):
    tuned, token = made(trace.vlm, "tuned"), made(trace.vlm, "token")
    with pytest.raises(InterpError, match=r"translators are a token lens; read with interp\.token_lens"):
        interp.tuned_lens(trace, token)
    with pytest.raises(InterpError, match="tuned lens"):
        interp.token_lens(trace, tuned)
    part = dataclasses.replace(token, maps={1: token.maps[1]})
    assert interp.token_lens(trace, part).layers == (1,)
    with pytest.raises(InterpError, match="do not have layers 0; they have 1"):
        interp.token_lens(trace, part, layers=[0])


def published(folder, vlm, translators, *, pickle=False):
    """As the tuned-lens package saves it: translator i reads hidden_states[i], the input of block i."""
    state = {}
    for layer, move in translators.maps.items():
        state |= {f"{layer + 1}.weight": move.up, f"{layer + 1}.bias": move.bias}
    folder.mkdir()
    config = {
        "base_model_name_or_path": "me/mine",
        "d_model": vlm.d_model,
        "num_hidden_layers": vlm.n_layers,
        "bias": True,
        "base_model_revision": None,
        "unembed_hash": "x",
        "lens_type": "linear_tuned_lens",
    }
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "params.pt") if pickle else save_file(state, folder / "params.safetensors")
    return folder


def test_a_published_tuned_lens_reads_the_input_of_each_block(trace, tmp_path):
    vlm, mine = trace.vlm, made(trace.vlm, "tuned")
    theirs = interp.load_translators(published(tmp_path / "lens", vlm, mine))
    assert (theirs.kind, theirs.model_name, theirs.layers) == ("tuned", "me/mine", tuple(range(EMBED, vlm.n_layers)))
    read = interp.tuned_lens(trace, theirs, top_k=1)
    hidden = tiny.full_forward(vlm, trace).hidden_states
    weights = load_file(tmp_path / "lens" / "params.safetensors")
    for i in range(vlm.n_layers):
        moved = hidden[i][0] + hidden[i][0] @ weights[f"{i}.weight"].T + weights[f"{i}.bias"]
        with torch.inference_mode():
            naive = vlm.head(vlm.norm(moved)).softmax(-1)
        torch.testing.assert_close(read.probs[read.layers.index(i - 1), :, 0], naive.amax(-1), atol=1e-5, rtol=1e-4)


def test_pickles_are_refused_and_the_hint_converts_them(vlm, tmp_path, monkeypatch):
    folder = published(tmp_path / "lens", vlm, made(vlm, "tuned"), pickle=True)
    with pytest.raises(InterpError, match=r"pickle, params\.pt") as refused:
        interp.load_translators(folder)
    monkeypatch.chdir(folder)
    python, option, code = shlex.split(str(refused.value).partition("in that folder: ")[2])
    assert (python, option) == ("python", "-c")
    exec(code, {})  # noqa: S102 - our own
    assert interp.load_translators(folder).layers == tuple(range(EMBED, vlm.n_layers))


def spoil(folder, change):
    about = json.loads((folder / "lens.json").read_text())
    tensors = load_file(folder / "lens.safetensors")
    change(about, tensors)
    (folder / "lens.json").write_text(json.dumps(about))
    save_file(tensors, folder / "lens.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda about, _: about.update(schema="x"), "lens.json says 'x'"),
        (lambda about, _: about.update(kind="other"), "kind"),
        (lambda about, _: about.update(width=63), "has shape"),
        (lambda about, _: about.update(layers=2), "layers -1 to 0"),
        (lambda about, _: about.update(trained_on=3), "trained_on is 3"),
        (lambda _, tensors: tensors.pop("0.bias"), "layer 0 lacks a part"),
        (lambda _, tensors: tensors["0.bias"].fill_(torch.nan), "bias of layer 0 is not finite"),
        (lambda _, tensors: tensors.update({"x.bias": torch.zeros(2)}), "'x.bias' is no part"),
        (lambda _, tensors: tensors.clear(), "map for no layer"),
    ],
)
def test_damaged_files_are_refused(vlm, tmp_path, change, told):
    made(vlm, "tuned", rank=2).save(tmp_path)
    spoil(tmp_path, change)
    with pytest.raises(InterpError, match=told):
        interp.load_translators(tmp_path)


@pytest.mark.parametrize("name", ["lens.json", "lens.safetensors"])
def test_files_that_are_none_are_refused(vlm, tmp_path, name):
    made(vlm, "tuned", rank=2).save(tmp_path)
    (tmp_path / name).write_bytes(b"\xffx")
    with pytest.raises(InterpError, match="is not a trained lens, or is damaged"):
        interp.load_translators(tmp_path)
    with pytest.raises(InterpError, match="is a file"):
        interp.load_translators(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InterpError, match="holds no trained lens"):
        interp.load_translators(tmp_path / "empty")
