"""Checkpoints whose decoder is a GGUF file: loaded as if the dequantised values were safetensors, and refused where they do not fit."""

import dataclasses
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import safetensors.torch
import torch
from gguf import GGMLQuantizationType as Kind

import interp
from interp import InterpError
from interp.models import loading
from interp.presets import PRESETS
from tests import tiny
from tests.conftest import PROMPT

FILE = "tiny.gguf"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "output": "output",
}
KINDS = {"attn_q": Kind.Q4_1, "attn_k": Kind.Q4_1, "ffn_up": Kind.Q8_0, "ffn_down": Kind.F16, "token_embd": Kind.Q8_0}


def gguf_name(name):
    """layers.3.mlp.up_proj.weight → blk.3.ffn_up"""
    *before, part = name.removesuffix(".weight").split(".", 2)
    return ".".join([*before, NAMES[part]]).replace("layers.", "blk.")


def reordered(rows, heads):
    """Rows of one head 0 1 2 3 4 5 → 0 3 1 4 2 5, as llama.cpp stores them."""
    half = len(rows) // heads // 2
    return np.concatenate([rows[2 * half * h + i :: half][:2] for h in range(heads) for i in range(half)])


def write(path, model, **settings):
    """The decoder of `model` as llama.cpp's converter writes it; the model gets the rounded values."""
    config = model.config.get_text_config()
    file = gguf.GGUFWriter(path, settings.pop("architecture", "llama"))
    file.add_head_count(settings.pop("heads", config.num_attention_heads))
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_rope_freq_base(settings.pop("base", config.rope_parameters["rope_theta"]))
    file.add_token_list(["a", "b"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for name, weight in [*model.get_decoder().named_parameters(), *model.get_output_embeddings().named_parameters(prefix="output")]:
        if name == "output.weight" and config.tie_word_embeddings:
            continue
        stored = gguf_name(name)
        part = stored.rpartition(".")[2]
        kind = KINDS.get(part, Kind.F32)
        blocks = gguf.quants.quantize(weight.detach().numpy(), kind)
        weight.data = torch.from_numpy(gguf.quants.dequantize(blocks, kind).copy())
        if stored != settings.get("without"):
            file.add_tensor(f"{stored}.weight", reordered(blocks, heads[part]) if part in heads else blocks, raw_dtype=kind)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def checkpoint_with_gguf(folder, *, tied=True, **settings):
    """A tiny LLaVA with the values that the file holds, and the folder of a checkpoint that holds the file."""
    model, processor = tiny.build("crop")
    if tied:
        model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
        model.tie_weights()
    folder.mkdir(exist_ok=True)
    write(folder / FILE, model, **settings)
    tiny.save(folder, model, processor)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    rest = {name: weight for name, weight in weights.items() if "vision_tower" in name or "projector" in name}
    safetensors.torch.save_file(rest, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, decoder_gguf=FILE)
    return interp.Vlm(model, processor)


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf") / "checkpoint"
    return folder, checkpoint_with_gguf(folder)


@pytest.fixture
def folder(made, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(made[0], tmp_path / "checkpoint")


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_the_model_with_the_dequantised_values(tmp_path, picture, tied):
    expected = checkpoint_with_gguf(tmp_path / "it", tied=tied)
    vlm = interp.load(tmp_path / "it", device="cpu")
    ours, theirs = vlm.model.state_dict(), expected.model.state_dict()
    assert ours.keys() == theirs.keys()
    for name in theirs:
        assert torch.equal(ours[name], theirs[name]), name
    assert (vlm.head.weight is vlm.model.get_input_embeddings().weight) == tied
    assert vlm.end_ids == expected.end_ids
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    assert torch.equal(trace.states, expected.trace(picture, PROMPT, max_new_tokens=3).states)
    logits = tiny.naive_logits(vlm, trace)
    torch.testing.assert_close(interp.logit_lens(trace).log_z, logits.logsumexp(-1), atol=1e-3, rtol=1e-4)


def test_in_16_bit_every_value_is_the_nearest_one(made, monkeypatch):
    folder, expected = made
    monkeypatch.setattr(loading, "dtype_on", lambda *_devices: torch.bfloat16)
    vlm = interp.load(folder, device="cpu")
    for ours, theirs in zip(vlm.decoder.parameters(), expected.decoder.parameters(), strict=True):
        assert torch.equal(ours, theirs.bfloat16())


def test_saved_again_it_is_all_safetensors(made, tmp_path):
    vlm = interp.load(made[0], device="cpu")
    again = interp.load(tiny.save(tmp_path, vlm.model, vlm.processor), device="cpu")
    assert all(map(torch.equal, again.model.parameters(), vlm.model.parameters()))


def test_a_repository_is_downloaded_with_its_gguf_file(made, model_hub, picture):
    shutil.copytree(made[0], model_hub.repo("someone/gguf"), dirs_exist_ok=True)
    vlm = interp.load("someone/gguf", device="cpu")
    assert all(map(torch.equal, vlm.model.parameters(), made[1].model.parameters()))
    assert FILE in {file for file, _ in model_hub.sent}


def test_its_memory_is_counted_in_full(made, monkeypatch):
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 400_000)
    with pytest.raises(InterpError, match=r"for its weights alone, and 0\.0 GB are free\. Choose a smaller model or another device"):
        interp.load(made[0], device="cpu")


def test_4_bit_is_refused_and_not_chosen(made, monkeypatch):
    with pytest.raises(
        InterpError,
        match=r"its decoder is stored in blocks of tiny\.gguf, which a second rounding to 4 bit would spoil\. Load it with quantize='none'",
    ):
        interp.load(made[0], quantize="4bit", device="cpu")
    monkeypatch.setattr(loading, "pick_devices", lambda _device: [torch.device("cuda:0")])
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 1 << 30)
    monkeypatch.setattr(loading, "dtype_on", lambda *_devices: torch.float16)
    assert loading.fetch(made[0]).quantization is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda _data: b"", r"tiny\.gguf is damaged \(.*\)\. Delete .*tiny\.gguf and download it again\."),
        (lambda data: data[:200], "is damaged"),
        (lambda data: data[:-100], r"is damaged \(its last \d+ bytes are missing\)"),
        (lambda _data: b"nonsense" * 9, "is damaged .*GGUF magic"),
        (lambda data: data[:16] + b"\xff" * 8 + data[24:], "is damaged"),
        (lambda data: data.replace(b"general.architecture", b"general.architectur_"), "is damaged .*general.architecture"),
        (None, r"its weights are incomplete, 'tiny\.gguf' is missing"),
    ],
    ids=["empty", "header cut", "weights cut", "nonsense", "count", "no architecture", "missing"],
)
def test_damaged_files_are_named(folder, data, message):
    whole = (folder / FILE).read_bytes()
    (folder / FILE).unlink()
    if data:
        (folder / FILE).write_bytes(data(whole))
    with pytest.raises(InterpError, match=message):
        interp.load(folder, device="cpu")


