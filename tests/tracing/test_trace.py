import itertools
import threading

import pytest
import torch

import interp
from interp import EMBED, InterpError
from tests import tiny
from tests.conftest import PROMPT

NAMES = ["crop", "pad", "stretch", "interleave", "ignored cap"]


class Forwards:
    """Counts the decoder's forwards and the positions that entered each."""

    def __init__(self, vlm):
        self._decoder, self.lengths = vlm.model.get_decoder(), []

    def __enter__(self):
        def count(_module, _args, kwargs):
            self.lengths.append(kwargs["inputs_embeds"].shape[1])

        self._handle = self._decoder.register_forward_pre_hook(count, with_kwargs=True)
        return self

    def __exit__(self, *_):
        self._handle.remove()


def hooks_of(vlm):
    return [hook for module in vlm.model.modules() for kind in (module._forward_hooks, module._forward_pre_hooks) for hook in kind.values()]


def same(one, other):
    return one.answer == other.answer and one.tokens == other.tokens and torch.equal(one.states, other.states)


@pytest.mark.parametrize("new", [1, 2, 6])
def test_one_generation_and_nothing_else(vlm, picture, new):
    prompt = vlm.prepare(picture, PROMPT)["input_ids"].shape[1]
    with Forwards(vlm) as forwards:
        trace = vlm.trace(picture, PROMPT, max_new_tokens=new)
    assert forwards.lengths == [prompt] + [1] * (new - 1)  # prefill, then one for each further token
    assert trace.states.shape == (vlm.n_layers + 1, prompt + new - 1, vlm.d_model)
    assert len(trace.tokens) == prompt + new
    assert trace.states.device.type == "cpu"


@pytest.mark.parametrize("name", NAMES)
def test_states_are_a_plain_forwards_hidden_states(load, picture, name):
    vlm = load(name)
    trace = vlm.trace(picture, PROMPT, max_new_tokens=5)
    output = tiny.full_forward(vlm, trace)
    assert trace.n_layers == vlm.n_layers == 3
    torch.testing.assert_close(trace.residual(EMBED), output.hidden_states[0][0], atol=1e-4, rtol=1e-4)
    for layer in range(vlm.n_layers - 1):  # layer l is what transformers calls hidden_states[l + 1] ...
        torch.testing.assert_close(trace.residual(layer), output.hidden_states[layer + 1][0], atol=1e-4, rtol=1e-4)
    with torch.inference_mode():  # ... but for the last, which it has normed
        last = vlm.norm(trace.residual(vlm.n_layers - 1))
    torch.testing.assert_close(last, output.hidden_states[-1][0], atol=1e-4, rtol=1e-4)
    assert (trace.residual(vlm.n_layers - 1) - output.hidden_states[-1][0]).abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_tokens_say_what_they_are(load, picture, name):
    vlm = load(name)
    trace = vlm.trace(picture, PROMPT, answer="dog and cat")
    inputs = vlm.prepare(picture, PROMPT)
    kinds = [token.kind for token in trace.tokens]
    prompt = inputs["input_ids"].shape[1]
    assert [token.id for token in trace.tokens[:prompt]] == inputs["input_ids"][0].tolist()
    assert [at for at, kind in enumerate(kinds) if kind == "image"] == trace.grids[0].positions.flatten().tolist()
    assert "".join(token.text for token in trace.tokens if token.kind == "prompt").endswith(
        "ASSISTANT:" if name != "interleave" else "assistant\n"
    )
    assert PROMPT in "".join(token.text for token in trace.tokens if token.kind == "prompt")
    assert "".join(token.text for token in trace.tokens if token.kind == "answer").strip() == "dog and cat"
    assert kinds[0] == kinds[-1] == "special"
    assert trace.tokens[-1].id == vlm.tokenizer.eos_token_id
    assert all(at >= prompt for at, kind in enumerate(kinds) if kind == "answer")
    assert trace.positions("image", "prompt") == [at for at, kind in enumerate(kinds[:-1]) if kind in {"image", "prompt"}]


