"""The speech encoder with the loss that trains it: how far a clip's vector is from what a text encoder makes of it.

The network is that of ``lcm_data.sonar``: what was trained here is what runs there. Shapes: see ``batches``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_data.sonar.speech_encoder import Convolution, FeedForward, RelativeAttention, SpeechEncoder
from lcm_models.model import Loss
from lcm_models.speech.batches import SpeechBatch
from lcm_models.speech.config import SpeechConfig

_SAME = 1 - 1e-4
"""Cosine of two targets from which on they are one."""


class SpeechModel(nn.Module):
    """``model(batch)`` is the loss.

    Args:
        dim: width of the targets.
        variance: of the targets, mean over the width: the unit of distances, so 1 is what the mean itself would get.
        num_characters: how many letters transcripts have.
    """

    def __init__(self, config: SpeechConfig, dim: int, variance: float, num_characters: int) -> None:
        super().__init__()
        self.config, self.variance = config, variance
        self.encoder = SpeechEncoder(config.encoder(dim))
        self.speller = nn.Linear(config.width, 1 + num_characters) if config.ctc else None
        self.reset_parameters()
        for name, parameter in self.encoder.encoder_pooler.named_parameters():
            if name.endswith("encoder_decoder_attn.k_proj.bias"):
                parameter.requires_grad_(False)  # it changes nothing
        for name, parameter in self.encoder.named_parameters():
            if name.endswith("depthwise_conv.weight"):  # DDP warns of another stride of the dimension of size 1
                parameter.register_hook(_usual_strides)  # type: ignore[no-untyped-call]
        if config.dropout:
            for module in self.encoder.encoder.modules():
                if isinstance(module, FeedForward | RelativeAttention | Convolution):
                    module.register_forward_hook(self._drop)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Xavier for all products; vectors begin near the mean of the targets, scaled to their deviation."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        pooler = self.encoder.encoder_pooler
        nn.init.normal_(pooler.decoder_frontend.embed.weight, std=self.config.width**-0.5)
        pooler.projection_out.weight *= self.variance**0.5

    def _drop(self, module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        return F.dropout(output, self.config.dropout, module.training)

    def forward(self, batch: SpeechBatch) -> Loss:
        """Sums over the clips."""
        config, num_clips = self.config, len(batch.lengths)
        x_BSD, padding_BS = self.encoder.positions(batch.features_BSF, batch.lengths)
        vector_BD = self.encoder.encoder_pooler(x_BSD, padding_BS).float()
        distance = (vector_BD - batch.target_BD).square().mean(dim=1).sum() / self.variance
        total = config.mse * distance
        sums = {"unexplained": distance.detach()}
        if config.contrast:
            contrast = told_apart(vector_BD, batch.target_BD, batch.negative_ND, config.contrast_scale).sum()
            total = total + config.contrast * contrast
            sums["contrast"] = contrast.detach()
        if self.speller is not None:
            spelling = self._spelling(x_BSD, batch)
            total = total + config.ctc * spelling
            sums["ctc"] = spelling.detach()
        return Loss(total, torch.tensor(float(num_clips), device=vector_BD.device), sums)

    def _spelling(self, x_BSD: Tensor, batch: SpeechBatch) -> Tensor:
        """What it costs to spell the transcripts, in nats a letter, summed over the clips (Graves et al. 2006).

        Clips without a transcript, or with one that is longer than their positions can spell, count as 0.
        """
        assert self.speller is not None
        log_prob_SBV = self.speller(x_BSD).float().log_softmax(dim=2).transpose(0, 1)
        with torch.autocast(x_BSD.device.type, enabled=False):
            nats_B = F.ctc_loss(
                log_prob_SBV, batch.letters_L, torch.tensor(batch.lengths), batch.num_letters_B,
                reduction="none", zero_infinity=True,
            )  # fmt: skip
        return (nats_B / batch.num_letters_B.clamp_min(1))[batch.num_letters_B > 0].sum()


def told_apart(vector_BD: Tensor, target_BD: Tensor, negative_ND: Tensor, scale: float) -> Tensor:
    """Cross entropy of finding each clip's target by cosine among those of the batch and the negatives, in nats [B].

    The noise-contrastive loss of CPC (arXiv 1807.03748, eq 4). The teacher is frozen, so other clips' targets serve as
    well as those of the batch. One that is the clip's own is no negative: others may say the same sentence.
    """
    vector_BD, target_BD, negative_ND = (F.normalize(x.float(), dim=1) for x in (vector_BD, target_BD, negative_ND))
    candidate_ND = torch.cat([target_BD, negative_ND])
    with torch.autocast(vector_BD.device.type, enabled=False):
        score_BN = scale * (vector_BD @ candidate_ND.T)
        says_the_same_BN = target_BD @ candidate_ND.T > _SAME
    right_B = torch.arange(len(target_BD), device=vector_BD.device)
    says_the_same_BN[right_B, right_B] = False
    return F.cross_entropy(score_BN.masked_fill(says_the_same_BN, -torch.inf), right_B, reduction="none")


def _usual_strides(grad: Tensor) -> Tensor:
    return grad.flatten().view(grad.shape)
