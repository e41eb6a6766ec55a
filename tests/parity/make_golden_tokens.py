"""Makes ``golden/tokens.npz``: what fairseq2's tokenizer makes of 6,000 strings with two vocabularies, and back.

``make_golden.py`` runs it; alone it runs as ``python tests/parity/make_golden_tokens.py`` in the same environment. The
second vocabulary, ``golden/scripts.model.xz``, has 4,000 pieces in 40 languages; like NLLB's it is a unigram model with
the normalisation ``nmt_nfkc`` and without byte fallback, so that some characters of some scripts are unknown to it.
"""

from __future__ import annotations

import io
import json
import lzma
import random
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
TEXT_LANG = "fra_Latn"
NUM_ID_SEQUENCES = 1000


def checksums(texts: list[str]) -> Any:
    """uint32 [N]: small, and enough to tell which text is another one."""
    import numpy as np

    return np.array([zlib.crc32(text.encode()) for text in texts], np.uint32)


def id_sequences(vocab_size: int) -> list[list[int]]:
    """Sequences no tokenizer would make: any piece after any other, languages, data tags and controls in between."""
    rng = random.Random(29)
    ends = [vocab_size, vocab_size, 20]
    return [[rng.randrange(rng.choice(ends)) for _ in range(rng.randint(0, 25))] for _ in range(NUM_ID_SEQUENCES)]


def train_on_many_scripts() -> bytes:
    """A vocabulary of the demo's documents and the sentences of ``manyscripts``."""
    import sentencepiece
    from manyscripts import SENTENCES

    files = sorted((ROOT / "lcm_data" / "assets" / "demo").glob("*.jsonl"))
    documents = [json.loads(line)["text"] for path in files for line in path.read_text("utf-8").splitlines()]
    lines = [line for text in documents for line in text.splitlines() if line.strip()]
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(lines + list(SENTENCES.values()) * 3),
        model_writer=out,
        model_type="unigram",
        vocab_size=4000,
        character_coverage=0.9995,
        num_threads=1,
        minloglevel=2,
    )
    return out.getvalue()


def reference(model: Path) -> dict[str, Any]:
    """What fairseq2 makes of all strings and id sequences with the vocabulary at ``model``."""
    import numpy as np
    import soundfile  # noqa: F401  (brings the library that fairseq2 looks for)
    import torch
    from fairseq2.models.nllb.tokenizer import NllbTokenizerConfig, load_nllb_tokenizer
    from manyscripts import strings

    from lcm_data.languages import FLORES_200

    tokenizer = load_nllb_tokenizer(model, NllbTokenizerConfig(langs=list(FLORES_200), default_lang="eng_Latn"))
    encode, decode = tokenizer.create_encoder(lang=TEXT_LANG), tokenizer.create_decoder()
    rows = [encode(text) for text in strings()]
    said = [decode(torch.tensor(ids, dtype=torch.int64)) for ids in id_sequences(tokenizer.vocab_info.size)]
    return {
        "lengths": np.array([len(row) for row in rows], np.uint16),
        "ids": torch.cat(rows).numpy().astype(np.uint16),
        "decoded": checksums([decode(row) for row in rows]),
        "decoded_sequences": checksums(said),
        "languages": np.array([tokenizer.create_encoder(lang=lang)("").tolist() for lang in FLORES_200], np.uint16),
        "vocab_size": np.array(tokenizer.vocab_info.size),
    }


def main() -> None:
    """Write the vocabulary and the reference's answers."""
    import numpy as np

    sys.path.insert(0, str(ROOT / "tests" / "support"))  # as pytest does
    model = train_on_many_scripts()
    (GOLDEN / "scripts.model.xz").write_bytes(lzma.compress(model, preset=9))
    arrays = {f"small.{name}": value for name, value in reference(GOLDEN / "sentencepiece.model").items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "scripts.model")
        path.write_bytes(model)
        arrays |= {f"scripts.{name}": value for name, value in reference(path).items()}
    np.savez_compressed(GOLDEN / "tokens.npz", **arrays)


if __name__ == "__main__":
    main()
