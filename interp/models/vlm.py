"""Vlm: a vision-language model with its processor; its parts, its inputs, its forward passes.

Parts are found by structure, never by a table of model names; a model whose structure is not understood is refused by its class name.
"""

import contextlib
import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin

from .. import validation
from ..errors import InterpError
from ..presets import PRESETS
from ..vision.grids import Layout
from ..vision.images import open_image
from ..vision.layouts import LAYOUTS, REFUSED
from .hooks import Hooks, Visit
from .names import parted
from .unembed import Unembed, find_finish
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from ..tracing.trace import Trace

_KEYS = itertools.count()
_PLACEHOLDER_WITHOUT_ROW = {"gemma3", "paligemma"}  # model types that put another id in its place where the embedding is too small
_NO_TEMPLATE = {"paligemma": "\n"}
"""Families that have no chat template, where the prompt follows the picture as it is; and what their processor puts behind the prompt."""


@dataclass(frozen=True)
class Inputs(Mapping[str, torch.Tensor]):
    """What `Vlm.prepare` returns: the model's inputs, a mapping of tensors, and where they came from."""

    tensors: dict[str, torch.Tensor]
    image: Image.Image
    """Upright, RGB."""
    prompt: str
    text: str
    """The prompt inside the chat template, before the picture's placeholder is expanded."""
    layout: Layout
    notes: tuple[str, ...]

    def __getitem__(self, key: str) -> torch.Tensor:
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


