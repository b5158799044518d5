import pytest
import torch
from torch import nn

from interp import InterpError
from interp.models.hooks import Hooks
from tests.conftest import PROMPT


class Double(nn.Module):
    """As a decoder block of transformers 5: a state in, a state out."""

    def forward(self, hidden_states):
        return hidden_states * 2


class Pair(nn.Module):
    """As a decoder block of transformers 4: a tuple with the cache behind the state."""

    def forward(self, hidden_states, cache="cache"):
        return hidden_states * 2, cache


def test_a_state_is_seen_and_replaced_whether_it_is_a_tensor_or_in_a_tuple():
    seen = []
    for module in (Double(), Pair()):
        with Hooks() as hooks:
            hooks.on_output(module, seen.append)
            plain = module(torch.ones(2))
        with Hooks() as hooks:
            hooks.on_output(module, lambda hidden: hidden + 1)
            edited = module(torch.ones(2))
        assert type(edited) is type(plain)
        first, rest = (edited, ()) if isinstance(edited, torch.Tensor) else (edited[0], edited[1:])
        assert first.tolist() == [3, 3]
        assert rest in ((), ("cache",))
    assert [state.tolist() for state in seen] == [[2, 2], [2, 2]]


def test_an_input_is_seen_and_replaced_whether_it_is_named_or_not():
    module = Pair()
    with Hooks() as hooks:
        hooks.on_input(module, lambda hidden: hidden + 1)
        by_place = module(torch.ones(1), "mine")
        by_name = module(hidden_states=torch.ones(1), cache="mine")
    assert by_place[0].item() == by_name[0].item() == 4
    assert by_place[1] == by_name[1] == "mine"


def test_an_input_of_another_name():
    class Decoder(nn.Module):
        def forward(self, input_ids=None, inputs_embeds=None):
            return inputs_embeds if input_ids is None else input_ids

    decoder, seen = Decoder(), []
    with Hooks() as hooks:
        hooks.on_input(decoder, seen.append, keyword="inputs_embeds")
        decoder(input_ids=None, inputs_embeds=torch.ones(3))
    assert seen[0].tolist() == [1, 1, 1]


def test_hooks_of_one_module_follow_each_other():
    module = Double()
    with Hooks() as hooks:
        before = hooks.capture([module])
        hooks.on_output(module, lambda hidden: hidden + 1)
        after = hooks.capture([module])
        module(torch.ones(1))
    assert (before[0][0].item(), after[0][0].item()) == (2, 3)


def test_hooks_are_removed_after_an_error():
    module = Double()

    def run():
        with Hooks() as hooks:
            hooks.on_input(module, lambda _: None)
            hooks.on_output(module, lambda _: 1 / 0)
            module(torch.ones(1))

    with pytest.raises(ZeroDivisionError):
        run()
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_runs_are_counted():
    first, second = Double(), Double()
    with Hooks() as hooks:
        hooks.capture([first, first])
        hooks.on_input(second, lambda _: None)
        for _ in range(3):
            first(torch.ones(1))
        second(torch.ones(1))
    assert (hooks.calls[first], hooks.calls[second]) == (3, 1)


def test_a_module_that_never_runs_is_an_error_that_names_it():
    ran, idle = Double(), Double()

    def run(hook):
        with Hooks() as hooks:
            hook(hooks)
            ran(torch.ones(1))

    with pytest.raises(InterpError, match=r"^Layer 7 never ran as a module of its own"):
        run(lambda hooks: [hooks.on_output(module, lambda _: None, name=f"Layer {i}") for i, module in ((6, ran), (7, idle))])
    assert not idle._forward_hooks
    with pytest.raises(InterpError, match=r"^Double 1, Double 2 never ran"):
        run(lambda hooks: hooks.capture([ran, idle, Double()]))


def test_blocks_within_blocks():
    module = Double()
    with Hooks() as outer:
        outer.on_output(module, lambda hidden: hidden + 1)
        with Hooks() as inner:
            inner.on_output(module, lambda hidden: hidden * 10)
            assert module(torch.ones(1)).item() == 30
        assert module(torch.ones(1)).item() == 3
    assert module(torch.ones(1)).item() == 2
    assert (outer.calls[module], inner.calls[module]) == (2, 1)


def test_gradients_reach_what_is_kept(vlm, picture):
    inputs = vlm.prepare(picture, PROMPT)
    with vlm.lock, torch.enable_grad(), Hooks() as hooks:
        kept = hooks.capture(vlm.blocks, keep_grad=True)
        logits = vlm.model(**inputs).logits[0, -1]
        logits.max().backward()
    vlm.model.zero_grad()
    for (state,) in kept:
        assert state.grad.shape == state.shape == (1, inputs["input_ids"].shape[1], vlm.d_model)
        assert state.grad.abs().sum() > 0
    assert (kept[-1][0].grad[0, :-1] == 0).all(), "the last block's other positions are not read"


def test_gradients_begin_at_the_first_kept_state_of_frozen_weights():
    modules = [Double(), Double()]
    with torch.enable_grad(), Hooks() as hooks:
        kept = hooks.capture(modules, keep_grad=True)
        (modules[1](modules[0](torch.ones(1))) * 5).sum().backward()
    assert [state.grad.item() for (state,) in kept] == [10, 5]


def test_what_is_kept_without_gradients_is_detached():
    module = Double()
    with Hooks() as hooks:
        kept = hooks.capture([module])
        module(torch.ones(1, requires_grad=True))
    assert not kept[0][0].requires_grad


def test_gradients_that_are_switched_off_are_told():
    module = Double()
    with torch.no_grad(), Hooks() as hooks:
        hooks.capture([module], keep_grad=True)
        with pytest.raises(InterpError, match=r"under torch\.enable_grad"):
            module(torch.ones(1))
