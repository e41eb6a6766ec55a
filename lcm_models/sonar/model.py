"""The networks of a SONAR space with the loss that trains them (arXiv 2308.11466, §4.1).

Encoder and decoder are those of ``lcm_data.sonar``: what was trained here is what runs there. Shapes: see ``batches``.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.sonar.layers import FeedForward
from lcm_data.sonar.packing import Groups, Packing, Padded
from lcm_data.sonar.text_decoder import TextDecoder
from lcm_data.sonar.text_encoder import SelfAttention, TextEncoder
from lcm_models.model import Loss
from lcm_models.sonar.batches import SonarBatch
from lcm_models.sonar.config import SonarConfig
from lcm_models.sonar.cross_entropy import linear_cross_entropy
from lcm_models.sonar.disturb import Disturbance


class SonarModel(nn.Module):
    """``model(batch)`` is the loss: cross entropy of the decoded tokens, and the distance of translations."""

    def __init__(self, config: SonarConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = TextEncoder(config.encoder(vocab_size))
        self.decoder = TextDecoder(config.decoder(vocab_size))
        self.share()
        self.reset_parameters()
        if config.dropout:
            for module in self.modules():
                if isinstance(module, FeedForward | SelfAttention) or type(module).__name__ == "_CausalAttention":
                    module.register_forward_hook(self._drop)
        if config.freeze_encoder:
            self.encoder.requires_grad_(False)
        self.disturb: Disturbance | None = None
        """What happens to vectors in training before they are decoded."""
        self.token_share_V: Tensor | None = None
        """How often each token is a target, for ``sampled_softmax``."""

    def share(self) -> None:
        """One embedding for encoder, decoder and output."""
        self.decoder.decoder_frontend.embed.weight = self.encoder.encoder_frontend.embed.weight
        self.decoder.tie()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier for products, embeddings that are 1 wide after their factor sqrt(D), as fairseq2 does."""
        for module in self.modules():
            if isinstance(module, nn.Linear) and module is not self.decoder.final_proj:
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.encoder.encoder_frontend.embed.weight, std=self.config.width**-0.5)

    def _drop(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return F.dropout(output, self.config.dropout, module.training)

    def forward(self, batch: SonarBatch) -> Loss:
        """Sums over the target tokens; the distance of translations counts as many times as there are tokens."""
        device = batch.source_T.device
        emb_ND = self.encoder(batch.source_T, batch.source_lengths, _packing(batch.source_lengths, device))
        entropy = self._cross_entropy(emb_ND, batch)
        num_targets = torch.tensor(float(len(batch.target_U)), device=device)
        first_PD, second_PD = emb_ND[batch.pair_P2[:, 0]], emb_ND[batch.pair_P2[:, 1]]
        distance = F.mse_loss(first_PD, second_PD) if len(batch.pair_P2) else emb_ND.new_zeros(())
        total = entropy + self.config.mse * distance * num_targets
        sums = {"cross_entropy": entropy.detach(), "mse": (distance * num_targets).detach()}
        if self.config.contrast:
            contrast = contrastive(first_PD, second_PD, self.config.contrast_scale)
            total = total + self.config.contrast * contrast * num_targets
            sums["contrast"] = (contrast * num_targets).detach()
        return Loss(total, num_targets, sums)

    def _cross_entropy(self, emb_ND: Tensor, batch: SonarBatch) -> Tensor:
        device = emb_ND.device
        row_U = torch.arange(len(batch.target_lengths), device=device).repeat_interleave(
            torch.tensor(batch.target_lengths, device=device)
        )
        packing = _packing(batch.target_lengths, device, causal=True)
        emb_MD = emb_ND[batch.from_M]
        if self.training and self.disturb is not None:
            emb_MD = self.disturb(emb_MD)
        hidden_UD = self.decoder.hidden(emb_MD, row_U, batch.input_U, packing)
        weight_VD, target_U = self.decoder.final_proj.weight, batch.target_U
        smoothing, bias_V = 0.0, None
        if self.training:
            smoothing = self.config.label_smoothing
            if 0 < self.config.sampled_softmax < len(weight_VD):
                chosen_C, target_U, bias_V = self._candidates(target_U, self.config.sampled_softmax)
                weight_VD = weight_VD[chosen_C]
        return linear_cross_entropy(hidden_UD, weight_VD, target_U, smoothing, bias_V)

    def _candidates(self, target_U: Tensor, num: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """The tokens of the batch and others up to ``num`` in all, ascending; where among them each target is; a bias.

        A rare token is seldom among them, so it would come out too likely. The bias, minus the logarithm of the chance
        to be among them, makes up for it (arXiv 1412.2007, eq 10).
        """
        vocab_size, num_targets = len(self.decoder.final_proj.weight), len(target_U)
        wanted = torch.unique(target_U)
        num_others = max(0, num - len(wanted))
        others = torch.randint(vocab_size, (num_others,), device=target_U.device)
        chosen_C = torch.unique(torch.cat([wanted, others]))
        bias_C = None
        if self.token_share_V is not None:
            share_C = self.token_share_V.to(target_U.device)[chosen_C].clamp_min(1e-8)
            missing_C = (num_targets - 1) * torch.log1p(-share_C) + num_others * math.log1p(-1 / vocab_size)
            bias_C = -torch.log(-torch.expm1(missing_C))
        return chosen_C, torch.searchsorted(chosen_C, target_U), bias_C


def contrastive(first_PD: Tensor, second_PD: Tensor, scale: float) -> Tensor:
    """Cross entropy of finding each translation among those of the batch by cosine, mean of both directions, in nats.

    The loss of LaBSE (arXiv 2007.01852, eq 1) with a scale instead of a margin. Not part of SONAR's own objective.
    """
    if not len(first_PD):
        return first_PD.new_zeros(())
    first_PD, second_PD = (F.normalize(part.float(), dim=1) for part in (first_PD, second_PD))
    with torch.autocast(first_PD.device.type, enabled=False):
        score_PP = scale * (first_PD @ second_PD.T)
    right_P = torch.arange(len(score_PP), device=score_PP.device)
    return (F.cross_entropy(score_PP, right_P) + F.cross_entropy(score_PP.T, right_P)) / 2


def _packing(lengths: list[int], device: torch.device, causal: bool = False) -> Packing:
    return Groups(lengths, causal) if device.type == "cpu" else Padded(lengths, device, causal)
