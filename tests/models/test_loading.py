"""Loading models from presets, folders and hub repositories: what is refused before a download, and what after it."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

import interp
from interp import InterpError
from interp.models import loading
from interp.presets import PRESETS
from tests import tiny
from tests.conftest import PROMPT

REPO = "someone/vlm"


@pytest.fixture
def repo(model_hub, checkpoint):
    """A tiny checkpoint on the hub."""
    return Path(shutil.copytree(checkpoint("crop"), model_hub.repo(REPO), dirs_exist_ok=True))


def edit_config(folder, **changes):
    path = Path(folder) / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def only_the_config_was_sent(hub):
    return {file for file, _ in hub.sent} == {"config.json"}


def test_a_hub_id_gives_what_its_folder_gives(repo, vlm, picture, trace):
    texts = []
    loaded = interp.load(REPO, device="cpu", on_progress=texts.append)
    assert loaded.names == (REPO, REPO)
    assert torch.equal(loaded.trace(picture, PROMPT, max_new_tokens=6).states, trace.states)
    assert texts[0] == f"Asking the hub for {REPO} …"
    assert all(text.startswith(f"Downloading {REPO}: ") for text in texts[1:-1])
    assert len(texts) > 2
    assert texts[-1] == f"Loading {REPO} …"


def test_a_preset_comes_from_its_repository(model_hub, checkpoint, monkeypatch):
    preset = PRESETS["llava-interleave-0.5b"]
    shutil.copytree(checkpoint("interleave"), model_hub.repo(preset.checkpoint), dirs_exist_ok=True)
    loaded = interp.load(preset.name, device="cpu")
    assert loaded.names == (preset.name, preset.checkpoint)
    with pytest.raises(InterpError, match="has no revision 'v2'"):
        interp.load(preset.name, device="cpu", revision="v2")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, r"model_type 'llama' is not supported: its layout is not known\. Supported families: .*llava"),
        ({"model_type": "mllama"}, r"'mllama' is not supported: it reads the picture by cross-attention"),
        (
            {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config"}},
            r"custom code \(trust_remote_code\), which is not run here",
        ),
        ({"model_type": None}, r"model_type None is not supported"),
        ({"model_type": ["llava"]}, r"'someone/vlm' cannot be loaded"),
    ],
)
def test_families_are_refused_before_the_download(repo, model_hub, changes, message):
    edit_config(repo, **changes)
    with pytest.raises(InterpError, match=message):
        interp.load(REPO, device="cpu")
    assert only_the_config_was_sent(model_hub)


@pytest.mark.parametrize("torch_version", ["2.13.0", "2.11.0+cu128"])
def test_a_missing_package_is_named_before_the_download(repo, model_hub, monkeypatch, torch_version):
    edit_config(repo, model_type="qwen2_vl")
    real = loading.importlib.util.find_spec
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None if name == "torchvision" else real(name))
    monkeypatch.setattr(loading.torch, "__version__", torch_version)
    goes_with_it = {"2.13.0": "0.28.0", "2.11.0+cu128": "0.26.0"}[torch_version]
    with pytest.raises(InterpError, match=rf"needs torchvision, which is not installed\. Run: pip install torchvision=={goes_with_it}$"):
        interp.load(REPO, device="cpu")
    assert only_the_config_was_sent(model_hub)


def test_a_processor_that_asks_for_a_package_by_itself(checkpoint, monkeypatch):
    def fail(*_args, **_kwargs):
        raise ImportError("\nSomeProcessor requires the Torchvision library but it was not found in your environment.")

    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", fail)
    with pytest.raises(InterpError, match=r"needs torchvision, which is not installed\. Run: pip install torchvision==0\."):
        interp.load(checkpoint("crop"), device="cpu")


def test_memory_is_counted_before_the_download(repo, model_hub, monkeypatch):
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 500_000)
    with pytest.raises(InterpError, match=r"needs 0\.\d+ GB on cpu for its weights alone, and 0\.0 GB are free\. .*quantize='4bit'"):
        interp.load(REPO, device="cpu")
    assert only_the_config_was_sent(model_hub)
    assert loading.fetch(REPO, device="cpu", spare=500_000).name == REPO


@pytest.mark.parametrize(("name", "quantize"), [("crop", "none"), ("interleave", "none"), ("crop", "4bit"), ("interleave", "4bit")])
def test_the_estimate_is_what_the_weights_take(checkpoint, load, monkeypatch, name, quantize):
    """The scales of 4-bit blocks come on top: nothing that would fit may be refused."""
    real = sum(weight.nbytes for weight in load(name, quantize).model.parameters())
    counted = []
    monkeypatch.setattr(loading, "_check_memory", lambda _name, needed, *_rest: counted.append(needed))
    loading.fetch(checkpoint(name), quantize=quantize, device="cpu")
    assert counted == [real]


def test_weights_that_are_cut_short_are_told_before_they_are_loaded(repo, model_hub, monkeypatch):
    whole = (repo / "model.safetensors").read_bytes()
    (repo / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(InterpError, match=r"model\.safetensors is damaged \(.*\)\. Delete (\S+) and download it again") as caught:
        loading.fetch(REPO, device="cpu")
    (repo / "model.safetensors").write_bytes(whole)
    Path(str(caught.value).partition("Delete ")[2].partition(" ")[0]).unlink()
    assert interp.load(REPO, device="cpu").n_layers == 3


def test_a_missing_tokenizer_is_named(checkpoint_copy):
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint_copy / file).unlink()
    with pytest.raises(InterpError, match=r"its tokenizer is missing \(none of tokenizer\.json, "):
        interp.load(checkpoint_copy, device="cpu")


@pytest.mark.parametrize("name", ["crop", "interleave"])
def test_old_checkpoints_leave_out_how_image_tokens_are_counted(checkpoint, load, picture, tmp_path, name):
    folder = Path(shutil.copytree(checkpoint(name), tmp_path / "old"))
    settings = json.loads((folder / "processor_config.json").read_text())
    for setting in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        del settings[setting]
    (folder / "processor_config.json").write_text(json.dumps(settings))
    old, new = interp.load(folder, device="cpu"), load(name)
    for setting in ("patch_size", "vision_feature_select_strategy", "num_additional_image_tokens"):
        assert getattr(old.processor, setting) == getattr(new.processor, setting), setting
    assert torch.equal(old.prepare(picture, PROMPT)["input_ids"], new.prepare(picture, PROMPT)["input_ids"])


def test_balanced_needs_two_gpus(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InterpError, match=r"device is 'balanced', .* torch sees 1 here"):
        interp.load(checkpoint("crop"), device="balanced")
    asked = {}

    def from_pretrained(_folder, **options):
        asked.update(options)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore.")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0) if device.index else (7, 5))
    monkeypatch.setattr(loading, "free_bytes", lambda _device: 1 << 30)
    monkeypatch.setattr(transformers.AutoModelForImageTextToText, "from_pretrained", from_pretrained)
    with pytest.raises(
        InterpError, match=r"does not fit the memory of cuda:0, cuda:1: CUDA out of memory\. .* Load it with quantize='4bit'"
    ):
        interp.load(checkpoint("crop"), device="balanced", quantize="none")
    assert asked["device_map"] == "balanced"
    assert asked["dtype"] == torch.float16  # what both have
    assert asked["quantization_config"] is None


@pytest.mark.parametrize(
    "name", ["no-such-model", "emoji_llava", "", ".", "/nowhere/at/all", "someone/no-such-model", "a/b/c", "../x", "x/" + 9999 * "y"]
)
def test_unknown_checkpoints_are_refused(name):
    with pytest.raises(
        InterpError,
        match=r"emoji-llava|holds no checkpoint|'someone/no-such-model' is not in the cache|neither a folder nor the id|at most 4096",
    ):
        interp.load(name)


@pytest.mark.parametrize("name", [None, 3, ["emoji-llava"]], ids=repr)
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InterpError):
        interp.load(name)


def test_a_path_object_is_a_folder_too(checkpoint):
    assert interp.load(Path(checkpoint("crop")), device="cpu").n_layers == 3


@pytest.mark.parametrize("quantize", ["8bit", "", None, True, 4, "4BIT"], ids=repr)
def test_bad_quantize(quantize):
    with pytest.raises(InterpError, match=r"must be one of auto, 4bit, none"):
        interp.load("emoji-llava", quantize=quantize)


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "cuda:99", "meta", None, 3], ids=repr)
def test_bad_devices(checkpoint, device):
    with pytest.raises(InterpError, match="device is"):
        interp.load(checkpoint("crop"), device=device)


def test_auto_is_not_quantised_on_a_cpu(checkpoint, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    vlm = interp.load(checkpoint("crop"))
    assert vlm.model.device.type == "cpu"
    assert not getattr(vlm.model.config, "quantization_config", None)
    assert vlm.model.dtype == torch.float32
    with pytest.raises(InterpError, match="torch sees no CUDA device"):
        interp.load(checkpoint("crop"), device="cuda")


def test_a_folder_of_pickles_is_refused(checkpoint_copy):
    weights = checkpoint_copy / "model.safetensors"
    torch.save(safetensors.torch.load_file(weights), checkpoint_copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(InterpError, match="safetensors"):
        interp.load(str(checkpoint_copy), device="cpu")


def test_a_known_family_that_brings_code_is_loaded_without_it(checkpoint_copy):
    edit_config(checkpoint_copy, auto_map={"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"})
    (checkpoint_copy / "evil.py").write_text("raise SystemExit('code of the checkpoint was run')")
    assert interp.load(checkpoint_copy, device="cpu").n_layers == 3


def test_code_in_a_checkpoint_is_not_run(checkpoint_copy):
    config = json.loads((checkpoint_copy / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}}
    (checkpoint_copy / "config.json").write_text(json.dumps(config))
    (checkpoint_copy / "evil.py").write_text("raise SystemExit('code of the checkpoint was run')")
    with pytest.raises(InterpError):
        interp.load(str(checkpoint_copy), device="cpu")


@pytest.mark.parametrize("file", ["config.json", "processor_config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "nonsense"])
def test_damaged_folders_are_refused(checkpoint_copy, file, damage):
    path = checkpoint_copy / file
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "nonsense": b"nonsense" * 9}[damage])
    with pytest.raises(InterpError, match="holds no checkpoint that can be loaded"):
        interp.load(str(checkpoint_copy), device="cpu")


@pytest.mark.parametrize("change", ["missing", "misshapen"])
def test_weights_that_do_not_fit_are_refused(checkpoint_copy, change):
    """transformers would fill them with random numbers and go on: a lens of noise, with the model's name on it."""
    weights = safetensors.torch.load_file(checkpoint_copy / "model.safetensors")
    name = next(key for key in weights if key.endswith("layers.1.mlp.up_proj.weight"))
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-8].clone()
    safetensors.torch.save_file(weights, checkpoint_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InterpError, match="up_proj"):
        interp.load(str(checkpoint_copy), device="cpu")


