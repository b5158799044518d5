"""Sparse autoencoder (SAE): encodes a residual stream as a few active features out of many, and decodes it.

    z = activation((x - b_dec) W_enc + b_enc)        x_hat = z W_dec + b_dec

after Cunningham et al. 2023 and Bricken et al. 2023; TopK after Gao et al. 2024, JumpReLU after Rajamanoharan et al. 2024. Features are
computed block by block and only the active ones are kept, so even a dictionary of 131 072 features needs no [tokens, features] matrix.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F

from ..devices import retry_on_oom
from ..errors import InterpError
from ..models.names import parted
from ..validation import as_whole, index, instance, sequence, shown, text, whole_number
from .labels.labels import Labels

Activation = Literal["relu", "topk", "jumprelu", "gated"]
Normalisation = Literal["none", "constant_norm_rescale", "layer_norm"]
_BLOCK_BYTES = 64 << 20  # per block of activations, and of encoder weights that must be converted
_EPSILON = 1e-5  # as in sae-lens' layer_norm
_LOWER = "Choose an SAE with fewer features, a shorter answer, a smaller picture, or load the model with quantize='4bit'."


@dataclass(frozen=True)
class SparseActs:
    """The active features of T tokens: entries `offsets[t]` to `offsets[t + 1]` are those of token t, ordered by feature."""

    offsets: torch.Tensor
    """int32 [T + 1]"""
    features: torch.Tensor
    """int32 [entries]"""
    values: torch.Tensor
    """Activations, all above 0: float32 [entries]."""
    shift: torch.Tensor
    """What the SAE's normalisation subtracted from each token: [T, 1]."""
    scale: torch.Tensor
    """What it then multiplied each token by: [T, 1]."""

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(part.nbytes for part in (self.offsets, self.features, self.values, self.shift, self.scale))

    @property
    def tokens(self) -> torch.Tensor:
        """The token of every entry: int64 [entries]."""
        return torch.repeat_interleave(torch.arange(len(self.offsets) - 1), self.offsets.diff())

    def rows(self, rows: torch.Tensor) -> "SparseActs":
        """The activations of the tokens `rows`, in that order; may be empty or contain duplicates."""
        there = range(len(self.offsets) - 1)
        sound = isinstance(rows, torch.Tensor) and rows.ndim == 1 and not rows.is_meta and rows.layout == torch.strided
        if not sound or not all(as_whole(row) in there for row in rows.tolist()):
            raise InterpError(f"rows is {shown(rows)}; it must be a tensor of whole numbers from 0 to {len(there) - 1}, of shape [rows].")
        rows = rows.long()
        counts = self.offsets.diff()[rows]
        starts = self.offsets[:-1][rows]
        offsets = F.pad(counts.cumsum(0), (1, 0)).int()
        entries = torch.arange(int(offsets[-1])) + torch.repeat_interleave(starts - offsets[:-1], counts)
        return SparseActs(offsets, self.features[entries], self.values[entries], self.shift[rows], self.scale[rows])


@dataclass(frozen=True)
class SaeMetrics:
    """How well an SAE reconstructs the data it was trained for, if known."""

    explained_variance: float | None = None
    """1 - sum|x - x_hat|^2 / sum|x - mean x|^2"""
    l0: float | None = None
    """Active features per token."""


