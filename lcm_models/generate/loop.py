"""Continuous batching: documents grow side by side, leave when they end, and new ones take their seats.

Shapes: B rows, S concepts of a document, D concept width.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor

from lcm_data.errors import UsageError
from lcm_models.config import Frozen
from lcm_models.generate.seats import join
from lcm_models.generate.stop import Stop, StopRules
from lcm_models.model import ConceptModel, State


class Request(NamedTuple):
    """The beginning of a document, raw concepts [S, D], and the seed of what follows."""

    prefix_SD: Tensor
    seed: int


class Continuation(NamedTuple):
    """What a request got: new concepts, raw float32 [N, D] on the CPU (N may be 0), and why there are no more."""

    x_ND: Tensor
    stop: Stop


@dataclass
class _Seat:
    number: int
    limit: int
    last_D: Tensor
    has_last: bool
    new: list[Tensor] = field(default_factory=list)


@torch.no_grad()
def generate(
    model: ConceptModel,
    requests: Iterable[Request],
    stop: StopRules | None = None,
    sampling: Frozen | None = None,
    end_of_text: Tensor | None = None,
    max_rows: int = 64,
) -> Iterator[Continuation]:
    """Continue documents, ``max_rows`` at a time; one continuation a request, in their order.

    Requests are fetched when there is a seat, so their number does not matter. A document comes out the same whatever
    else is generated with it, up to rounding: its seed is its own.

    Args:
        model: in evaluation mode.
        stop: when documents end.
        sampling: of the model's ``sampling_type``.
        end_of_text: raw concept [D] that ends a document; without it none ends by that rule.

    Raises:
        UsageError: a prefix is too short or too long for the model, or of another width.
    """
    stop = stop or StopRules()
    end_D = None if end_of_text is None else end_of_text.float().to(model.device)
    waiting, done, told = enumerate(requests), dict[int, Continuation](), 0
    seats: list[_Seat] = []
    state: State | None = None
    while True:
        if arrived := list(islice(waiting, max_rows - len(seats))):
            fresh = model.start([request.prefix_SD for _, request in arrived], [request.seed for _, request in arrived])
            state = fresh if state is None or not seats else join(state, fresh)
            seats += [_seat(model, number, request, stop) for number, request in arrived]
        if not seats:
            return
        assert state is not None
        _advance(model, state, seats, stop, sampling, end_D, done)
        seats = [seat for seat in seats if seat.number not in done]
        while told in done:
            yield done.pop(told)
            told += 1


def _seat(model: ConceptModel, number: int, request: Request, stop: StopRules) -> _Seat:
    length = len(request.prefix_SD)
    room = model.config.max_len - length
    if room < 1:
        raise UsageError(f"a prefix of {length} concepts leaves no room: the model takes {model.config.max_len}.")
    last_D = request.prefix_SD[-1] if length else torch.zeros(model.config.concept_dim)
    return _Seat(number, min(stop.max_new, room), last_D.float().to(model.device), length > 0)


def _advance(
    model: ConceptModel,
    state: State,
    seats: list[_Seat],
    stop: StopRules,
    sampling: Frozen | None,
    end_D: Tensor | None,
    done: dict[int, Continuation],
) -> None:
    """Predict a concept for every document; those that end are ``done`` and leave the state, the others get it."""
    x_BD = model.next_concepts(state, sampling).float()
    previous_BD = torch.stack([seat.last_D for seat in seats])
    counts = [len(seat.new) for seat in seats]
    reasons = stop.reasons(x_BD, previous_BD, [seat.has_last for seat in seats], counts, end_D)
    going = []
    for row, (seat, reason) in enumerate(zip(seats, reasons, strict=True)):
        if reason is None:
            seat.new.append(x_BD[row])
            seat.last_D, seat.has_last = x_BD[row], True
            if len(seat.new) == seat.limit:
                reason = "max_new" if seat.limit == stop.max_new else "max_len"
        if reason is None:
            going.append(row)
        else:
            empty = x_BD.new_zeros(0, x_BD.shape[1])
            done[seat.number] = Continuation(torch.stack(seat.new).cpu() if seat.new else empty.cpu(), reason)
    if going:
        if len(going) < len(seats):
            state.select(going)
        model.extend(state, x_BD[going])