def test_the_answer_is_what_the_last_layer_reads_whatever_the_checkpoint_asks_for(vlm, picture, monkeypatch):
    own = vlm.model.generation_config
    plain = vlm.trace(picture, PROMPT, max_new_tokens=5)
    monkeypatch.setattr(own, "repetition_penalty", 9.0)
    monkeypatch.setattr(own, "suppress_tokens", [plain.tokens[-1].id])
    assert vlm.trace(picture, PROMPT, max_new_tokens=5).tokens == plain.tokens
    assert vlm.model.generation_config is own


def test_an_image_token_in_the_answer_is_no_piece_of_the_picture(vlm, picture):
    plain = vlm.trace(picture, PROMPT, answer="dog")
    favour = torch.nn.functional.one_hot(torch.tensor(vlm.image_token_id), vlm.head.weight.shape[0]) * 1e4
    handle = vlm.head.register_forward_hook(lambda _module, _args, logits: logits + favour)
    odd = vlm.trace(picture, PROMPT, max_new_tokens=2)
    handle.remove()
    assert odd.tokens[-1].id == vlm.image_token_id
    assert odd.positions("image") == plain.positions("image")


def test_an_answer_that_ends_by_itself(vlm, monkeypatch):
    for seed in range(50):  # until a random answer has a word that is new at its place
        picture = tiny.noise(120, 90, seed=seed)
        trace = vlm.trace(picture, PROMPT, max_new_tokens=6)
        start = next(i for i, token in enumerate(trace.tokens) if token.kind == "answer")
        ids = [token.id for token in trace.tokens[start:]]
        length = next((n for n in range(2, len(ids)) if ids[n] not in ids[:n]), 0)
        if length:
            break
    assert not trace.finished
    monkeypatch.setattr(vlm.model.generation_config, "eos_token_id", [9999, ids[length]])
    with Forwards(vlm) as forwards:
        ended = vlm.trace(picture, PROMPT, max_new_tokens=len(ids))
    assert ended.finished
    assert len(ended.tokens) == start + length + 1
    assert ended.states.shape[1] == start + length  # the end itself never enters the model
    assert len(forwards.lengths) == length + 1
    assert torch.equal(ended.states, trace.states[:, : start + length])
    assert ended.states.untyped_storage().nbytes() == ended.states.nbytes  # the room for the rest of the answer is given back


@pytest.mark.parametrize("name", ["crop", "pad", "stretch", "ignored cap"])
def test_a_forced_answer_gives_the_trace_that_generating_it_gave(load, picture, name):
    vlm = load(name)
    free = vlm.trace(picture, PROMPT, max_new_tokens=6)
    with Forwards(vlm) as forwards:
        forced = vlm.trace(picture, PROMPT, answer=free.answer)
    assert len(forwards.lengths) == 2  # the prompt, and the answer behind it
    assert sum(forwards.lengths) == forced.length
    assert forced.answer == free.answer
    assert forced.finished
    assert forced.tokens[:-1] == free.tokens  # the forced answer ends; so all of its words enter the model
    torch.testing.assert_close(forced.states[:, : free.states.shape[1]], free.states, atol=1e-4, rtol=1e-4)
    assert forced.states.shape[1] == free.states.shape[1] + 1
    answer = next(i for i, token in enumerate(forced.tokens) if token.kind == "answer")
    rows = interp.logit_lens(forced, top_k=1, layers=[vlm.n_layers - 1]).ids[0, :, 0]
    assert rows[answer - 1 : -1].tolist() == [token.id for token in free.tokens[answer:]]


@pytest.mark.parametrize("answer", ["dog", " dog ", "dog\n", "2 dogs, é and 🐶"])
@pytest.mark.parametrize("name", ["crop", "interleave"])
def test_any_answer_can_be_forced(load, picture, name, answer):
    trace = load(name).trace(picture, PROMPT, answer=answer)
    assert trace.answer == answer.strip()


