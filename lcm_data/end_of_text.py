"""Special concepts, such as that for the end of a text: the embedding of one sentence, raw, in a file of its own.

The end of a text is the sentence "End of text." (LCM paper §2.3.1), in the folder of the corpus. ``encode`` writes it,
models that learn where documents end read it.
"""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from lcm_data.encode import Encoder
from lcm_data.errors import CheckpointError
from lcm_data.quantize.tensorfile import map_tensors, write_tensors
from lcm_data.store.files import Files, LocalFiles, open_files

END_OF_TEXT = "end_of_text.safetensors"
END_OF_TEXT_SENTENCE = "End of text."

_KIND = "lcm-data concept"


@dataclass(frozen=True)
class ConceptInfo:
    """The sentence a special concept stands for, and who embedded it."""

    text: str = ""
    lang: str = ""
    encoder: str = ""
    space: str = ""
    encoder_revision: str = ""


@dataclass(frozen=True, eq=False)
class Concept:
    """A special concept: a raw vector float32 [D]."""

    vector: npt.NDArray[np.float32]
    info: ConceptInfo = ConceptInfo()

    @classmethod
    def encode(cls, encoder: Encoder, text: str = END_OF_TEXT_SENTENCE, lang: str = "eng_Latn") -> Concept:
        """Embed a sentence.

        Raises:
            UnknownNameError: the encoder does not know the language.
        """
        (vector,) = encoder.embed(encoder.prepare([text], lang))
        facts = encoder.provenance
        by = {name: facts.get(name, "") for name in ("encoder", "space", "encoder_revision")}
        return cls(vector.astype(np.float32), ConceptInfo(text, lang, **by))

    @property
    def fingerprint(self) -> str:
        """Of the vector alone."""
        return hashlib.sha256(self.vector.astype(np.float32).tobytes()).hexdigest()[:16]

    def save(self, corpus_or_file: str) -> str:
        """Write to a .safetensors file, or as the end of text of a corpus; returns where."""
        folder, _, name = corpus_or_file.rpartition("/")
        folder, name = (folder or ".", name) if name.endswith(".safetensors") else (corpus_or_file, END_OF_TEXT)
        with tempfile.TemporaryDirectory(prefix="lcm-data-") as scratch:
            open_files(folder).write(name, self.write(Path(scratch, name)).read_bytes())
        return f"{folder}/{name}"

    def publish(self, stage: Files, corpus: Files) -> None:
        """Write as the end of text of ``corpus`` by way of the scratch of ``stage``, unless the same is there."""
        with stage.scratch() as scratch:
            local = self.write(scratch / END_OF_TEXT)
            if corpus.size(END_OF_TEXT) is None or corpus.read(END_OF_TEXT) != local.read_bytes():
                corpus.publish(local, END_OF_TEXT)

    def write(self, path: Path) -> Path:
        """Write to a local file."""
        write_tensors(path, {"vector": self.vector.astype(np.float32)}, {"kind": _KIND, **asdict(self.info)})
        return path

    @classmethod
    def load(cls, file: str) -> Concept:
        """Read what ``save`` wrote, or a .npy file of one vector.

        Raises:
            CheckpointError: missing, or no such file.
        """
        try:
            with local_copy(file) as path:
                return cls(_read_npy(path, file)) if file.endswith(".npy") else cls._read(path, file)
        except FileNotFoundError as error:
            raise CheckpointError(f"{file} does not exist. Write it with Concept.save, or name another.") from error

    @classmethod
    def _read(cls, path: Path, name: str) -> Concept:
        tensors, meta = map_tensors(path)
        if meta.pop("kind", "") != _KIND or "vector" not in tensors:
            raise CheckpointError(f"{name} holds no special concept: write one with Concept.save.")
        return cls(tensors["vector"].copy(), ConceptInfo(**meta))


def _read_npy(path: Path, name: str) -> npt.NDArray[np.float32]:
    try:
        vector: npt.NDArray[np.float32] = np.load(path, allow_pickle=False).astype(np.float32).squeeze()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} is no .npy file of a vector: {error}.") from error
    return vector


@contextlib.contextmanager
def local_copy(name: str) -> Iterator[Path]:
    """A local file of that name, a copy of a remote one. Raises ``FileNotFoundError``."""
    folder, _, base = name.rpartition("/")
    files = open_files(folder or ".")
    if isinstance(files, LocalFiles):
        path = Path(files.root, base)
        if not path.exists():
            raise FileNotFoundError(name)
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="lcm-data-") as scratch:
        Path(scratch, base).write_bytes(files.read(base))
        yield Path(scratch, base)
