"""Learning concepts: a decomposition of collected states, named, shown on pictures, and measured."""

import threading
from dataclasses import replace
from typing import Any

import torch

from ..errors import InterpError
from ..saes.sae import Sae
from ..steering.batch import check_stop
from ..validation import finite_number, flag, instance, one_of, whole_number
from .concepts import METHODS, Concepts, Example, Fit, Method, fit_of
from .decompose import Factors, k_means, pca, semi_nmf
from .ground import picture_of, strongest_rows, words_of
from .match import agreement
from .states import ConceptStates

SPARSITY = 0.02
EXAMPLES = 5
_OBJECTIVES = {
    "semi-nmf": "1/2 |Z - VU|^2 + {penalty:.4g} sum V, with V >= 0 and |u_k| <= 1 (non-negative sparse coding)",
    "k-means": "the sum of squared distances to the nearest centre; activations are 1 / (1 + distance)",
    "pca": "|Z - mean - VU|^2 with orthonormal atoms; signs are arbitrary",
    "sae": "nothing here: the features of {sae} with the largest energy, z^2 |d|^2 summed over the states",
}


def learn_concepts(
    states: ConceptStates,
    n: int = 20,
    method: Method = "semi-nmf",
    *,
    layer: int | None = None,
    seed: int = 0,
    sae: Sae | None = None,
    sparsity: float = SPARSITY,
    centred: bool = False,
    seeds: int = 3,
    maps: bool = True,
    stop: threading.Event | None = None,
) -> Concepts:
    """Decompose states into `n` concepts, and name and measure them.

    `method`: "semi-nmf" (non-negative codes, directions of length 1), "k-means" (centres; scikit-learn's), "pca" (signed; scikit-learn's), or
    "sae" (the features of `sae` that are strongest on these states). The same seed gives the same concepts. `layer`: which, if the states have
    several. `sparsity`, for semi-nmf: the weight of the L1 norm, as a fraction of the states' root mean square norm. `centred`, for semi-nmf:
    subtract the mean first; otherwise one concept usually stands for it. `seeds`: how many dictionaries `stability` compares, this one included.
    `maps`: run the model on each example and say where the concept is on its picture. Setting `stop` ends it with `StoppedError`, between two of
    these dictionaries or examples.

    Words and maps need the model: states collected in this process have it, loaded ones if they were given it. Raises InterpError for fewer states than
    concepts, and for an SAE of another layer or width.
    """
    instance("states", states, ConceptStates, "states, as interp.collect(...) returns")
    method = one_of("method", method, METHODS)
    layer = states.layer(layer)
    seed, seeds = whole_number("seed", seed, 0, 2**31), whole_number("seeds", seeds, 1, 20)
    sparsity, centred, maps = float(finite_number("sparsity", sparsity, 0, 1)), flag("centred", centred), flag("maps", maps)
    if stop is not None:
        instance("stop", stop, threading.Event, "a threading.Event, or None")
    rows = states.residual(layer)
    n = _count(n, rows, method, sae)
    if not rows.isfinite().all():
        raise InterpError("states has values that are not finite. Load the model in a wider dtype, and collect them again.")
    penalty = sparsity * size_of(rows - rows.mean(0) if centred else rows)
    features: tuple[int, ...] | None = None
    if method == "sae":
        assert sae is not None
        features, atoms = _strongest(rows, n, layer, sae)
        factors = Factors(atoms, torch.zeros(rows.shape[1]))
    else:
        factors = _decomposed(method, rows, n, seed, penalty, centred)
    stable = torch.ones(n)
    if method in {"semi-nmf", "k-means"} and seeds > 1:
        others = []
        for more in range(1, seeds):
            check_stop(stop)
            others.append(_decomposed(method, rows, n, seed + more, penalty, centred).atoms)
        stable = agreement(factors.atoms, others)
    bare = Concepts(
        method=method,
        model_name=states.model_name,
        layer=layer,
        where=states.where,
        atoms=factors.atoms,
        activations=torch.empty(0, n),
        ids=states.ids,
        mean=factors.mean,
        penalty=factors.penalty,
        objective=_OBJECTIVES[method].format(penalty=penalty, sae=sae.name if sae else ""),
        seed=seed,
        words=((),) * n,
        opposite=(),
        examples=((),) * n,
        fit=Fit(None, None, 0.0),
        stability=tuple(stable.tolist()),
        normed=states.normed,
        features=features,
        notes=states.notes if states.has_model else (*states.notes, "Learned without the model, so without words and maps."),
        _vlm=states.vlm if states.has_model else None,
        _sae=sae if method == "sae" else None,
        _weights=states._weights,  # noqa: SLF001 - one package
    )
    codes = bare.transform(rows)
    named: dict[str, Any] = {"activations": codes, "fit": fit_of(rows, bare.reconstruct(rows), codes)}
    if states.has_model:
        up, down = words_of(states.vlm, factors.atoms, normed=states.normed)
        named |= {"words": tuple(up), "opposite": tuple(down) if method == "pca" else ()}
    named["examples"] = _examples(bare, states, codes, maps=maps and states.has_model and not states.normed, stop=stop)
    return replace(bare, **named)


