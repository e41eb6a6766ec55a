"""The models of one run of ``evaluate``: named, checked against settings, and the networks that say sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from lcm_data.corpus import StageData
from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.space import check_same_space
from lcm_data.store.files import absolute

if TYPE_CHECKING:
    from lcm_models.generate.trained import TrainedFacts
    from lcm_models.model import ConceptModel
    from pipelines.evaluate import EvaluateConfig

BASELINES = ("copy", "mean", "truth")
"""Measured beside the models: the concept before, the mean concept, the true concept."""
_WINDOW = 128


def named(checkpoints: Sequence[str]) -> dict[str, TrainedFacts]:
    """The models by name: as given, or that of the folder of the run.

    Raises:
        UsageError: two have the same, or there is no checkpoint.
    """
    from lcm_models.generate.trained import read_trained

    found: dict[str, TrainedFacts] = {}
    for given in checkpoints:
        name, equals, path = given.partition("=")
        if not equals or "/" in name:
            name, path = "", given
        facts = read_trained(path)
        run_folder = facts.folder.parent.parent if facts.folder.parent.name == "checkpoints" else facts.folder
        is_run = PurePath(path).name == run_folder.name
        name = name or (run_folder.name if is_run else f"{run_folder.name}@{facts.step}")
        if name in found or name in BASELINES:
            raise UsageError(f"two of the models are called {name!r}: give names, as in name=folder.")
        found[name] = facts
    return found


def samplings(models: Mapping[str, TrainedFacts], given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the sampler of each model: those of ``given`` that it has.

    Raises:
        UnknownNameError: a setting that none of them has.
    """
    known = {name for facts in models.values() for name in facts.kind.sampling_type.model_fields}
    for name in given:
        if name not in known:
            raise UnknownNameError("setting of sampling", name, known)
    return {
        name: facts.sampling(
            {key: value for key, value in given.items() if key in facts.kind.sampling_type.model_fields}
        )
        for name, facts in models.items()
    }


def window_of(given: int | None, models: Mapping[str, TrainedFacts]) -> int:
    """Concepts a model sees at once: the same for all, no more than the least of them was trained on."""
    most = min(int(facts.notes["config"]["max_len"]) for facts in models.values())
    if given is not None and given > most:
        raise UsageError(f"--window {given}: one of the models takes {most} concepts at most.")
    return given or max(2, min(_WINDOW, *(facts.window for facts in models.values())))


class Networks:
    """The networks of the models, each loaded once; with ``keep`` they are kept after their first use.

    They wait for the next on a GPU while all that wait there take less than half of it, else in main memory.
    """

    def __init__(self, models: Mapping[str, TrainedFacts], device: str, keep: bool) -> None:
        from lcm_models.generate.worker import device_of

        self._models, self._device, self._keep = models, device_of(device), keep
        self._waiting: dict[str, ConceptModel] = {}

    @contextmanager
    def on_device(self, name: str) -> Iterator[ConceptModel | None]:
        """The network of a model meanwhile; None for what is no model."""
        from lcm_models.checkpoint import load_model

        if name not in self._models:
            yield None
            return
        model = self._waiting[name] if name in self._waiting else load_model(self._models[name].folder).model
        yield model.to(self._device)
        if self._keep:
            self._waiting[name] = model
        if not self._keep or self._is_crowded():
            model.to("cpu")

    def _is_crowded(self) -> bool:
        import torch

        if self._device.type != "cuda":
            return False
        total = torch.cuda.get_device_properties(self._device).total_memory
        return torch.cuda.memory_allocated(self._device) > total / 2


def decoder_and_encoder(config: EvaluateConfig, data: StageData) -> tuple[Any, Any]:
    """Decoder and encoder, if they were named, known to be of the space of the corpus.

    Raises:
        UsageError, SpaceError: they are not.
    """
    from lcm_data.decode import DecoderOptions, load_decoder
    from lcm_data.encode import EncoderOptions, load_encoder

    how: dict[str, Any] = {"dtype": config.dtype, "device": config.device, "threads": config.threads or None}
    decoder = encoder = None
    if config.decoder:
        search: dict[str, Any] = {"beam_size": config.beam_size, "max_tokens": config.max_tokens}
        name = absolute(config.decoder)
        decoder = load_decoder(DecoderOptions(model=name, backend=config.decoder_backend, **search, **how))
    if config.model:
        encoder = load_encoder(EncoderOptions(model=absolute(config.model), backend=config.backend, **how))
    for kind, network in (("decoder", decoder), ("encoder", encoder)):
        if network is not None:
            advice = f"Give the {kind} that belongs to the corpus."
            check_same_space(network.provenance, data.manifest.provenance, f"the {kind}", data.files.root, advice)
            if network.dim != data.dim:
                raise UsageError(f"the {kind} is for {network.dim} dimensions, the corpus has {data.dim}. {advice}")
    return decoder, encoder
