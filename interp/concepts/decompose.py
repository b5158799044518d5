"""Decompositions of states Z [N, d] into codes V [N, K] and atoms U [K, d].

| method | objective | codes |
|---|---|---|
| semi-nmf | 1/2 |Z - VU|^2 + penalty * sum V, V >= 0, |u_k| <= 1 | the non-negative Lasso codes for U |
| k-means | sum of squared distances to the nearest of K centres | 1 / (1 + distance) to each centre |
| pca | |Z - mean - VU|^2, U orthonormal | signed scores |

The first is what scikit-learn calls DictionaryLearning with positive codes, and xl-vlms semi-NMF. Without the penalty and the limit on the norm
(Ding et al. 2010) the atoms would not be unique. It is minimised here by exact steps along one code or atom at a time (HALS, Cichocki 2009; the step for
atoms is that of Mairal et al. 2009), each of which lowers the objective; scikit-learn solves a Lasso for every row in turn, which takes much
longer. k-means and PCA are scikit-learn's.
"""

import warnings
from dataclasses import dataclass, field

import torch

from ..errors import InterpError

STEPS = 500
_SWEEPS = 5  # over the codes, between two updates of the atoms
_CONVERGED = 1e-7  # change of the objective in a step, relative
_EXACT = 1e-9  # change of a code in a sweep, relative to the largest
_MOST_SWEEPS = 2000
_STARTS = 4  # of k-means, of which the best counts
_DOUBLE = 1 << 24  # entries up to which everything is computed in float64
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Factors:
    """What a decomposition found."""

    atoms: torch.Tensor
    """float32 [K, d]"""
    mean: torch.Tensor
    """What was subtracted from every state before: float32 [d]."""
    penalty: float = 0.0
    losses: tuple[float, ...] = field(default=(), repr=False)
    """The objective after every step, for semi-nmf."""


def semi_nmf(states: torch.Tensor, k: int, seed: int, penalty: float, *, centred: bool = False) -> Factors:
    """Non-negative codes with an L1 penalty, atoms of norm 1 at most; the most used atom first. `states` float32 [N, d]."""
    mean = states.mean(0) if centred else torch.zeros(states.shape[1])
    rows = _wide(states - mean)
    atoms = _unit(_centres(rows.float(), k, seed).to(rows), rows)
    total = float(rows.double().square().sum())
    codes = lasso_codes(rows, atoms, penalty, sweeps=_SWEEPS)
    losses = [_loss(total, rows, codes, atoms, penalty)]
    for step in range(STEPS):
        _step_atoms(rows, codes, atoms)
        codes = lasso_codes(rows, atoms, penalty, codes, sweeps=_SWEEPS)
        if step % 10 == 0 and step < STEPS // 2:
            _revive(rows, codes, atoms)
        losses.append(_loss(total, rows, codes, atoms, penalty))
        if losses[-2] - losses[-1] <= _CONVERGED * losses[0]:
            break
    order = codes.square().sum(0).argsort(descending=True, stable=True)
    return Factors(atoms[order].float(), mean, penalty, tuple(losses))


def lasso_codes(
    rows: torch.Tensor, atoms: torch.Tensor, penalty: float, codes: torch.Tensor | None = None, *, sweeps: int = _MOST_SWEEPS
) -> torch.Tensor:
    """The codes V >= 0 that minimise 1/2 |Z - VU|^2 + penalty * sum V for given atoms, by exact steps along one code of all rows at a time: [N, K].

    Stops when a sweep changes nothing, or after `sweeps`. `codes`: where to start.
    """
    gram = atoms @ atoms.T
    wanted = (rows @ atoms.T - penalty).T.contiguous()  # [K, N]: a row is one code of all states
    now = torch.zeros_like(wanted) if codes is None else codes.T.contiguous()
    for _ in range(sweeps if len(rows) else 0):
        change = 0.0
        for i in range(len(gram)):
            if gram[i, i] <= _TINY:
                now[i] = 0
                continue
            new = (now[i] + (wanted[i] - gram[i] @ now) / gram[i, i]).clamp_(min=0)
            change = max(change, float((new - now[i]).abs().max()))
            now[i] = new
        if change <= _EXACT * max(float(now.max()), _TINY):
            break
    return now.T.contiguous()