class Vlm:
    """A vision-language model with its processor.

    One lock guards the model: two threads that share a Vlm get the results each would get alone.
    """

    def __init__(self, model: Any, processor: Any, *, name: str | None = None) -> None:
        """Wrap a model you already hold. Raises InterpError, naming the class, if its structure is not understood."""
        source = "a model of transformers, as AutoModelForImageTextToText.from_pretrained(...) returns, or merge_and_unload() of PEFT"
        validation.instance("model", model, PreTrainedModel, source)
        name = name if name is None else validation.text("name", name)
        family = model.config.model_type
        kind = type(model).__name__
        if family not in LAYOUTS:
            why = REFUSED.get(family, "how its image tokens map to the picture is not known")
            raise InterpError(f"{kind} (model_type {family!r}) is not supported: {why}. Supported families: {', '.join(sorted(LAYOUTS))}.")
        if not isinstance(processor, ProcessorMixin) or processor.tokenizer is None:
            raise InterpError(f"A {type(processor).__name__} has no tokenizer; pass the whole processor (AutoProcessor.from_pretrained).")
        self.model = model.eval()
        self.processor: Any = processor
        self.tokenizer = processor.tokenizer
        self.name = name or model.config.name_or_path or kind
        self.key = next(_KEYS)
        """Unique in this process: caches tell models apart by it."""
        self.lock = threading.RLock()
        decoder = model.get_decoder()
        parts = {
            "decoder.layers": getattr(decoder, "layers", None),
            "decoder.norm": getattr(decoder, "norm", None),
            "output embeddings": model.get_output_embeddings(),
            "config.image_token_id": getattr(model.config, "image_token_id", None),
        }
        missing = [part for part, value in parts.items() if value is None]
        if missing:
            raise InterpError(f"{kind} has no {' and no '.join(missing)}: its structure is not understood.")
        for part, module in {"input embeddings": model.get_input_embeddings(), "output embeddings": parts["output embeddings"]}.items():
            if "weight" not in dict(module.named_parameters(recurse=False)):  # it would show the weights of its base
                raise InterpError(
                    f"The {part} of this {kind} are a {type(module).__name__} around others, as an adapter makes it, so their weights cannot be read. "
                    f"Merge the adapter (merge_and_unload of PEFT), or load it with interp.load(base, adapter=...)."
                )
        self.decoder: Any = decoder
        self.blocks: nn.ModuleList = decoder.layers
        self.norm: Any = decoder.norm
        self.head: Any = model.get_output_embeddings()
        self.image_token_id: int = model.config.image_token_id

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.model.config.get_text_config().hidden_size

    def on_layer(self, hooks: Hooks, layer: int, visit: Visit) -> None:
        """Call `visit` with the residual stream of `layer` each time it passes; `interp.EMBED` is what enters block 0.

        A layer is read, and changed, where the next block takes it in: some models add to the stream in between (Qwen3-VL adds picture
        features after its first blocks). The last layer is what leaves the last block, before the final norm.
        """
        if layer + 1 < self.n_layers:
            hooks.on_input(self.blocks[layer + 1], visit, name=f"Layer {layer + 1}")
        else:
            hooks.on_output(self.blocks[layer], visit, name=f"Layer {layer}")

    @property
    def names(self) -> tuple[str, ...]:
        """Its name here, and its checkpoint's name."""
        return (self.name, self.model.config.name_or_path or "")

    @property
    def default_layer(self) -> int:
        """Where a lens opens: the preset's layer, or about three quarters deep, since the last layers turn to the next token."""
        preset = PRESETS.get(parted(self.name)[0])
        return preset.default_layer if preset else max(0, round(0.75 * self.n_layers) - 1)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The text of every id of the output layer."""
        return Vocabulary.of(self.tokenizer, self.head.weight.shape[0])

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of special tokens, which are not text."""
        added = self.tokenizer.added_tokens_decoder  # all_special_ids misses some that processors add
        return frozenset(self.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}

    @functools.cached_property
    def unembed(self) -> Unembed:
        """From residual states to logits. Raises InterpError if the model's logits are not its head on its final norm."""
        ids = self.tokenizer("The cat sat on the mat.", return_tensors="pt").input_ids
        self._check_ids(ids[0].tolist())
        ids = ids.to(self.model.device)
        with self.lock:
            finish = find_finish(self.model, self.blocks[-1], self.norm, self.head, ids)
        return Unembed(self.norm, self.head, self.vocabulary, finish)

    @property
    def context(self) -> int:
        """The longest sequence the decoder has positions for."""
        return self.model.config.get_text_config().max_position_embeddings

    @property
    def end_ids(self) -> set[int]:
        """Ids that end an answer."""
        ids = self.model.generation_config.eos_token_id
        if ids is None:
            ids = self.tokenizer.eos_token_id
        return (set(ids) if isinstance(ids, list) else {ids}) - {None}

    def prepare(self, image: Any, prompt: str) -> Inputs:
        """The model's inputs for one picture (PIL, array or path) and one prompt, in the model's own chat template.

        Raises InterpError for an unreadable picture, an empty prompt, a prompt that holds the picture's placeholder, and a prompt longer
        than the model's context.
        """
        picture, notes = open_image(image)
        if not validation.text("prompt", prompt).strip():
            raise InterpError('The prompt is empty. Ask something about the picture, such as "Describe the image."')
        marks = (getattr(self.processor, name, None) for name in ("image_token", "video_token"))
        placeholders = {self.tokenizer.convert_ids_to_tokens(self.image_token_id), *marks} - {None}
        for placeholder in placeholders:
            if placeholder in prompt:
                raise InterpError(
                    f"The prompt contains {placeholder!r}, the placeholder of the picture. It is added automatically: remove it from the prompt."
                )
        templated = self._in_template(prompt)
        tensors = self._tokenize(templated, picture)
        layout = LAYOUTS[self.model.config.model_type](self.model.config, self.processor, picture, tensors)
        self.check_length(tensors["input_ids"].shape[1], 0)
        return Inputs(
            tensors={
                key: value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)
                for key, value in tensors.items()
            },
            image=picture,
            prompt=prompt,
            text=templated + self._behind_prompt,
            layout=layout,
            notes=notes,
        )

    @property
    def _behind_prompt(self) -> str:
        """What the processor appends to the prompt's text by itself."""
        return "" if self._template else _NO_TEMPLATE.get(self.model.config.model_type, "")

    @property
    def _template(self) -> str | None:
        return self.processor.chat_template or self.tokenizer.chat_template

    def _in_template(self, prompt: str) -> str:
        """The prompt with the picture's placeholder in front, in the checkpoint's own chat template."""
        template = self._template
        if template is None and self.model.config.model_type in _NO_TEMPLATE:
            return f"{self.processor.image_token}{prompt}"
        if template is None:
            raise InterpError(f"The processor of {self.name!r} has no chat template; set processor.chat_template first.")
        mark = self.processor.image_token
        # Older checkpoints have a text-only template, in which the placeholder is part of the text.
        for content in ([{"type": "image"}, {"type": "text", "text": prompt}], f"{mark}\n{prompt}"):
            turn = {"role": "user", "content": content}
            with contextlib.suppress(TemplateError):
                text = self.processor.apply_chat_template([turn], chat_template=template, add_generation_prompt=True, tokenize=False)
                if text.count(mark) == 1 and prompt.strip() in text:
                    return text
        raise InterpError(
            f"The chat template of {self.name!r} does not produce one picture ({mark}) and the prompt unchanged. "
            "Set processor.chat_template to one that does."
        )

    def _tokenize(self, text: str, picture: Image.Image) -> dict[str, torch.Tensor]:
        begins = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
        try:
            inputs = self.processor(images=picture, text=text, return_tensors="pt", add_special_tokens=not begins)
        except (ValueError, ArithmeticError) as error:  # such as a picture 200 times as long as wide, or of one pixel
            size = f"{picture.width} x {picture.height} pixels"
            raise InterpError(
                f"The processor of {self.name!r} refuses this picture of {size}: {str(error).rstrip('.')}. Crop or scale it, and try again."
            ) from error
        own = [] if self.model.config.model_type in _PLACEHOLDER_WITHOUT_ROW else [self.image_token_id]
        self._check_ids([i for i in inputs["input_ids"][0].tolist() if i != self.image_token_id] + own)
        return {name: tensor for name, tensor in inputs.items() if isinstance(tensor, torch.Tensor) and name != "labels"}

    def _check_ids(self, ids: Sequence[int]) -> None:
        """Raise InterpError for ids that the input embedding has no row for; on a GPU they would end the process."""
        rows = self.model.get_input_embeddings().weight.shape[0]
        if (largest := max(ids, default=0)) >= rows:
            raise InterpError(
                f"The tokenizer of {self.name!r} makes {self.tokenizer.convert_ids_to_tokens(largest)!r} the id {largest}, and the model's "
                f"embedding has {rows} rows: they do not belong together. Use the checkpoint's own tokenizer, or call "
                f"model.resize_token_embeddings({len(self.tokenizer)})."
            )

    def answer_ids(self, inputs: Inputs, answer: str) -> torch.Tensor:
        """The ids of a forced answer, with the end-of-answer token appended so that all of its words enter the model."""
        validation.instance("inputs", inputs, Inputs, "Inputs, as Vlm.prepare returns")
        if not validation.text("answer", answer).strip():
            raise InterpError("The forced answer is empty; omit `answer` to let the model answer.")
        glue = "" if inputs.text[-1:].isspace() or inputs.text.endswith(tuple(self.tokenizer.all_special_tokens)) else " "
        # On the unexpanded text: an answer may spell the picture's placeholder, and there it stands for no picture.
        before, whole = (
            self.tokenizer(text, add_special_tokens=False).input_ids for text in (inputs.text, inputs.text + glue + answer.strip())
        )
        ids = whole[len(before) :]
        if whole[: len(before)] != before:  # the answer's first letters merged into the prompt's last token
            ids = self.tokenizer(answer.strip(), add_special_tokens=False).input_ids
        self._check_ids(ids)
        return torch.tensor([*ids, *sorted(self.end_ids)[:1]])

    def read(self, tensors: Mapping[str, torch.Tensor], ids: Sequence[int], *, keep: int = 0) -> torch.Tensor:
        """Teacher-forced logits at the last position of prepared inputs and at each of the `ids` that follow: [rows, 1 + ids, vocabulary].

        `keep`: only the last so many positions, 0 for all. The answer is a forward pass of its own, as in generation: it may spell the
        picture's placeholder, which there stands for no picture, and models with bidirectional attention in the prompt read answers causally.
        """
        first = self.model(**tensors, use_cache=True, logits_to_keep=1)
        then = self.read_on(first.logits, first.past_key_values, ids, keep=keep)
        return then[:, -keep:]

    def read_on(self, first: torch.Tensor, cache: Any, ids: Sequence[int], *, keep: int = 0) -> torch.Tensor:
        """As `read`, with the prompt already in `cache`; `first` are the logits [rows, 1, vocabulary] at its last position."""
        if not ids:
            return first
        answer = torch.tensor([list(ids)] * len(first), device=self.model.device)
        # No mask: nothing is padded, and with one Qwen2-VL would restart its position ids.
        then = self.model(input_ids=answer, past_key_values=cache, use_cache=True, logits_to_keep=keep)
        return torch.cat([first.to(then.logits), then.logits], dim=1)

    def check_length(self, prompt: int, new: int) -> None:
        """Raise InterpError unless `prompt` tokens and `new` more fit into the context."""
        prompt, new = validation.whole_number("prompt", prompt, 0), validation.whole_number("new", new, 0)
        if prompt + new > self.context:
            asked = f"{prompt} tokens with the picture" + (f", and {new} new ones were asked for" if new else "")
            raise InterpError(
                f"The prompt has {asked}; {self.name} has a context of {self.context}. "
                f"Shorten the prompt by about {prompt + new - self.context} tokens{' or ask for fewer new ones' if new else ''}."
            )

    def trace(
        self,
        image: Any,
        prompt: str,
        *,
        max_new_tokens: int = 32,
        answer: str | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> "Trace":
        """One greedy generation with the residual stream of every layer and position, in one pass with a key-value cache.

        `answer` forces an answer (teacher forcing) instead of generating one. `on_text` gets the growing answer after every token.

        Raises InterpError for what `prepare` refuses, for `max_new_tokens` below 1 or beyond the context, and if memory runs out.
        """
        from ..tracing.record import trace  # noqa: PLC0415 - tracing builds on models, not the other way round

        return trace(self, image, prompt, max_new_tokens=max_new_tokens, answer=answer, on_text=on_text)
