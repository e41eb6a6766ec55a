"""Training speed of a SONAR space: our step against the same networks in transformers, on the same batches.

    OMP_NUM_THREADS=1 python -m benchmarks.sonar_training PREPARED --rounds 5

PREPARED is a folder that ``lcm-data train sonar`` made (``OUT/data``). Both sides have the same weights to begin with,
the same losses (checked), AdamW and bfloat16 autocast. transformers' way: padded rows, an attention mask, one call for
all logits, ``cross_entropy`` over them. Trap: a batch of sorted lengths has little padding, which favours transformers;
our batches are made so, and it gets them as they are.
"""

from __future__ import annotations

import argparse
import os
import time
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lcm_models.sonar.batches import SonarBatch, SonarLoader
from lcm_models.sonar.config import BatchConfig, SonarConfig
from lcm_models.sonar.model import SonarModel
from lcm_models.sonar.prepared import open_prepared


class Transformers(nn.Module):
    """The same networks, losses and shared embedding with transformers' classes; ids as in ours, rows too."""

    def __init__(self, config: SonarConfig, vocab_size: int) -> None:
        from transformers import M2M100Config
        from transformers.models.m2m_100.modeling_m2m_100 import M2M100Decoder, M2M100Encoder

        super().__init__()
        heads = config.width // 64
        theirs = M2M100Config(
            vocab_size=vocab_size, d_model=config.width, encoder_layers=config.encoder_layers,
            decoder_layers=config.decoder_layers, encoder_attention_heads=heads, decoder_attention_heads=heads,
            encoder_ffn_dim=config.encoder_ffn, decoder_ffn_dim=config.decoder_ffn, dropout=0.0, attention_dropout=0.0,
            activation_dropout=0.0, encoder_layerdrop=0.0, decoder_layerdrop=0.0, pad_token_id=1,
        )  # fmt: skip
        self.encoder, self.decoder = M2M100Encoder(theirs), M2M100Decoder(theirs)
        self.decoder.embed_tokens.weight = self.encoder.embed_tokens.weight
        self.mse = config.mse

    def take(self, ours: SonarModel) -> None:
        """Our weights; what ours lacks has no influence."""
        names = {
            "self_attn.output_proj": "self_attn.out_proj",
            "encoder_decoder_attn.output_proj": "encoder_attn.out_proj",
        }
        names |= {"encoder_decoder_attn": "encoder_attn", "ffn.inner_proj": "fc1", "ffn.output_proj": "fc2"}
        names |= {"ffn_layer_norm": "final_layer_norm", "encoder_frontend.embed": "embed_tokens"}
        for mine, network in ((ours.encoder, self.encoder), (ours.decoder, self.decoder)):
            state = {}
            for name, value in mine.state_dict().items():
                key = name.removeprefix("encoder.").removeprefix("decoder.")
                for old, new in names.items():
                    key = key.replace(old, new)
                state[key.replace("decoder_frontend.embed", "embed_tokens")] = value.clone()
            network.load_state_dict({k: v for k, v in state.items() if k != "final_proj.weight"}, strict=False)
        self.decoder.embed_tokens.weight = self.encoder.embed_tokens.weight

    def forward(self, batch: SonarBatch) -> Tensor:
        """The sum of the losses, as ours."""
        rows, lengths = _padded(batch.source_T, batch.source_lengths)
        mask = torch.arange(rows.shape[1]) < lengths.unsqueeze(1)
        hidden = self.encoder(input_ids=rows, attention_mask=mask.long()).last_hidden_state
        emb = (hidden.float() * mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1)
        inputs, target_lengths = _padded(batch.input_U, batch.target_lengths)
        said = self.decoder(input_ids=inputs, encoder_hidden_states=emb[batch.from_M].unsqueeze(1)).last_hidden_state
        logits = F.linear(said, self.encoder.embed_tokens.weight)
        targets, _ = _padded(batch.target_U, batch.target_lengths)
        real = torch.arange(targets.shape[1]) < target_lengths.unsqueeze(1)
        entropy = F.cross_entropy(
            logits.float().flatten(0, 1), targets.masked_fill(~real, -100).flatten(), reduction="sum"
        )
        distance = F.mse_loss(emb[batch.pair_P2[:, 0]], emb[batch.pair_P2[:, 1]])
        return entropy + self.mse * distance * len(batch.target_U)


def _padded(ids: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    return nn.utils.rnn.pad_sequence(list(torch.split(ids, lengths)), batch_first=True, padding_value=1), torch.tensor(
        lengths
    )


def main() -> None:
    """Print tokens a second of both, in turn, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", help="folder of prepared texts")
    parser.add_argument("--preset", default="mini", choices=SonarConfig.presets)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5, help="batches of each side")
    parser.add_argument("--sampled-softmax", type=int, default=4096)
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    data = open_prepared(options.prepared)
    config = BatchConfig(path=options.prepared, batch_tokens=options.batch_tokens, max_tokens=options.max_tokens)
    batches = list(islice(iter(SonarLoader(data, config)), options.rounds + 1))
    sizes = SonarConfig(**SonarConfig.presets[options.preset])
    torch.manual_seed(0)
    ours = SonarModel(sizes, data.vocab_size).train()
    sampled = SonarModel(sizes.model_copy(update={"sampled_softmax": options.sampled_softmax}), data.vocab_size)
    sampled.load_state_dict(ours.state_dict())
    theirs = Transformers(sizes, data.vocab_size).train()
    theirs.take(ours)
    with torch.no_grad():
        losses = [float(ours(batches[0]).total), float(theirs(batches[0]))]
    assert abs(losses[0] / losses[1] - 1) < 1e-3, losses
    sides: dict[str, Any] = {
        "ours": lambda batch: ours(batch).total,
        "ours, sampled softmax": lambda batch: sampled.train()(batch).total,
        "transformers": theirs,
    }
    models = {"ours": ours, "ours, sampled softmax": sampled, "transformers": theirs}
    optimizers = {name: torch.optim.AdamW(model.parameters(), lr=1e-4) for name, model in models.items()}
    spent = dict.fromkeys(sides, 0.0)
    for number, batch in enumerate(batches):
        for name, loss_of in sides.items():
            begun = time.process_time()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = loss_of(batch) / len(batch.target_U)
            loss.backward()
            optimizers[name].step()
            optimizers[name].zero_grad()
            spent[name] += (time.process_time() - begun) * (number > 0)  # the first is the warm-up
    tokens = sum(len(batch.target_U) for batch in batches[1:])
    print(
        f"{sum(p.numel() for p in ours.parameters()) / 1e6:.1f} M parameters, {data.vocab_size} tokens, losses {losses}"
    )
    for name, seconds in spent.items():
        ratio = spent["transformers"] / seconds
        print(f"{name}: {tokens / seconds:,.0f} tokens per CPU second, {ratio:.2f}x transformers")


if __name__ == "__main__":
    main()