def k_means(states: torch.Tensor, k: int, seed: int) -> Factors:
    """K centres, that of the largest cluster first."""
    centres = _centres(states, k, seed)
    sizes = closeness(states, centres).argmax(1).bincount(minlength=k)
    return Factors(centres[sizes.argsort(descending=True, stable=True)], torch.zeros(states.shape[1]))


def closeness(states: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """1 / (1 + distance) to each centre: float32 [N, K]."""
    rows = _wide(states)
    return (1 / (1 + torch.cdist(rows, centres.to(rows)))).float()


def pca(states: torch.Tensor, k: int, seed: int) -> Factors:
    """The K directions of largest variance, orthonormal, the largest first."""
    from sklearn.decomposition import PCA  # noqa: PLC0415 - slow to import, and most runs decompose nothing

    rows = _wide(states)
    solver = "covariance_eigh" if len(rows) >= rows.shape[1] else "full"  # the eigenvectors of a matrix of d x d, or an SVD of N < d rows
    found = PCA(n_components=k, svd_solver=solver, random_state=seed).fit(rows.numpy())
    return Factors(torch.from_numpy(found.components_).float(), torch.from_numpy(found.mean_).float())


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.double() if values.numel() <= _DOUBLE else values.float()


def _centres(states: torch.Tensor, k: int, seed: int) -> torch.Tensor:
    from sklearn.cluster import KMeans  # noqa: PLC0415 - likewise
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            found = KMeans(n_clusters=k, n_init=_STARTS, random_state=seed).fit(states.numpy())
        except ConvergenceWarning as error:
            raise InterpError(
                f"n is {k}, and fewer of the states differ from each other ({error}). Lower n, or collect more samples."
            ) from error
    return torch.from_numpy(found.cluster_centers_).float()


def _unit(atoms: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """At length 1; a centre at the origin becomes the row farthest from it."""
    farthest = rows[rows.square().sum(1).argmax()]
    atoms = torch.where(atoms.norm(dim=1, keepdim=True) > _TINY, atoms, farthest)
    return atoms / atoms.norm(dim=1, keepdim=True).clamp(min=_TINY)


def _step_atoms(rows: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor) -> None:
    """Move each atom in turn, in place, to the best within the unit ball for given codes."""
    weights, wanted = codes.T @ codes, codes.T @ rows
    for i in range(len(atoms)):
        if weights[i, i] > _TINY:
            best = atoms[i] + (wanted[i] - weights[i] @ atoms) / weights[i, i]
            atoms[i] = best / best.norm().clamp(min=1)


def _revive(rows: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor) -> None:
    """Point atoms that no row uses, in place, at the rows that are explained worst. The objective stays as it is: their codes are 0."""
    dead = (codes.amax(0) <= 0).nonzero().flatten()
    if len(dead):
        left = rows - codes @ atoms
        worst = left.square().sum(1).topk(min(len(dead), len(left))).indices
        for atom, row in zip(dead.tolist(), worst.tolist(), strict=False):
            atoms[atom] = left[row] / left[row].norm().clamp(min=_TINY)


def _loss(total: float, rows: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor, penalty: float) -> float:
    """1/2 |Z - VU|^2 + penalty * sum V, without forming VU."""
    wide, atoms = codes.double(), atoms.double()
    cross = ((codes.T @ rows).double() * atoms).sum()
    own = ((wide.T @ wide) * (atoms @ atoms.T)).sum()
    return float((total - 2 * cross + own) / 2 + penalty * wide.sum())
