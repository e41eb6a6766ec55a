"""Contrastive accuracy: is the true concept nearer to the guess than other concepts? Against a pool that is fixed.

The paper compares with the concepts of the batch, the true one's neighbours excepted (§2.4.1), so its figures depend
on the size and the contents of batches. Here the candidates are a sample of the language and split, drawn with a seed:
the same for all models.

Shapes: N places, P candidates, D dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xxhash
from torch import Tensor

from lcm_models.evaluate.documents import Array, EvalDocument


@dataclass(frozen=True)
class Pool:
    """Candidates: float64, centred at their mean, which keeps differences of distances exact."""

    mean_D: Tensor
    x_PD: Tensor
    document_P: Tensor
    index_P: Tensor
    key_P: Tensor

    def accuracy(self, guess_ND: Tensor, x_ND: Tensor, document: int, index_N: Tensor) -> Tensor:
        """Share [N] of the candidates that are further from the guess than the true concept is.

        The true concept, its two neighbours and candidates equal to it are none. NaN where no candidate is left.

        Args:
            document: number of the document that the places are in.
            index_N: the places in it.
        """
        guess_ND, true_ND = guess_ND.double() - self.mean_D, x_ND.double() - self.mean_D
        # |g - c|^2 - |g - x|^2, without |g|^2
        other_NP = self.x_PD.square().sum(dim=1) - 2 * guess_ND @ self.x_PD.T
        true_N = true_ND.square().sum(dim=1) - 2 * (guess_ND * true_ND).sum(dim=1)
        near_NP = (self.document_P == document) & ((self.index_P - index_N.unsqueeze(1)).abs() <= 1)
        counts_NP = ~(near_NP | (self.key_P == keys_of(x_ND).unsqueeze(1)))
        further_NP = counts_NP & (other_NP > true_N.unsqueeze(1))
        return further_NP.sum(dim=1) / counts_NP.sum(dim=1)


def make_pool(documents: list[EvalDocument], size: int, seed: int) -> Pool:
    """``size`` concepts of the documents drawn with the seed (all if there are fewer)."""
    lengths = [len(document.x_SD) for document in documents]
    document_N = np.repeat(np.arange(len(documents)), lengths)
    index_N = np.concatenate([np.arange(length) for length in lengths])
    chosen = np.sort(np.random.default_rng(seed).permutation(len(index_N))[:size])
    rows: list[Array] = [documents[document_N[row]].x_SD[index_N[row]] for row in chosen]
    x_PD = torch.from_numpy(np.stack(rows))
    mean_D = x_PD.double().mean(dim=0)
    places = (torch.from_numpy(document_N[chosen]), torch.from_numpy(index_N[chosen]))
    return Pool(mean_D, x_PD.double() - mean_D, *places, keys_of(x_PD))


def keys_of(x_ND: Tensor) -> Tensor:
    """A hash int64 [N] of each vector: equal vectors have equal ones."""
    return torch.tensor([xxhash.xxh64_intdigest(row.tobytes()) >> 1 for row in x_ND.float().numpy()], dtype=torch.int64)
