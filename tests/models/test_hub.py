"""Downloads from the hub: what is refused before anything large is fetched, and what happens when a download breaks."""

import json
import shutil
import socket
import time

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file

from interp import InterpError
from interp.models import hub
from tests.hub_server import TOKEN
from tests.sae_checkpoints import point_at

REPO = "someone/vlm"


@pytest.fixture
def repo(model_hub):
    """A repository of two files of weights, and of much that is not needed."""
    folder = model_hub.repo(REPO)
    shards = {f"layer{i}": f"model-0000{i}-of-00002.safetensors" for i in (1, 2)}
    for name, file in shards.items():
        save_file({name: torch.zeros(50_000)}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "config.json").write_text('{"model_type": "llava"}')
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "onnx").mkdir()
    for unwanted in (
        "pytorch_model.bin",
        "consolidated.safetensors",
        "model.gguf",
        "README.md",
        "onnx/model.onnx",
        "onnx/config.json",
        "a.py",
    ):
        (folder / unwanted).write_bytes(b"x" * 100_000)
    return folder


NEEDED = {
    "config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
}


def size_of(folder, names):
    return sum((folder / name).stat().st_size for name in names)


def fetched(model_hub):
    return {file for file, _ in model_hub.sent}


def test_only_what_is_needed_is_asked_for_and_downloaded(repo, model_hub):
    offer = hub.ask(REPO)
    assert set(offer.files) == NEEDED
    assert offer.total == size_of(repo, NEEDED)
    assert fetched(model_hub) == {"config.json", "model.safetensors.index.json"}
    assert offer.missing == offer.total - size_of(repo, fetched(model_hub))
    texts = []
    hub.download(offer, texts.append)
    assert {file.name for file in offer.folder.iterdir()} == NEEDED
    assert fetched(model_hub) == NEEDED
    assert texts[0].startswith("Downloading someone/vlm: ")
    assert all(text.endswith("of 0.4 MB") for text in texts)
    assert hub.ask(REPO).missing == 0
    sent = len(model_hub.sent)
    hub.download(hub.ask(REPO))
    assert len(model_hub.sent) == sent


def test_one_file_of_weights_is_preferred_to_several(repo):
    save_file({"all": torch.zeros(9)}, repo / "model.safetensors")
    assert [name for name in hub.ask(REPO).files if name.endswith(".safetensors")] == ["model.safetensors"]