@pytest.mark.parametrize("name", ["../tiny.gguf", "a/b.gguf", "weights.bin", 3, ""], ids=repr)
def test_only_a_gguf_file_of_the_folder_can_be_named(folder, name):
    change_config(folder, decoder_gguf=name)
    with pytest.raises(InterpError, match=r"decoder_gguf in its config\.json is .*; it must be the name of a \.gguf file beside it"):
        interp.load(folder, device="cpu")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "qwen2"}, "holds a decoder of type 'qwen2', and config.json describes a 'llama'"),
        ({"heads": 8}, "of different models: attention.head_count is 8 in the file and 4 in the config"),
        ({"base": 500.0}, "rope.freq_base is 500 in the file and 10000 in the config"),
        (
            {"without": "blk.1.attn_q"},
            r"of different models: blk\.1\.attn_q\.weight is missing in the file, and by the config it is 64 x 64",
        ),
    ],
)
def test_a_file_of_another_model_is_refused(tmp_path, settings, message):
    checkpoint_with_gguf(tmp_path / "it", **settings)
    with pytest.raises(InterpError, match=message):
        interp.load(tmp_path / "it", device="cpu")


def test_other_shapes_and_other_layers_are_refused(folder):
    config = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"intermediate_size": 96}, r"blk\.0\.ffn_gate\.weight is 64 x 64 in the file, and by the config it is 96 x 64"),
        ({"num_hidden_layers": 2}, r"blk\.2\.attn_q\.weight is 64 x 64 in the file, and by the config it is missing"),
    ):
        change_config(folder, text_config=config["text_config"] | changes)
        with pytest.raises(InterpError, match=message):
            interp.load(folder, device="cpu")


def test_a_preset_without_its_files_says_so(monkeypatch, tmp_path):
    monkeypatch.setitem(PRESETS, "smol-llava", dataclasses.replace(PRESETS["smol-llava"], checkpoint=str(tmp_path / "gone")))
    with pytest.raises(InterpError, match=r"The files of 'smol-llava' are missing: there is no folder .*gone"):
        interp.load("smol-llava")


def test_the_decoder_of_smol_llava_is_the_published_one_untouched():
    """A plain reading of the file by llama.cpp's own package."""
    vlm = interp.load("smol-llava", device="cpu")
    (path,) = Path(PRESETS["smol-llava"].checkpoint).glob("*.gguf")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    config = vlm.model.config.get_text_config()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    named = dict(vlm.decoder.named_parameters())
    assert len(stored) == len(named)
    assert vlm.head.weight is vlm.model.get_input_embeddings().weight
    for name, weight in named.items():
        in_file = gguf_name(name)
        tensor = stored[f"{in_file}.weight"]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        part = in_file.rpartition(".")[2]
        ours = reordered(weight.detach().numpy(), heads[part]) if part in heads else weight.detach().numpy()
        assert np.array_equal(ours, values), name
