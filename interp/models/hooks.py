"""Hooks on a model's modules for the length of a `with` block: read, replace or keep the states that pass.

Every reading and every intervention goes through here: recording, steering, and whatever a new capability needs.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from ..errors import InterpError

if TYPE_CHECKING:
    from types import TracebackType

    from torch.utils.hooks import RemovableHandle

Visit = Callable[[torch.Tensor], torch.Tensor | None]
"""Called with a state; what it returns takes the state's place, unless it is None."""


class Hooks:
    """Hooks that are removed when the block ends, whether or not it raised.

        with vlm.lock, Hooks() as hooks:
            hooks.on_output(vlm.blocks[3], lambda hidden: hidden * 2)
            kept = hooks.capture(vlm.blocks)
            vlm.model(**inputs)

    A block's state is its output if that is a tensor, or the first entry of its output if that is a tuple; the other entries pass through.
    Hooks on one module run in the order they were added, each seeing what the one before it returned, so a `capture` added last keeps the
    edited state. Tensors are handed over as they are, on the device and in the grad mode of the model's run.

    Modules are shared between threads: hold `vlm.lock` around the whole block. Leaving the block without an error raises InterpError if one
    of the modules never ran, for its hooks then did nothing.
    """

    def __init__(self) -> None:
        self.calls: Counter[nn.Module] = Counter()
        """How often each hooked module has run."""
        self._names: dict[nn.Module, str] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None") -> None:
        while self._handles:
            self._handles.pop().remove()
        if error is None and (idle := [name for module, name in self._names.items() if not self.calls[module]]):
            raise InterpError(
                f"{', '.join(idle)} never ran as a module of its own, so nothing could be read or changed there. "
                "Load the model without code that replaces or fuses its decoder blocks."
            )

    def on_output(self, module: nn.Module, visit: Visit, *, name: str = "") -> None:
        """Call `visit` with the state that leaves the module, each time it runs. `name` is what an error calls the module."""

        def leave(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            new = visit(hidden)
            if new is None:
                return None
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        self._count(module, name)
        self._handles.append(module.register_forward_hook(leave))

    def on_input(self, module: nn.Module, visit: Visit, *, name: str = "", keyword: str = "hidden_states") -> None:
        """Call `visit` with the state that enters the module: the argument `keyword`, or the first one where that is not given by name."""

        def enter(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
            named = keyword in kwargs
            new = visit(kwargs[keyword] if named else args[0])
            if new is None:
                return None
            return (args, {**kwargs, keyword: new}) if named else ((new, *args[1:]), kwargs)

        self._count(module, name)
        self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))

    def capture(self, modules: Iterable[nn.Module], *, keep_grad: bool = False) -> list[list[torch.Tensor]]:
        """Keep the state that leaves each module: one list for each of `modules`, to which every run appends its tensor.

        With `keep_grad` the tensors stay attached to the graph, and after a `backward()` their `.grad` holds the gradient. The first
        state that needs none, because the weights are frozen, becomes a leaf where the graph begins. Without it they are detached.

        Raises InterpError during the run for `keep_grad` where gradients are switched off.
        """
        return [self._captured(module, index, keep_grad=keep_grad) for index, module in enumerate(modules)]

    def _captured(self, module: nn.Module, index: int, *, keep_grad: bool) -> list[torch.Tensor]:
        kept: list[torch.Tensor] = []

        def keep(hidden: torch.Tensor) -> None:
            kept.append(_with_grad(hidden) if keep_grad else hidden.detach())

        self.on_output(module, keep, name=f"{type(module).__name__} {index}")
        return kept

    def _count(self, module: nn.Module, name: str) -> None:
        def count(module: nn.Module, _args: Any) -> None:
            self.calls[module] += 1

        if module not in self._names:
            self._names[module] = name or type(module).__name__
            self._handles.append(module.register_forward_pre_hook(count))


def _with_grad(hidden: torch.Tensor) -> torch.Tensor:
    """The same tensor, which will hold its gradient."""
    if not torch.is_grad_enabled():
        raise InterpError("Gradients are switched off here; run the model under torch.enable_grad(), outside torch.inference_mode().")
    if hidden.requires_grad:
        hidden.retain_grad()
    else:
        hidden.requires_grad_()
    return hidden