def test_presets_say_what_is_true(emoji_vlm):
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert 0 <= preset.default_layer < preset.n_layers
        assert preset.proved in {"real weights", "shape"}
    preset = PRESETS["emoji-llava"]
    assert (emoji_vlm.n_layers, emoji_vlm.default_layer) == (preset.n_layers, preset.default_layer)
    assert emoji_vlm.name == "emoji-llava"
    bytes_held = sum(parameter.nbytes for parameter in emoji_vlm.model.parameters())
    assert bytes_held < preset.memory_gb(cpu=True) * 1e9


def test_the_embedded_model_in_four_bit(emoji_vlm, picture):
    vlm = interp.load("emoji-llava", quantize="4bit", device="cpu")
    kinds = {name for name, module in vlm.model.named_modules() if type(module).__name__ == "Linear4bit"}
    assert kinds
    assert all(name.startswith("model.language_model.layers.") for name in kinds)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=3)
    lens = interp.logit_lens(trace, top_k=3)
    logits = tiny.naive_logits(vlm, trace)
    torch.testing.assert_close(lens.log_z, logits.logsumexp(-1), atol=1e-3, rtol=1e-4)
    plain = emoji_vlm.trace(picture, PROMPT, max_new_tokens=3)
    assert torch.equal(trace.residual(interp.EMBED)[:64], plain.residual(interp.EMBED)[:64])  # tower and projector are as they were
    assert not torch.equal(trace.residual(0)[:64], plain.residual(0)[:64])