@dataclass(frozen=True, eq=False)
class Sae:
    """One dictionary of `d_sae` features for the residual stream of width `d_in` after block `layer`."""

    name: str
    model_name: str
    """The model it was trained on, "" if unknown."""
    layer: int
    """-1 (`EMBED`) is the input of block 0."""
    W_enc: torch.Tensor
    """[d_in, d_sae], any floating dtype and device: converted to float32 on the states' device, block by block."""
    b_enc: torch.Tensor
    """[d_sae]"""
    W_dec: torch.Tensor
    """[d_sae, d_in]: row f is the direction that feature f writes."""
    b_dec: torch.Tensor
    """[d_in]"""
    activation: Activation
    k: int | None = None
    """Features kept per token, for "topk"."""
    threshold: torch.Tensor | None = None
    """Pre-activations up to it become 0: [d_sae], for "jumprelu"."""
    gate: tuple[torch.Tensor, torch.Tensor] | None = None
    """Gate bias and log of the magnitude rescaling, each [d_sae], for "gated"; `b_enc` is then the magnitude bias."""
    subtract_b_dec: bool = True
    """Whether the encoder sees x - b_dec."""
    normalisation: Normalisation = "none"
    density: torch.Tensor | None = None
    """Share of a reference set's tokens on which each feature is active: float32 [d_sae]."""
    trained: dict[str, SaeMetrics] = field(default_factory=dict)
    """Its metrics as published, by kind of token ("image", "text") or under "all"."""
    labels: Labels = field(default_factory=lambda: Labels({}, ""))
    neuronpedia_id: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def d_in(self) -> int:
        """Width of the residual stream it reads."""
        return self.W_enc.shape[0]

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return self.W_enc.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        optional = (self.threshold, self.density, *(self.gate or ()))
        return sum(part.nbytes for part in (self.W_enc, self.b_enc, self.W_dec, self.b_dec, *optional) if part is not None)

    def notes_for(self, names: Sequence[str]) -> list[str]:
        """Warnings about its features on a model known by any of these names."""
        names = [text("names", name) for name in sequence("names", names, "names", empty=True)]
        foreign = self.model_name and plain_name(self.model_name) not in map(plain_name, names)
        return [*self.notes, *([f"trained on another model: {self.model_name}"] if foreign else [])]

    def check(self, feature: object) -> int:
        """`feature` as an int. Raises InterpError if there is no such feature."""
        return index("Feature", feature, 0, self.d_sae - 1, f"{self.name} has features 0 to {self.d_sae - 1}")

    @torch.no_grad()
    def encode(self, states: torch.Tensor) -> SparseActs:
        """The active features of `states` [T, d_in], exact and sparse, on the CPU. Computed in float32 on the device of `states`.

        Peak memory beyond the weights is about three times `_BLOCK_BYTES` plus the result. Raises InterpError if memory runs out, and for states
        of the wrong shape or an integer dtype, or that are not finite.
        """
        self._check(states)
        if not states.isfinite().all():
            raise InterpError(f"states has values that are not finite, so {self.name} cannot encode them. Compute them in a wider dtype.")
        return retry_on_oom(lambda less: self._encode(states, less), _LOWER)

    def _encode(self, states: torch.Tensor, less: int) -> SparseActs:
        keep = _TopK(len(states), self.k, states.device) if self.k is not None else _Positive(len(states))
        shift, scale = self._fill(keep, states, less)
        return SparseActs(*keep.entries(), shift.cpu(), scale.cpu())

    def _fill(self, keep: "_TopK | _Positive", states: torch.Tensor, less: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass all activations to `keep`, block by block. Returns shift and scale of the normalisation, each [T, 1]."""
        x, shift, scale = self._normalised(states.float())
        if self.subtract_b_dec:
            x = x - self.b_dec.to(x)
        width = max(1, self._block(len(x)) // less)
        buffer = torch.empty(len(x) * width, device=x.device)
        ready = self.W_enc.dtype == torch.float32 and self.W_enc.device == x.device
        # One buffer for all converted blocks: most of the cost of a new one each time is the system clearing its memory.
        converted = None if ready else torch.empty_like(self.W_enc[:, :width], dtype=torch.float32, device=x.device)
        for start in range(0, self.d_sae, width):
            block = slice(start, min(start + width, self.d_sae))
            columns = block.stop - start
            out = buffer[: len(x) * columns].view(len(x), columns)
            weights = self.W_enc[:, block]
            if converted is not None:
                weights = converted[:, :columns].copy_(weights)
            keep.add(start, self._activate(torch.mm(x, weights, out=out), block))
        return shift, scale

    @torch.no_grad()
    def kept(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What a TopK SAE keeps of `states` [T, d_in]: features (int64) and activations (float32), each [T, k], on the device of `states`.

        The same choice as `encode` makes, at the same cost: it reads the whole encoder, block by block if it must be moved or converted.
        """
        self._check(states)
        assert self.k is not None
        keep = _TopK(len(states), self.k, states.device)
        self._fill(keep, states)
        return keep.features, keep.values

    @torch.no_grad()
    def decode(self, acts: SparseActs) -> torch.Tensor:
        """The states reconstructed from these activations: float32 [T, d_in] on the CPU."""
        instance("acts", acts, SparseActs, "SparseActs, as Sae.encode returns")
        if len(acts.features):
            self.check(acts.features.max())
        summed = torch.empty(len(acts.offsets) - 1, self.d_in)
        for tokens, entries, table, features, bags in self.bags(acts, len(summed)):
            values = acts.values[entries].to(table.device)
            summed[tokens] = F.embedding_bag(features, table, bags, mode="sum", per_sample_weights=values)
        return (summed + self.b_dec.float().cpu()) / acts.scale + acts.shift

    def bags(self, acts: SparseActs, tokens: int) -> Iterator[tuple[slice, slice, torch.Tensor, torch.Tensor, torch.Tensor]]:
        """The first `tokens` of `acts` as arguments of `embedding_bag`, on the device of `W_dec`, a few tokens at a time if it must be converted.

        (which tokens, which entries, float32 table of decoder rows, the entries' rows in that table, where each token's entries begin).
        """
        device, exact = self.W_dec.device, self.W_dec.dtype == torch.float32 and self.W_dec.is_contiguous()
        most = int(acts.offsets.diff().max()) if tokens else 0
        step = max(1, tokens if exact else _BLOCK_BYTES // (4 * self.d_in * max(1, most)))
        for start in range(0, tokens, step):
            offsets = acts.offsets[start : min(start + step, tokens) + 1]
            entries = slice(int(offsets[0]), int(offsets[-1]))
            features, table = acts.features[entries].to(device), self.W_dec
            if not exact:
                needed, rows = features.unique(return_inverse=True)
                table, features = self.W_dec[needed.long()].float(), rows.int()
            yield slice(start, start + len(offsets) - 1), entries, table, features, (offsets[:-1] - offsets[0]).to(device)

    def only(self, feature: int, device: torch.device) -> "Sae":
        """An SAE of this one feature, in float32 on `device`: all that steering needs to read and to write it.

        A TopK SAE becomes a ReLU one: whether a feature is among the k largest depends on all others (see `kept`).
        """
        feature = self.check(feature)
        instance("device", device, torch.device, "a torch.device")
        column = slice(feature, feature + 1)

        def part(values: torch.Tensor) -> torch.Tensor:
            return values[column].to(device, torch.float32)

        return replace(
            self,
            W_enc=self.W_enc[:, column].to(device, torch.float32),
            b_enc=part(self.b_enc),
            W_dec=part(self.W_dec),
            b_dec=self.b_dec.to(device, torch.float32),
            activation="relu" if self.activation == "topk" else self.activation,
            k=None,
            threshold=None if self.threshold is None else part(self.threshold),
            gate=None if self.gate is None else (part(self.gate[0]), part(self.gate[1])),
            density=None,
            labels=Labels({}, ""),
        )

    def read(self, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """All activations [N, d_sae] of `states` [N, d_in], before any TopK selection, and the scale [N, 1] of their normalisation."""
        self._check(states)
        x, _, scale = self._normalised(states)
        if self.subtract_b_dec:
            x = x - self.b_dec
        return self._activate(x @ self.W_enc, slice(None)), scale

    def neighbours(self, feature: int, k: int = 5) -> list[tuple[int, float]]:
        """The k features with the most similar decoder directions, as (feature, cosine), most similar first."""
        k, feature = whole_number("k", k, 1), self.check(feature)
        found = self.nearest(self.W_dec[feature], min(k + 1, self.d_sae))
        return [pair for pair in found if pair[0] != feature][:k]

    def nearest(self, direction: torch.Tensor, k: int = 5) -> list[tuple[int, float]]:
        """The k features whose decoder directions are most similar to a direction [d_in], as (feature, cosine), most similar first."""
        k = whole_number("k", k, 1)
        instance("direction", direction, torch.Tensor, "a tensor [d_in]")
        sound = direction.layout == torch.strided and not direction.is_meta and direction.is_floating_point()
        if not sound or direction.shape != (self.d_in,) or not direction.isfinite().all():
            raise InterpError(f"direction is {shown(direction)}; it must hold {self.d_in} finite numbers.")
        unit = F.normalize(direction.to(self.W_dec.device).float(), dim=0)
        step = max(1, _BLOCK_BYTES // (4 * self.d_in))
        cosines = [F.normalize(self.W_dec[at : at + step].float(), dim=1) @ unit for at in range(0, self.d_sae, step)]
        values, found = torch.cat(cosines).cpu().topk(min(k, self.d_sae))
        return list(zip(found.tolist(), values.tolist(), strict=True))

    def _check(self, states: object) -> None:
        """Raise InterpError unless these are rows of the residual stream."""
        rows = instance("states", states, torch.Tensor, "a tensor, as Trace.residual returns")
        if rows.ndim != 2 or rows.shape[1] != self.d_in or not rows.is_floating_point() or rows.is_meta or rows.layout != torch.strided:
            raise InterpError(
                f"states is a {rows.layout} tensor of {rows.dtype} and shape {list(rows.shape)} on {rows.device}; {self.name} reads dense "
                f"floating-point rows of shape [T, {self.d_in}]."
            )

    def _normalised(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The states normalised as in the SAE's training, and the shift and scale applied, each [T, 1]."""
        shift, scale = torch.zeros(len(x), 1, device=x.device), torch.ones(len(x), 1, device=x.device)
        if self.normalisation == "none":
            return x, shift, scale
        if self.normalisation == "constant_norm_rescale":
            scale = self.d_in**0.5 / x.norm(dim=-1, keepdim=True).clamp(min=_EPSILON)  # an all-zero state stays zero
        else:
            shift = x.mean(-1, keepdim=True)
            scale = 1 / ((x - shift).std(-1, keepdim=True) + _EPSILON)
        return (x - shift) * scale, shift, scale

    def _block(self, tokens: int) -> int:
        """Number of features in a block."""
        row = max(4, 4 * tokens, 4 * self.d_in if self.W_enc.dtype != torch.float32 or self.W_enc.device.type != "cpu" else 0)
        return min(self.d_sae, max(256, _BLOCK_BYTES // row))

    def _activate(self, products: torch.Tensor, block: slice) -> torch.Tensor:
        """Activations of a block of features, computed in place from x W_enc."""
        bias = self.b_enc[block].to(products)
        if self.activation == "gated":
            assert self.gate is not None
            gate, log_rescale = (part[block].to(products) for part in self.gate)
            closed = products + gate <= 0
            return products.mul_(log_rescale.exp()).add_(bias).relu_().masked_fill_(closed, 0)
        products.add_(bias)
        if self.activation == "jumprelu":
            assert self.threshold is not None
            products.masked_fill_(products <= self.threshold[block].to(products), 0)
        return products.relu_()


def plain_name(model: str) -> str:
    """A model's name, and its adapter's if it has one, without owners or folders."""
    return " + ".join(part.rstrip("/").rsplit("/", 1)[-1].lower() for part in parted(model) if part)


class _Positive:
    """Collects everything above 0, block by block."""

    def __init__(self, tokens: int) -> None:
        self._counts = torch.zeros(tokens, dtype=torch.int64)
        self._blocks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def add(self, start: int, activations: torch.Tensor) -> None:
        """Add the activations [T, block] of the features from `start` on."""
        tokens, features = activations.nonzero(as_tuple=True)
        counts = torch.bincount(tokens, minlength=len(activations)).cpu()
        self._counts += counts
        self._blocks.append((counts, (features + start).int().cpu(), activations[tokens, features].cpu()))

    def entries(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(offsets, features, values), ordered by token, then by feature."""
        offsets = F.pad(self._counts.cumsum(0), (1, 0))
        features = torch.empty(int(offsets[-1]), dtype=torch.int32)
        values = torch.empty(len(features))
        filled = offsets[:-1].clone()
        for counts, block_features, block_values in self._blocks:
            # Entries of a block are ordered by token; each goes to its token's next free slot.
            at = torch.repeat_interleave(filled - (counts.cumsum(0) - counts), counts) + torch.arange(len(block_features))
            features[at], values[at] = block_features, block_values
            filled += counts
        return offsets.int(), features, values


class _TopK:
    """Keeps the k largest activations of each token over all blocks: an exact running top-k."""

    def __init__(self, tokens: int, k: int, device: torch.device) -> None:
        self._k = k
        self.values = torch.zeros(tokens, 0, device=device)
        self.features = torch.zeros(tokens, 0, dtype=torch.int64, device=device)

    def add(self, start: int, activations: torch.Tensor) -> None:
        """Add the activations [T, block] of the features from `start` on."""
        values, features = activations.topk(min(self._k, activations.shape[1]), sorted=False)
        values, features = torch.cat([self.values, values], 1), torch.cat([self.features, features + start], 1)
        self.values, best = values.topk(min(self._k, values.shape[1]), sorted=False)
        self.features = features.gather(1, best)

    def entries(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(offsets, features, values), ordered by token, then by feature."""
        features, order = self.features.sort(dim=1)
        values, features = self.values.gather(1, order).cpu(), features.cpu()
        active = values > 0
        offsets = F.pad(active.sum(1).cumsum(0), (1, 0))
        return offsets.int(), features[active].int(), values[active]
