"""Which items to ask about together: rules that look at a batch, or at a target set.

    batch_bald  greedy maximum of the joint information I(y_1..y_k ; weights)  (Kirsch et al. 2019)
    epig        information about the labels of a target set        (Bickford Smith et al. 2023)
    badge       k-means++ on gradients of the last layer            (Ash et al. 2020)
    core_set    greedy k-centre on features                         (Sener and Savarese 2018)

The first two need *consistent* draws: draw t is one set of weights for every item. With masks
drawn afresh per item they would see no correlation at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evenloop.heuristics.uncertainty import Kind, probabilities

__all__ = ["badge", "batch_bald", "core_set", "epig", "joint_information"]

# Numbers held at once by one slice of a pairwise computation: 4 million doubles are 32 MB.
_SLICE = 1 << 22


def joint_information(draws: Tensor | np.ndarray, *, kind: Kind = "probs") -> float:
    """I(y_1, ..., y_n ; weights) in nats of `n` items (n, C, T), by enumerating all C^n labels.

    Raises:
        ValueError: C^n is above four million; `batch_bald` samples there.

    >>> import torch
    >>> same = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]).repeat(2, 1, 1)
    >>> round(joint_information(same), 6)
    0.693147
    """
    probs = probabilities(draws, kind=kind)
    n, classes, draws_t = probs.shape
    if classes**n > _SLICE:
        raise ValueError(f"{classes}^{n} label combinations are too many to enumerate")
    joint = probs.new_ones(1, draws_t)
    for item in probs:
        joint = (joint[:, None] * item).flatten(0, 1)
    conditional = torch.special.entr(probs).sum(1).mean(1).sum()
    return float(torch.special.entr(joint.mean(1)).sum() - conditional)


@dataclass(slots=True, eq=False)
class _Joint:
    """Label combinations of the chosen items: `given` (M, T) their probability under each draw.

    `exact` combinations are all there are; sampled ones were drawn from the joint, each counting
    1/M.
    """

    given: Tensor
    exact: bool
    drawn_under: Tensor | None = None

    def entropies(self, probs: Tensor) -> Tensor:
        """(N,) entropy of the chosen items' labels together with each candidate's."""
        _, classes, draws = probs.shape
        chosen = self.given.mean(1)
        rows = max(1, _SLICE // max(1, len(self.given) * classes))
        parts = []
        for part in torch.split(probs, rows):
            joint = self.given @ part.permute(2, 0, 1).reshape(draws, -1) / draws
            if self.exact:
                entropy = torch.special.entr(joint)
            else:
                # importance weights: combinations were drawn with probability `chosen`
                ratio = joint / chosen[:, None]
                entropy = torch.where(joint > 0, -ratio * joint.clamp_min(1e-300).log(), 0.0)
                entropy = entropy / len(chosen)
            parts.append(entropy.view(-1, len(part), classes).sum((0, 2)))
        return torch.cat(parts)

    def grown(self, item: Tensor, generator: torch.Generator) -> _Joint:
        """With one more item (C, T) chosen."""
        if self.exact:
            return _Joint((self.given[:, None] * item).flatten(0, 1), True)
        assert self.drawn_under is not None
        label = _labels(item, self.drawn_under, generator)
        return _Joint(self.given * item[label], False, self.drawn_under)


def _labels(item: Tensor, drawn_under: Tensor, generator: torch.Generator) -> Tensor:
    """(M,) labels of one item (C, T), each drawn under its own posterior draw."""
    chance = item[:, drawn_under].T.to(generator.device)
    return torch.multinomial(chance, 1, generator=generator).flatten().to(item.device)


def _sampled(items: Tensor, samples: int, generator: torch.Generator) -> _Joint:
    """`samples` label combinations of the chosen items (n, C, T), equally many under each draw."""
    draws = items.shape[2]
    under = torch.arange(samples, device=items.device) % draws
    given = items.new_ones(samples, draws)
    for item in items:
        given = given * item[_labels(item, under, generator)]
    return _Joint(given, False, under)


def batch_bald(
    draws: Tensor | np.ndarray,
    k: int,
    *,
    kind: Kind = "probs",
    samples: int = 4096,
    generator: torch.Generator | None = None,
) -> Tensor:
    """(min(k, N),) positions of a batch whose labels together tell most about the weights.

    Greedy, hence within 1 - 1/e of the best batch. Exact while the label combinations of the
    chosen items number at most `samples`, estimated from `samples` drawn combinations after that.

    Args:
        draws: (N, C, T) *consistent* draws: draw t uses the same weights for every item.
        k: size of the batch.
        kind: "probs" or "logits".
        samples: largest number of label combinations held.
        generator: draws the combinations; a fixed one of its own by default.

    >>> import torch
    >>> same = [[1.0, 0.0], [0.0, 1.0]]
    >>> other = [[0.9, 0.2], [0.1, 0.8]]
    >>> batch_bald(torch.tensor([same, same, other]), 2).tolist()
    [0, 1]
    """
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    probs = probabilities(draws, kind=kind)
    n, classes, draws_t = probs.shape
    if samples < draws_t:
        raise ValueError(f"samples must be at least the {draws_t} draws, got {samples}")
    generator = generator or torch.Generator().manual_seed(0)
    conditional = torch.special.entr(probs).sum(1).mean(1)
    joint = _Joint(probs.new_ones(1, draws_t), True)
    chosen: list[Tensor] = []
    free = torch.ones(n, dtype=torch.bool, device=probs.device)
    for _ in range(min(k, n)):
        gain = joint.entropies(probs) - conditional
        best = gain.masked_fill(~free, -torch.inf).argmax()
        free[best] = False
        chosen.append(best)
        if joint.exact and len(joint.given) * classes > samples:
            joint = _sampled(probs[torch.stack(chosen)], samples, generator)
        else:
            joint = joint.grown(probs[best], generator)
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.long)


def epig(
    draws: Tensor | np.ndarray, targets: Tensor | np.ndarray, *, kind: Kind = "probs"
) -> Tensor:
    """(N,) float64 expected information gain in nats about the labels of a target set.

    The mean over targets of the mutual information between the item's label and the target's,
    under draws shared by both.

    Args:
        draws: (N, C, T) consistent draws of the pool.
        targets: (M, C, T) draws of the items whose predictions matter, under the same weights.
        kind: "probs" or "logits", of both.

    Raises:
        ValueError: the draws do not match in C and T, or there is no target.

    >>> import torch
    >>> sure = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    >>> round(float(epig(sure, sure)), 6)
    0.693147
    """
    pool, target = probabilities(draws, kind=kind), probabilities(targets, kind=kind)
    if pool.shape[1:] != target.shape[1:] or not len(target):
        raise ValueError(
            f"targets must have shape (M, {pool.shape[1]}, {pool.shape[2]}) with M of at least 1, "
            f"got {tuple(target.shape)}"
        )
    classes, t = pool.shape[1:]
    alone = torch.special.entr(pool.mean(2)).sum(1)
    alone_target = torch.special.entr(target.mean(2)).sum(1)
    right = target.reshape(-1, t).T / t
    rows = max(1, _SLICE // (classes * right.shape[1]))
    # I(y; y*) = H(y) + H(y*) - H(y, y*), and the joint is one matrix product over draws
    together = [
        torch.special.entr(part.reshape(-1, t) @ right).view(len(part), -1).sum(1)
        for part in torch.split(pool, rows)
    ]
    gain: Tensor = alone + alone_target.mean() - torch.cat(together) / len(target)
    return gain.clamp_min(0)


def badge(probs: Tensor, features: Tensor, k: int, *, generator: torch.Generator) -> Tensor:
    """(min(k, N),) positions picked by k-means++ on hallucinated last-layer gradients.

    The gradient of item i is (p_i - onehot(argmax p_i)) outer h_i; distances are taken from its
    two factors, so the (N, C F) matrix is never made.

    Args:
        probs: (N, C) mean predictions.
        features: (N, F) inputs of the last layer.
        k: how many.
        generator: draws the centres.

    Raises:
        ValueError: lengths differ, a number is not finite, or a row of `probs` is no distribution.

    >>> import torch
    >>> p, h = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.6, 0.4]]), torch.eye(3)
    >>> len(set(badge(p, h, 2, generator=torch.Generator().manual_seed(0)).tolist()))
    2
    """
    if len(probs) != len(features):
        raise ValueError(f"probs has {len(probs)} items, features {len(features)}")
    _check_finite(features)
    if not bool(((probs >= 0).all(1) & ((probs.sum(1) - 1).abs() < 1e-3)).all()):
        raise ValueError("probs must be (N, C) probabilities that sum to one; take the softmax")
    residual = probs.double().clone()
    residual[torch.arange(len(probs)), probs.argmax(1)] -= 1
    features = features.double()
    norm = (residual**2).sum(1) * (features**2).sum(1)
    distance = norm.clone()
    chosen: list[Tensor] = []
    for i in range(min(k, len(probs))):
        # the longest gradient first, as in the paper's k-means++ start
        pick = norm.argmax() if i == 0 else _pick(distance, chosen, generator)
        chosen.append(pick)
        cross = (residual @ residual[pick]) * (features @ features[pick])
        to_pick = (norm + norm[pick] - 2 * cross).clamp_min(0)
        distance = to_pick if i == 0 else torch.minimum(distance, to_pick)
        distance[pick] = 0
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.long)


def _check_finite(features: Tensor) -> None:
    """Raise `ValueError` naming the first item with a feature that is NaN or infinite."""
    bad = ~features.isfinite().flatten(1).all(1)
    if bool(bad.any()):
        raise ValueError(f"features of item {int(bad.nonzero()[0])} are not finite")


def _pick(distance: Tensor, chosen: list[Tensor], generator: torch.Generator) -> Tensor:
    """One item with chance proportional to `distance`; uniform over the rest if all are 0."""
    weight = distance
    if not float(weight.sum()) > 0:
        weight = torch.ones_like(distance)
        weight[torch.stack(chosen)] = 0
    # a cumulative sum has no limit on the number of items, unlike torch.multinomial
    at = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    total = weight.cumsum(0)
    return torch.searchsorted(total, at.to(total.device) * total[-1], right=True)


def core_set(features: Tensor, labelled: Tensor, k: int) -> Tensor:
    """(min(k, N),) positions, each the farthest from all labelled and chosen (greedy k-centre).

    Args:
        features: (N, F) of the pool.
        labelled: (M, F) of the items labelled already; M may be 0, then the first is the item
            farthest from the pool's mean.
        k: how many.

    Raises:
        ValueError: a feature is not finite.

    >>> import torch
    >>> core_set(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.2]]), 2).tolist()
    [2, 1]
    """
    _check_finite(features)
    _check_finite(labelled)
    features = features.double()
    centres = labelled.double() if len(labelled) else features.mean(0, keepdim=True)
    rows = max(1, _SLICE // max(1, len(centres)))
    nearest = [torch.cdist(part, centres).amin(1) for part in torch.split(features, rows)]
    distance = torch.cat(nearest) if nearest else features.new_zeros(0)
    chosen: list[Tensor] = []
    for _ in range(min(k, len(features))):
        pick = distance.argmax()
        chosen.append(pick)
        distance = torch.minimum(distance, (features - features[pick]).norm(dim=1))
        distance[pick] = -1
    return torch.stack(chosen) if chosen else torch.zeros(0, dtype=torch.long)