@pytest.mark.parametrize("answer", ["", " \n"])
def test_an_empty_forced_answer_is_refused(vlm, picture, answer):
    with pytest.raises(InterpError, match="forced answer is empty"):
        vlm.trace(picture, PROMPT, answer=answer)


@pytest.mark.parametrize("layer", [3, -2, 99])
def test_layers_that_do_not_exist(trace, layer):
    with pytest.raises(InterpError, match=f"Layer {layer} does not exist"):
        trace.residual(layer)


def test_no_hook_is_left(vlm, picture):
    before = hooks_of(vlm)
    vlm.trace(picture, PROMPT, max_new_tokens=2)
    vlm.trace(picture, PROMPT, answer="dog")
    assert hooks_of(vlm) == before


@pytest.mark.parametrize("where", ["layer", "callback"])
def test_no_hook_is_left_after_an_exception(vlm, picture, where, trace):
    def fail(*_):
        raise ZeroDivisionError

    before = hooks_of(vlm)  # transformers leaves hooks of its own once hidden states have been asked for
    handle = vlm.blocks[1].register_forward_pre_hook(fail) if where == "layer" else None
    with pytest.raises(ZeroDivisionError):
        vlm.trace(picture, PROMPT, on_text=fail)
    if handle:
        handle.remove()
    assert hooks_of(vlm) == before
    assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)  # and the next call works


def test_layers_that_return_tuples(vlm, picture, trace):
    """As transformers before 5 did, and as other people's layers do."""
    handles = []
    decoder = vlm.model.get_decoder()
    for layer, after in zip(vlm.blocks, [*vlm.blocks[1:], decoder.norm], strict=True):
        handles.append(
            after.register_forward_pre_hook(lambda _module, args: (args[0][0] if isinstance(args[0], tuple) else args[0], *args[1:]))
        )
        handles.append(layer.register_forward_hook(lambda _module, _args, output: (output, "something else")))
    try:
        assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)
    finally:
        for handle in handles:
            handle.remove()


def test_layers_called_by_keyword(vlm, picture, trace, monkeypatch):
    first = vlm.blocks[0]
    forward = first.__class__.__call__
    monkeypatch.setattr(
        first.__class__, "__call__", lambda self, hidden_states, **kwargs: forward(self, hidden_states=hidden_states, **kwargs)
    )
    assert same(vlm.trace(picture, PROMPT, max_new_tokens=6), trace)


def test_a_layer_that_is_passed_over_is_an_error(vlm, picture, monkeypatch):
    monkeypatch.setattr(vlm, "blocks", [*vlm.blocks, torch.nn.Identity()])
    with pytest.raises(InterpError, match=r"^Layer 3 never ran as a module of its own"):
        vlm.trace(picture, PROMPT, max_new_tokens=2)


def test_text_grows_and_ends_with_the_answer(vlm, picture, trace):
    seen = []
    vlm.trace(picture, PROMPT, max_new_tokens=6, on_text=seen.append)
    assert len(seen) == 6
    assert all(later.startswith(earlier) and len(later) > len(earlier) for earlier, later in itertools.pairwise(seen))
    assert seen[-1] == trace.answer


def in_threads(*tasks):
    """Run all at once; their results in order."""
    results, gate = [None] * len(tasks), threading.Barrier(len(tasks))

    def run(index, task):
        gate.wait()
        results[index] = task()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_threads_get_the_results_they_would_get_alone(vlm):
    pictures = [tiny.noise(80, 60, seed) for seed in range(4)]
    prompts = [tiny.shuffled_words(3 + n, n) for n in range(4)]

    def task(n):
        trace = vlm.trace(pictures[n], prompts[n], max_new_tokens=4)
        return trace, interp.logit_lens(trace).probs, interp.logit_lens(trace, layers=[1]).probability("dog")

    alone = [task(n) for n in range(4)]
    together = in_threads(*[lambda n=n: task(n) for n in range(4)])
    for (trace, probs, dog), (other, other_probs, other_dog) in zip(alone, together, strict=True):
        assert same(trace, other)
        assert torch.equal(probs, other_probs)
        assert torch.equal(dog, other_dog)
