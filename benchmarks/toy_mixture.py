"""What the variants make of a text that two others follow equally often: the mean of both, or one of them.

    OMP_NUM_THREADS=1 python -m benchmarks.toy_mixture --plot docs/images/toy_mixture.png

The paper's case for diffusion and quantisation in the smallest world that has it: one concept of 16 dimensions is
followed by one of two others. Models of 2 or 4 layers, 32 wide, see 24 such documents 100 times and continue the first
concept 300 times. Distances are in units of half the way between the two continuations: at 0 a concept is one of them,
the middle is 1 from both. Quant-LCM has it easier: its codebook holds the three concepts exactly and nothing between.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lcm_data.normalize import Normalizer
from lcm_data.quantize.codebook import Codebook, Provenance
from lcm_models import LCMS, build_model
from lcm_models.diffusion.model import DiffusionModel
from lcm_models.model import Batch, ConceptModel
from lcm_models.quant_lcm import QuantLCM

DIM = 16
SPREAD = 0.01
NEAR = 0.3


class Continuations(NamedTuple):
    """What a model made of the first concept, N times."""

    found_ND: Tensor
    ends_2D: Tensor
    """The two that may follow."""
    truth_ND: Tensor
    """A fair draw of the two."""

    @property
    def half_way(self) -> Tensor:
        return (self.ends_2D[0] - self.ends_2D[1]).norm() / 2

    @property
    def to_ends(self) -> Tensor:
        """Distances to the two ends [N, 2]."""
        return torch.cdist(self.found_ND, self.ends_2D) / self.half_way

    @property
    def to_middle(self) -> Tensor:
        """Distances to the mean of the ends [N]."""
        return (self.found_ND - self.ends_2D.mean(dim=0)).norm(dim=-1) / self.half_way

    @property
    def along(self) -> Tensor:
        """Places along the line between the ends [N]: -1 and 1 are the ends."""
        axis = (self.ends_2D[1] - self.ends_2D[0]) / 2
        return (self.found_ND - self.ends_2D.mean(dim=0)) @ axis / axis.square().sum()

    def facts(self) -> dict[str, float]:
        nearest_N = self.to_ends.min(dim=-1).values
        hits_N2 = self.to_ends < NEAR
        return {
            "to the middle": float(self.to_middle.mean()),
            "to the nearest end": float(nearest_N.mean()),
            "at one end": float(hits_N2[:, 0].float().mean()),
            "at the other": float(hits_N2[:, 1].float().mean()),
            "error": float((self.found_ND - self.truth_ND).norm(dim=-1).square().mean().sqrt() / self.half_way),
        }


def continuations(variant: str, num: int, num_steps: int = 100) -> Continuations:
    """Train a small model, and continue the first concept ``num`` times."""
    generator = torch.Generator().manual_seed(4)
    first_1D, *others = (SPREAD * torch.randn(1, DIM, generator=generator) for _ in range(3))
    batch = Batch.of([torch.cat([first_1D, others[number % 2]]) for number in range(24)])
    model = small_model(variant)
    if isinstance(model, QuantLCM):
        book = Codebook.build(torch.cat([first_1D, *others])[None].numpy(), Provenance(encoder="toy"))
        model.set_codebook(book)
        codes = book.encode(batch.x_BSD.flatten(0, 1).numpy())[0].astype("int64")
        batch = batch._replace(codes_BSL=torch.from_numpy(codes).view(*batch.doc_BS.shape, -1))
    train(model, batch, num_steps)
    settings: dict[str, Any] = {} if variant == "base" else {"guidance": 1.0}
    if isinstance(model, DiffusionModel):
        settings |= {"initial_noise": 1.0, "steps": 20}
    found_ND = model.next_concepts(model.start([first_1D] * num), model.sampling_type(**settings))
    ends_2D = torch.cat(others)
    return Continuations(found_ND, ends_2D, ends_2D[torch.randint(2, (num,), generator=generator)])


def small_model(variant: str) -> ConceptModel:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"concept_dim": DIM, "width": 32, "num_heads": 2}
    layers = ("num_context_layers", "num_denoiser_layers") if variant == "two-tower" else ("num_layers",)
    sizes |= dict.fromkeys(layers, 2)
    if variant.startswith("quant"):
        sizes |= {"num_levels": 1, "num_units": 3}
    model = build_model(variant, "tiny", sizes)
    model.set_normalizer(Normalizer(np.zeros(DIM, np.float32), np.full(DIM, SPREAD, np.float32)))
    return model


def train(model: ConceptModel, batch: Batch, num_steps: int, peak: float = 1e-2) -> list[float]:
    """Losses of training with warm-up and linear decay on the same batch."""
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
    torch.manual_seed(0)
    model.train()
    losses = []
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = peak * min(1, (step + 1) / 20) * (1 - step / num_steps)
        loss = model(batch).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 25.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def plot(results: dict[str, Continuations], path: Path) -> None:
    """A panel a variant: where its continuations lie along the line between the two ends."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.2), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True)
    for panel, (variant, result) in zip(panels, results.items(), strict=True):
        panel.hist(result.along.numpy(), bins=np.linspace(-1.6, 1.6, 41), color="tab:blue")
        for end in (-1, 1):
            panel.axvline(end, color="tab:orange", linewidth=1, linestyle="--")
        panel.set_title(variant, fontsize=10)
        panel.set_xticks([-1, 0, 1], ["one", "mean", "other"], fontsize=8)
        panel.tick_params(axis="y", labelsize=8)
    panels[0].set_ylabel("continuations", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=300, help="continuations of each variant")
    parser.add_argument("--plot", type=Path, help="write the picture there")
    given = parser.parse_args()
    results = {variant: continuations(variant, given.num) for variant in LCMS}
    names = list(next(iter(results.values())).facts())
    print("| | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for variant, result in results.items():
        print(f"| {variant} | " + " | ".join(f"{value:.2f}" for value in result.facts().values()) + " |")
    if given.plot:
        plot(results, given.plot)


if __name__ == "__main__":
    main()
