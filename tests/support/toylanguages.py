"""Three made-up languages that say the same in other words: enough for a space to be learned in seconds."""

from __future__ import annotations

import json
import random
from pathlib import Path

LANGS = ("eng_Latn", "deu_Latn", "fra_Latn")
_WORDS = {
    "eng_Latn": "red blue green small large old new house tree river bird falls stands sleeps",
    "deu_Latn": "rot blau grün klein groß alt neu haus baum fluss vogel fällt steht schläft",
    "fra_Latn": "rouge bleu vert petit grand vieux neuf maison arbre fleuve oiseau tombe tient dort",
}


def sentences(num: int, seed: int = 0) -> list[dict[str, str]]:
    """Sentences of four words in every language; the order of the words is another in each."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        size, colour, noun, verb = rng.randrange(3, 6), rng.randrange(3), rng.randrange(7, 11), rng.randrange(11, 14)
        order = {
            "eng_Latn": (size, colour, noun, verb), "deu_Latn": (verb, size, colour, noun),
            "fra_Latn": (noun, colour, size, verb),
        }  # fmt: skip
        rows.append({lang: " ".join(_WORDS[lang].split()[word] for word in words) for lang, words in order.items()})
    return rows


def write_pairs(path: Path, num: int, seed: int = 0) -> Path:
    """A table of pairs with English."""
    lines = [
        json.dumps({"lang": lang, "en": row["eng_Latn"], "text": row[lang]}, ensure_ascii=False)
        for row in sentences(num, seed)
        for lang in LANGS[1:]
    ]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path
