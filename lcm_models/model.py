"""What trainer, generation and evaluation know of a model: batches, losses, states, and the class all variants extend.

A variant adds its loss, how it reads context concepts, and how it turns context into the next concept. Concepts cross
this border raw (as the encoder gave them); the model normalises.

Shapes: B rows, S concepts (columns of a row), Q places to predict, D concept width, L code levels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lcm_data.errors import UsageError
from lcm_data.normalize import Normalizer
from lcm_models.attention import KVCache, causal_rule, dense_mask, positions
from lcm_models.config import Frozen, ModelConfig
from lcm_models.layers import Scaler

PADDING = -1
"""Document id of columns that hold no concept; every negative id means the same."""


class Batch(NamedTuple):
    """B rows of S concepts for training or scoring.

    ``doc_BS`` numbers documents: equal neighbours belong together and see each other, nothing else does; negative
    ids are padding. Two documents of a row need different ids. ``target_BS`` says which concepts count in the loss
    (all by default; for prompt and answer only the answer). ``codes_BSL`` is what a quantised model needs.
    """

    x_BSD: Tensor
    doc_BS: Tensor
    target_BS: Tensor | None = None
    codes_BSL: Tensor | None = None

    @classmethod
    def of(cls, documents: Sequence[Tensor]) -> Batch:
        """Documents [S, D], each a row of its own, padded on the right."""
        x_BSD = nn.utils.rnn.pad_sequence(list(documents), batch_first=True)
        lengths_B1 = torch.tensor([[len(document)] for document in documents], device=x_BSD.device)
        index_S = torch.arange(x_BSD.shape[1], device=x_BSD.device)
        return cls(x_BSD, torch.where(index_S < lengths_B1, 0, PADDING))

    def to(self, device: torch.device | str) -> Batch:
        """The batch on another device; copies from pinned memory do not wait."""
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in self))  # type: ignore[arg-type]

    def targets(self) -> Tensor:
        """Mask [B, S] of the concepts that count."""
        real_BS = self.doc_BS >= 0
        return real_BS if self.target_BS is None else real_BS & self.target_BS.bool()


class Draws(NamedTuple):
    """The random choices behind one loss: level of noise (or of the codebook), noise, places that see no context.

    Drawn apart from the loss so that they can be repeated (validation) and shared (tests).
    """

    level_BS: Tensor
    drop_BS: Tensor
    noise_BSD: Tensor | None = None


class Loss(NamedTuple):
    """Sums over the targets of a batch, float32 scalars; means are taken over all ranks and micro-batches.

    ``total`` is what to minimise once divided by the number of targets, squared errors being sums over the D
    dimensions (the paper's convention, which learning recipes and clipping thresholds rely on). ``sums`` holds
    further sums to report, without gradient.
    """

    total: Tensor
    num_targets: Tensor
    sums: dict[str, Tensor]

    def mean(self) -> Tensor:
        """The loss of this batch alone; 0 if it has no target."""
        return self.total / self.num_targets.clamp(min=1)


class Noise:
    """Random numbers for B x Q places; a row has its own generator, so its numbers do not depend on its neighbours."""

    def __init__(self, generators: Sequence[Generator], num_places: int, device: torch.device) -> None:
        self._generators, self._num_places, self._device = generators, num_places, device

    def normal(self, size: int) -> Tensor:
        """Standard normal, float32 [B, Q, size]."""
        return self._stack([torch.randn(self._num_places, size, generator=g) for g in self._generators])

    def uniform(self, size: int) -> Tensor:
        """Uniform in [0, 1), float32 [B, Q, size]."""
        return self._stack([torch.rand(self._num_places, size, generator=g) for g in self._generators])

    def _stack(self, rows: list[Tensor]) -> Tensor:
        return torch.stack(rows).to(self._device)


@dataclass
class State:
    """What a model remembers of B growing documents: their contexts, ready to predict the next concept of each.

    Rows are aligned at their ends: a shorter one begins with padding columns.
    """

    doc_BS: Tensor
    lengths: list[int]
    """Number of concepts of each row."""
    generators: list[Generator]
    context: list[KVCache] = field(default_factory=list)
    """One a layer of the tower that reads concepts; column s belongs to column s of ``doc_BS``."""
    cross: list[KVCache] = field(default_factory=list)
    """Two-Tower: one a denoiser layer; column 0 is the zero vector, column s + 1 belongs to column s."""
    tables: list[Tensor] = field(default_factory=list)
    """What depends on the weights and the level alone, computed once."""
    output_BSD: Tensor | None = None
    """Base-LCM: what it made of the columns read last."""

    @property
    def num_rows(self) -> int:
        """B."""
        return len(self.doc_BS)

    def select(self, rows: Sequence[int]) -> None:
        """Keep only these rows, in this order: finished documents leave the batch."""
        index = torch.tensor(list(rows), device=self.doc_BS.device, dtype=torch.long)
        self.doc_BS = self.doc_BS[index]
        self.lengths = [self.lengths[row] for row in rows]
        self.generators = [self.generators[row] for row in rows]
        for cache in (*self.context, *self.cross):
            cache.select(index)
        if self.output_BSD is not None:
            self.output_BSD = self.output_BSD[index]


class Query(NamedTuple):
    """Q places of each row of a state whose concept is wanted."""

    allowed_BQS: Tensor
    """Which columns of the context each place may see."""
    position_BQ: Tensor
    """Place in the document, from 0."""
    noise: Noise


class ConceptModel(nn.Module, ABC):
    """A Large Concept Model: ``model(batch)`` is its loss, a ``State`` generates, ``predict`` does all places at once.

    Args:
        config: of the variant's ``config_type``.
    """

    config_type: ClassVar[type[ModelConfig]]
    sampling_type: ClassVar[type[Frozen]]
    """Settings of ``next_concepts`` and ``predict``; the defaults are the paper's."""
    needs_codes: ClassVar[bool] = False
    min_context: ClassVar[int] = 0
    """Concepts that must precede the first that can be predicted."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.scaler = Scaler(config.concept_dim)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.scaler.center_D.device

    def set_normalizer(self, normalizer: Normalizer) -> None:
        """Take over the normaliser of the corpus; it is saved with the weights. Do this before training.

        Raises:
            UsageError: it is for concepts of another width.
        """
        self.scaler.load(normalizer)

    def init_weights(self) -> None:
        """Draw all weights anew and compute all tables, also after ``to_empty`` of a model made on the meta device.

        The normaliser must be set again afterwards.
        """
        for module in reversed(list(self.modules())):  # parts before wholes, which may overrule them
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()

    # -- training ------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch, draws: Draws | None = None) -> Loss:
        """The loss: what DistributedDataParallel, FSDP and ``torch.compile`` wrap."""
        return self.loss(batch, draws)

    @abstractmethod
    def loss(self, batch: Batch, draws: Draws | None = None) -> Loss:
        """Sum of the losses of all targets. Without ``draws`` they come from PyTorch's global generator.

        Raises:
            UsageError: the batch is not for this model (width, length, codes).
        """

    def draw(self, batch: Batch, generator: Generator | None = None) -> Draws | None:
        """The random choices of one loss, from ``generator`` or the global one; None if the variant makes none."""
        return None

    def check(self, batch: Batch) -> None:
        """Refuse a batch that is not for this model; looks at shapes only."""
        self._check_concepts(batch.x_BSD)
        if self.needs_codes and batch.codes_BSL is None:
            raise UsageError("this model learns codes and the batch has none: run lcm-data quantize on the corpus.")

    def _check_concepts(self, x_BSD: Tensor) -> None:
        if x_BSD.shape[-1] != self.config.concept_dim:
            raise UsageError(
                f"concepts of {x_BSD.shape[-1]} dimensions given to a model for {self.config.concept_dim}: "
                "set concept_dim."
            )
        self._check_length(x_BSD.shape[-2])

    def _check_length(self, num_concepts: int) -> None:
        if num_concepts > self.config.max_len:
            raise UsageError(
                f"{num_concepts} concepts in a row, the model takes {self.config.max_len}: "
                "cut documents, or set max_len."
            )

    # -- next concepts -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def start(self, prefixes: Sequence[Tensor], seeds: Sequence[int] | None = None) -> State:
        """Read the beginnings of B documents, raw [S, D] of any lengths, 0 included (except for Base-LCM).

        ``seeds``, one a document (0, 1, 2... by default), decide what is sampled: a document comes out the same
        whatever else is in the batch, up to rounding. Call ``model.eval()`` first.

        Raises:
            UsageError: a prefix is too short, too long or of another width, or the seeds do not match.
        """
        seeds = range(len(prefixes)) if seeds is None else seeds
        if len(seeds) != len(prefixes):
            raise UsageError(f"{len(prefixes)} prefixes with {len(seeds)} seeds: give one seed a prefix.")
        if any(len(prefix) < self.min_context for prefix in prefixes):
            raise UsageError(f"this model needs at least {self.min_context} concept of context: give a prefix.")
        state = self._new_state(seeds)
        state.lengths = [len(prefix) for prefix in prefixes]
        num_columns = max(state.lengths, default=0)
        x_BSD = torch.zeros(len(prefixes), num_columns, self.config.concept_dim, device=self.device)
        doc_BS = torch.full((len(prefixes), num_columns), PADDING, device=self.device)
        for row, prefix in enumerate(prefixes):
            if len(prefix):
                self._check_concepts(prefix)
                x_BSD[row, -len(prefix) :] = prefix
                doc_BS[row, -len(prefix) :] = 0
        if num_columns:
            self._read(state, x_BSD, doc_BS)
        return state

    @torch.no_grad()
    def extend(self, state: State, x_BD: Tensor) -> None:
        """Append a raw concept to every document of the state.

        Raises:
            UsageError: the model takes no longer documents.
        """
        self._check_length(max(state.lengths, default=0) + 1)
        state.lengths = [length + 1 for length in state.lengths]
        self._read(state, x_BD.unsqueeze(1).to(self.device), state.doc_BS.new_zeros(state.num_rows, 1))

    @torch.no_grad()
    def next_concepts(self, state: State, sampling: Frozen | None = None) -> Tensor:
        """The next concept of every document, raw float32 [B, D]. The state keeps its context: ``extend`` it.

        Raises:
            UsageError: the model takes no longer documents.
        """
        self._check_length(max(state.lengths, default=0) + 1)
        allowed_BQS = (state.doc_BS >= 0).unsqueeze(1)
        position_BQ = torch.tensor(state.lengths, device=self.device).unsqueeze(1)
        query = Query(allowed_BQS, position_BQ, Noise(state.generators, 1, self.device))
        return self._next(state, query, sampling or self.sampling_type()).squeeze(1)

    def step(self, state: State, sampling: Frozen | None = None) -> Tensor:
        """Predict the next concept of every document and append it: ``next_concepts``, then ``extend``."""
        x_BD = self.next_concepts(state, sampling)
        self.extend(state, x_BD)
        return x_BD

    @torch.no_grad()
    def predict(self, batch: Batch, sampling: Frozen | None = None, seeds: Sequence[int] | None = None) -> Tensor:
        """For every place the concept predicted from the true ones before it, raw float32 [B, S, D], all at once.

        The first ``min_context`` places of a document and padding hold no prediction (zeros). ``seeds``: one a row.
        """
        self._check_concepts(batch.x_BSD)
        num_rows, num_columns = batch.doc_BS.shape
        seeds = range(num_rows) if seeds is None else seeds
        state = self._new_state(seeds)
        self._read(state, batch.x_BSD, batch.doc_BS)
        see_BSS = dense_mask(causal_rule(batch.doc_BS), num_rows, num_columns, num_columns, self.device).squeeze(1)
        position_BS = positions(batch.doc_BS)
        query = Query(see_BSS.tril(-1), position_BS, Noise(state.generators, num_columns, self.device))
        x_BSD = self._next(state, query, sampling or self.sampling_type())
        known_BS = (batch.doc_BS >= 0) & (position_BS >= self.min_context)
        return x_BSD * known_BS.unsqueeze(-1)

    def _new_state(self, seeds: Sequence[int]) -> State:
        """A state without concepts."""
        doc_BS = torch.zeros(len(seeds), 0, dtype=torch.long, device=self.device)
        return State(doc_BS, [0] * len(seeds), [Generator().manual_seed(seed) for seed in seeds])

    def _read(self, state: State, x_BSD: Tensor, doc_BS: Tensor) -> None:
        """Append columns of raw concepts to the context."""
        num_rows, num_new = doc_BS.shape
        state.doc_BS = torch.cat([state.doc_BS, doc_BS], dim=1)
        num_all = state.doc_BS.shape[1]
        if num_new == 1:  # the common case: what belongs to the same document precedes it
            mask = (state.doc_BS == doc_BS)[:, None, None]
        else:
            mask = dense_mask(causal_rule(state.doc_BS), num_rows, num_all, num_all, self.device)[:, :, -num_new:]
        self._context(state, self.scaler.normalize(x_BSD), positions(state.doc_BS)[:, -num_new:], mask)

    @abstractmethod
    def _context(self, state: State, x_BSD: Tensor, position_BS: Tensor, mask: Tensor) -> None:
        """Append columns of normalised concepts to the caches of ``state``."""

    @abstractmethod
    def _next(self, state: State, query: Query, sampling: Any) -> Tensor:
        """The concepts at the places of ``query``, raw float32 [B, Q, D]."""


def squared_error(output_BSD: Tensor, target_BSD: Tensor) -> Tensor:
    """Sum over D of the squared differences, float32 [B, S]."""
    return F.mse_loss(output_BSD.float(), target_BSD.float(), reduction="none").sum(dim=-1)


def loss_of(error_BS: Tensor, targets_BS: Tensor, **more_BS: Tensor) -> Loss:
    """Sums over the targets of the loss and of what else is reported."""

    def total(value_BS: Tensor) -> Tensor:
        return torch.where(targets_BS, value_BS, 0.0).sum()

    sums = {name: total(value_BS.detach().float()) for name, value_BS in more_BS.items()}
    return Loss(total(error_BS), targets_BS.sum().float(), sums)
