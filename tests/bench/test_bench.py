"""The benchmarks run, at toy size on the CPU: what they compare gives the same answers, and their tables hold what they promise."""

import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

import interp
from tests.bench import attention_bench, concepts_bench, full_size, gpu_bench, naive, peers_bench, peers_errors
from tests.bench.__main__ import main
from tests.bench.full_size import SHAPES
from tests.bench.sae_bench import random_sae, random_states


def parameters(shape):
    with torch.device("meta"):
        model = full_size.AutoModelForImageTextToText.from_config(full_size.config_of(shape))
    return sum(weight.numel() for weight in model.parameters())


def test_full_size_is_the_size_of_the_real_checkpoints():
    assert parameters(SHAPES["llava-1.5-7b"]) == 7_063_427_072
    assert parameters(SHAPES["llama3-llava-next-8b"]) == 8_355_276_800


@pytest.mark.parametrize("name", SHAPES)
def test_a_written_checkpoint_is_whole_finite_and_written_once(name, tmp_path):
    shape = SHAPES[name].toy()
    folder = full_size.write_checkpoint(tmp_path / name, shape)
    (shard,) = folder.glob("*.safetensors")
    with safe_open(shard, "pt") as file:
        assert {file.get_tensor(key).dtype for key in file.keys()} == {torch.float16}  # noqa: SIM118 - not a dict
    written = shard.stat().st_mtime_ns
    assert full_size.write_checkpoint(folder, shape) == folder
    assert shard.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [name]  # nothing unfinished is left behind
    vlm = interp.load(folder, device="cpu")
    trace = vlm.trace(gpu_bench.Subject(name, tmp_path, toy=True).picture, gpu_bench.PROMPT, max_new_tokens=1)
    assert trace.states.isfinite().all()
    assert len(trace.tokens) - 1 - len(trace.positions("image")) >= 17
    assert (len(trace.positions("image")) > shape.patches) == shape.tiles


@pytest.mark.parametrize("name", SHAPES)
def test_the_prompt_of_a_full_size_model_has_the_length_that_is_claimed(name):
    shape = SHAPES[name]
    shape = replace(shape.toy(), side=shape.side, context=shape.context)
    model = full_size.AutoModelForImageTextToText.from_config(full_size.config_of(shape))
    vlm = interp.Vlm(model, full_size.processor_of(shape))
    side = shape.side * (2 if shape.tiles else 1)
    length = vlm.prepare(torch.zeros(side, side, 3, dtype=torch.uint8).numpy(), gpu_bench.PROMPT)["input_ids"].shape[1]
    assert length == (2945 if shape.tiles else 593)


def test_every_part_of_the_gpu_bench_runs_at_toy_size(tmp_path, capsys):
    rows = gpu_bench.run(folder=tmp_path, toy=True)
    assert {row[0] for row in rows} == set(SHAPES)
    told = " ".join(row[1] for row in rows)
    for what in ("full lens", "naive implementation", "trace", "plain and steered", "top features", "first word of the nf4 lens"):
        assert told.count(what) >= len(SHAPES), what
    out = capsys.readouterr().out
    assert "says nothing about full size" in out
    assert "target" not in out  # nothing at toy size is held against a target of full size
    assert "GiB" not in out


def test_without_a_gpu_the_gpu_bench_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="No GPU"):
        gpu_bench.run()


def test_a_step_that_does_not_fit_is_told_and_measured_without_the_limit(monkeypatch, tmp_path, capsys):
    subject = gpu_bench.Subject("llava-1.5-7b", tmp_path, toy=True)
    subject.toy = False
    limits = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 9 << 30)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 10 << 30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: type("Card", (), {"total_memory": 32 << 30}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)

    def needs_nine():
        if limits[-1] < 9 / 32:
            raise torch.OutOfMemoryError("out of memory")

    subject.fits("a step", 8, needs_nine)
    subject.fits("a step", 15, needs_nine)
    assert limits == [8 / 32, 1.0, 15 / 32, 1.0]
    assert [row[-1] for row in subject.rows] == ["MISSED", "met"]
    assert subject.rows[0][2] == "9.00 GiB, 10.00 GiB reserved"
    assert "a step within 8 GiB: out of memory" in capsys.readouterr().out