def size_of(rows: torch.Tensor) -> float:
    """The root mean square norm of states [N, d]."""
    return float(rows.double().square().sum(1).mean().sqrt())


def _count(n: Any, rows: torch.Tensor, method: Method, sae: Sae | None) -> int:
    limit = min(rows.shape) if method == "pca" else len(rows)
    hint = "the number of states, or their width" if method == "pca" else "the number of states: collect more samples, or lower n"
    if len(rows) < 1:
        raise InterpError("states is empty: no sample had the state that was looked for. Choose a word that the answers contain.")
    if (method == "sae") != (sae is not None):
        raise InterpError("sae is needed for the method 'sae' and for no other; pass sae=interp.load_sae(...).")
    if sae is not None:
        instance("sae", sae, Sae, "an SAE, as interp.load_sae(...) returns")
        limit, hint = sae.d_sae, "the number of the SAE's features"
    return whole_number("n", n, 1, limit, hint=hint)


def _decomposed(method: Method, rows: torch.Tensor, n: int, seed: int, penalty: float, centred: bool) -> Factors:  # noqa: FBT001 - a private step
    if method == "semi-nmf":
        return semi_nmf(rows, n, seed, penalty, centred=centred)
    return k_means(rows, n, seed) if method == "k-means" else pca(rows, n, seed)


def _strongest(rows: torch.Tensor, n: int, layer: int, sae: Sae) -> tuple[tuple[int, ...], torch.Tensor]:
    """The features with the largest energy on these states, and their directions."""
    if sae.layer != layer or sae.d_in != rows.shape[1]:
        raise InterpError(
            f"sae reads layer {sae.layer} of width {sae.d_in}; the states are of layer {layer}, width {rows.shape[1]}. Choose the SAE of this layer."
        )
    acts = sae.encode(rows)
    energy = torch.zeros(sae.d_sae, dtype=torch.float64).index_add_(0, acts.features.long(), acts.values.double().square())
    energy *= sae.W_dec.detach().cpu().double().square().sum(1)
    active = int((energy > 0).sum())
    if active < n:
        raise InterpError(f"n is {n}, and only {active} features of {sae.name} are active on these states. Lower n.")
    features = tuple(energy.topk(n).indices.tolist())
    return features, sae.W_dec[list(features)].detach().cpu().float()


def _examples(
    concepts: Concepts, states: ConceptStates, codes: torch.Tensor, *, maps: bool, stop: threading.Event | None
) -> tuple[tuple[Example, ...], ...]:
    """The strongest samples of each concept; with `maps`, each picture is run once and all concepts are read from it."""
    size = codes.abs() if concepts.method == "pca" else codes
    chosen = [strongest_rows(size[:, k], states.sample_of, EXAMPLES) for k in range(len(concepts))]
    needed = sorted({int(states.sample_of[row]) for rows in chosen for row in rows})
    copies: dict[int, bytes] = {}
    drawn: dict[int, torch.Tensor] = {}
    for number in needed:
        check_stop(stop)
        source, copies[number] = picture_of(states, number), states.picture_file(number)
        if maps and source is not None:
            trace = states.vlm.trace(source, states.samples[number].prompt, max_new_tokens=1)
            if trace.grids:
                cells = trace.grids[0].positions
                drawn[number] = concepts.transform(trace.residual(concepts.layer)[cells.flatten()]).view(*cells.shape, -1)

    def example(k: int, row: int) -> Example:
        number = int(states.sample_of[row])
        sample = states.samples[number]
        where = drawn[number][..., k].clone() if number in drawn else None
        return Example(sample.id, row, float(codes[row, k]), sample.prompt, sample.answer, sample.word, sample.path, where, copies[number])

    return tuple(tuple(example(k, row) for row in rows) for k, rows in enumerate(chosen))