def test_progress_comes_a_few_times_a_second_at_most(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(hub.time, "monotonic", lambda: now[0])
    seen = []
    bar = hub._bar(seen.append)
    received, files = bar(unit="B", total=0), bar(total=2)
    for _ in range(50):
        now[0] += 0.05
        received.update(10)
        files.update(1)
    assert seen == sorted(seen)
    assert 5 <= len(seen) <= 50 * 0.05 / hub._EVERY + 1
    assert hub._of(3_240_000_000, 14_130_000_000) == "3.2 of 14.1 GB"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(repo, model_hub):
    offer = hub.ask(REPO)
    model_hub.breaks["model-00001-of-00002.safetensors"] = 2
    hub.download(offer)
    assert any(start > 0 for _, start in model_hub.sent)
    for name in NEEDED:
        assert (offer.folder / name).read_bytes() == (repo / name).read_bytes()


def test_a_download_that_ends_says_so_and_keeps_what_arrived_whole(repo, model_hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _seconds: None)
    offer, second = hub.ask(REPO), "model-00002-of-00002.safetensors"
    model_hub.breaks[second] = 99
    with pytest.raises(InterpError, match=r"download of 'someone/vlm' was interrupted \(.*\)\. Complete files are kept: load it again"):
        hub.download(offer)
    model_hub.breaks.clear()
    again = hub.ask(REPO)
    assert again.missing == (repo / second).stat().st_size
    model_hub.sent.clear()
    hub.download(again)
    assert fetched(model_hub) == {second}
    assert {file.name for file in offer.folder.iterdir()} == NEEDED


def test_a_gated_repository_says_where_its_licence_is(repo, model_hub, monkeypatch):
    model_hub.gated.add(REPO)
    with pytest.raises(
        InterpError, match=r"is gated: accept its licence at http://127\S+/someone/vlm, then log in with `hf auth login` or set .*HF_TOKEN"
    ):
        hub.ask(REPO)
    assert model_hub.sent == []
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert hub.ask(REPO).missing > 0


def test_a_token_without_access_is_told_apart(repo, model_hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(
        model_hub, "refusal", lambda path, _: None if path.startswith("/api") else (403, {"X-Error-Code": "GatedRepo"}, b"")
    )
    with pytest.raises(InterpError, match=r"is gated, and the account whose token is used has no access: accept its licence at"):
        hub.ask(REPO)


def test_a_token_that_is_none(repo, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(InterpError, match=r"refuses the token that is used for 'someone/vlm' \(it answered 401\): log in"):
        hub.ask(REPO)


def test_private_and_unknown_repositories_and_revisions(repo, model_hub):
    with pytest.raises(InterpError, match=r"There is no repository 'someone/else'.*or it is private"):
        hub.ask("someone/else")
    with pytest.raises(InterpError, match=r"has no revision 'v9'\. Leave it out"):
        hub.ask(REPO, "v9")
    model_hub.private.add(REPO)
    with pytest.raises(InterpError, match=r"There is no repository 'someone/vlm'.*or it is private: check its id, or log in"):
        hub.ask(REPO)


@pytest.mark.parametrize("name", ["someone/", "/vlm", "some one/vlm", "someone/vlm--x", "someone/..", "a/b/c", "x" * 99 + "/y"])
def test_what_cannot_be_an_id(model_hub, name):
    with pytest.raises(InterpError, match=r"neither a folder nor the id of a repository|no repository"):
        hub.ask(name)
    assert model_hub.sent == []


def test_pickles_and_repositories_without_a_model(repo, model_hub):
    for file in repo.glob("model*"):
        file.unlink()
    with pytest.raises(InterpError, match=r"its weights are only pickles \(pytorch_model\.bin\), which can run code.*safetensors"):
        hub.ask(REPO)
    (repo / "pytorch_model.bin").unlink()
    with pytest.raises(InterpError, match=r"it has no weights, neither model\.safetensors nor"):
        hub.ask(REPO)
    (repo / "config.json").unlink()
    with pytest.raises(InterpError, match=r"it has no config\.json"):
        hub.ask(REPO)
    assert fetched(model_hub) == {"config.json"}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ('{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../other.safetensors"}}', r"'\.\./other\.safetensors' is missing"),
        ('{"weight_map": 3}', "answer about .* cannot be read"),
        ("[]", "answer about .* cannot be read"),
        ("{", "answer about .* cannot be read"),
    ],
)
def test_a_senseless_index(repo, index, message):
    (repo / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InterpError, match=message):
        hub.ask(REPO)


def test_a_disk_too_small_is_told_before_the_download(repo, model_hub, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda _folder: usage._replace(free=300_000))
    with pytest.raises(
        InterpError, match=r"needs 0\.4 MB more disk space, and 0\.3 MB are free in \S+cache\. Free some space, or set .*HF_HUB_CACHE"
    ):
        hub.ask(REPO)
    assert fetched(model_hub) == {"config.json", "model.safetensors.index.json"}


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "The disk is full.*HF_HUB_CACHE"),
        (RuntimeError("Data processing error: No space left on device (os error 28)"), "The disk is full"),
        (PermissionError(13, "Permission denied"), "cannot be written to.*HF_HUB_CACHE"),
        (ConnectionResetError(104, "Connection reset by peer"), "interrupted.*load it again"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_ends_a_download_is_named(repo, monkeypatch, error, message):
    offer = hub.ask(REPO)

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(hub, "snapshot_download", fail)
    with pytest.raises(InterpError, match=message):
        hub.download(offer)


def test_without_a_network_what_was_downloaded_is_taken(repo, model_hub, monkeypatch, tmp_path):
    nowhere = "http://127.0.0.1:9"  # the port of the discard service, which nobody runs
    cache = tmp_path / "cache"
    online = huggingface_hub.constants.ENDPOINT

    point_at(monkeypatch, nowhere, cache)
    began = time.monotonic()
    with pytest.raises(InterpError, match=r"is not in the cache, and the Hugging Face hub cannot be reached \(.*\)\. Connect"):
        hub.ask(REPO)
    assert time.monotonic() - began < 5

    point_at(monkeypatch, online, cache)
    offer = hub.ask(REPO)
    point_at(monkeypatch, nowhere, cache)
    with pytest.raises(InterpError, match="was only partly downloaded"):
        hub.ask(REPO)

    point_at(monkeypatch, online, cache)
    hub.download(offer)
    for offline in (True, False):
        point_at(monkeypatch, nowhere, cache, offline=offline)
        kept = hub.ask(REPO)
        assert (kept.folder, kept.commit, kept.missing) == (offer.folder, offer.commit, 0)
        assert hub.ask(REPO, offer.commit).folder == offer.folder
    point_at(monkeypatch, nowhere, cache, offline=True)
    with pytest.raises(InterpError, match="'someone/other' is not in the cache, and HF_HUB_OFFLINE is set"):
        hub.ask("someone/other")

    point_at(monkeypatch, online, cache)
    for status in (503, 429):
        model_hub.down = status
        assert hub.ask(REPO).folder == offer.folder
        with pytest.raises(InterpError, match="cannot be reached"):
            hub.ask("someone/other")
    model_hub.down = 418
    with pytest.raises(InterpError, match=r"answered 418 when asked for 'someone/vlm'\. Try again later"):
        hub.ask(REPO)


def test_a_hub_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point_at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "cache")
        began = time.monotonic()
        with pytest.raises(InterpError, match="cannot be reached"):
            hub.ask(REPO)
    assert time.monotonic() - began < 10