def test_the_naive_formulas_are_right_but_for_their_known_errors(vlm, trace, lens):
    table = naive.lens_table(naive.hidden_states(trace.states, vlm.norm), vlm.norm, vlm.head, vlm.tokenizer.decode, 3)
    words = [[[vlm.tokenizer.decode([i]) for i in row] for row in rows] for rows in lens.ids.tolist()]
    assert [[[word for word, _ in row] for row in rows] for rows in table[:-1]] == words[:-1]
    assert [float(p) for p in (cell[1] for cell in table[2][5])] == pytest.approx(lens.probs[2, 5].tolist(), abs=5e-5)
    sae, states = random_sae(32, 256), random_states(9, 32)
    acts = sae.encode(states)
    features, values = acts.features.view(9, -1), acts.values.view(9, -1)
    torch.testing.assert_close(naive.dense_decode(sae, features.long(), values), sae.decode(acts), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(naive.replaced(sae, states), sae.decode(acts), atol=1e-5, rtol=1e-5)
    assert naive.cached_features(1000, 10) == 990


def test_the_naive_generation_says_what_the_steered_one_says(vlm, picture):
    push = torch.linspace(-1, 1, vlm.d_model)
    edit = interp.Edit(vector=push, layer=1, amount=1.0)
    inputs = vlm.prepare(picture, "Describe the image.")
    with torch.inference_mode():
        said = naive.generate_without_cache(vlm.model, dict(inputs), vlm.blocks[1], push, 5)
    # "answer" begins at the last position of the prompt; all before it are named, for elsewhere BOS and attention sinks would be spared.
    before = replace(edit, where={"positions": [*range(inputs["input_ids"].shape[1] - 1)]})
    found = interp.steer(vlm, picture, "Describe the image.", [before, replace(edit, where="answer")], max_new_tokens=5)
    assert list(found.steered_answer.ids) == said[: len(found.steered_answer.ids)]
    assert found.steered_answer.ids != found.plain_answer.ids


def cells(out):
    return [line.strip("| ").split(" | ") for line in out.splitlines() if line.startswith("|")]


def test_the_errors_of_the_reference_show_in_its_formulas_and_not_in_ours(capsys):
    peers_errors.lens_errors(pictures=1, width=64, layers=1)
    *_, own, uneven, kl, labels = [row[2:4] for row in cells(capsys.readouterr().out)]
    assert own[1] == uneven[1] == "100.0%"
    assert float(uneven[0].rstrip("%")) < 90
    assert float(kl[0]) > 100 * abs(float(kl[1]))
    assert [text.split(",")[0] for text in labels] == ["0", "8"]
    peers_errors.sae_errors(pictures=1)
    assert ["130944 of 131072", "2048 of 2048"] in [row[2:4] for row in cells(capsys.readouterr().out)]
    peers_errors.steering_errors(pictures=1)
    *_, moved, kl, changed, acted = [row[2:4] for row in cells(capsys.readouterr().out)]
    assert (float(moved[0]) > 0.05, float(moved[1]) < 1e-6) == (True, True)
    assert (float(kl[0]) > 5e-5, float(kl[1]) < 1e-6) == (True, True)
    assert changed[1] == "0 of 1"
    assert int(acted[0].split(":")[0]) < int(acted[1].split(":")[0])


def test_costs_are_set_side_by_side(capsys):
    peers_bench.sae(width=32, features=512, tokens=40, runs=1)
    peers_bench.steering(width=32, features=512, tokens=40, new=2, layers=1)
    rows = cells(capsys.readouterr().out)
    assert all(len(row) == len(peers_errors.COLUMNS) for row in rows)
    kinds = ("measured", "arithmetic", "published", "no figure")
    assert all(any(kind in row[1] for kind in kinds) for row in rows if row[0] not in {"what", "---"})


def test_attention_rows_are_those_of_eager_attention_and_their_cost_is_told(capsys):
    attention_bench.rows(width=32, layers=2, heads=2, runs=1)
    attention_bench.trace(width=32, layers=2, heads=2, runs=1)
    out = capsys.readouterr().out
    for what in ("rows / plain forward", "eager, all weights: peak", "x the rows'", "after / before"):
        assert what in out


def test_attribution_agrees_with_the_loop_and_its_cost_is_told(capsys):
    attention_bench.attribution(width=64, layers=3, heads=2, features=512, runs=1)
    out = capsys.readouterr().out
    for what in ("attribution / forward, backward, encode", "extrapolated from 16", "with the exact effects of 50 features"):
        assert what in out
    assert float(out.split("correlate with ")[1].split()[0]) > 0.9


def test_information_flow_is_that_of_single_forwards_and_its_cost_is_told(capsys):
    attention_bench.flow(width=32, layers=5, heads=2)
    out = capsys.readouterr().out
    assert "6 paths x 5 windows" in out
    assert "flow / 30 single forwards, estimated from 2 =" in out


def test_concepts_are_collected_and_learned_and_their_cost_is_told(capsys):
    concepts_bench.collecting(samples=4, new=4)
    concepts_bench.semi(count=60, width=16, k=3)
    out = capsys.readouterr().out
    assert "collect, 4 layers / plain generations, one at a time =" in out
    losses = [float(line.split("objective ")[1].split(",")[0]) for line in out.splitlines() if "objective" in line]
    assert losses[0] <= losses[1] * 1.01


def test_an_unknown_part_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bench", "gpu", "lense"])
    with pytest.raises(SystemExit):
        main()
    assert "gpu does not know lense" in capsys.readouterr().err
