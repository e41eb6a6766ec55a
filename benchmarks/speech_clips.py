"""Clips with what they say, to train a speech encoder on and to test it with: Debian's recordings, and espeak-ng.

    apt-get download asterisk-core-sounds-{en,es,fr,it,ru}{,-g722} fillets-ng-data{,-cs,-nl}
    for deb in *.deb; do dpkg-deb -x $deb packages; done
    python -m benchmarks.speech_clips packages clips --texts pairs.jsonl.zst --spoken 30000 --held-out test.jsonl

writes sound files and tables that ``lcm-data train speech`` reads, ``recordings`` and ``spoken``, and for
``benchmarks.speech_space`` ``test-prompts`` (telephone prompts that were not learned, by the speakers that were),
``test-game`` (the same of a game by its two fish), ``test-figures`` (the other figures of the game, who were never
heard) and ``test-voice`` (sentences of ``--held-out`` by voices of espeak-ng that were never heard).

Recordings: Asterisk prompts in English, Spanish, French, Italian and Russian, a professional speaker each
(CC-BY-SA-3.0 and CC-BY-3.0), and Fish Fillets in Czech and Dutch, acted (GPL-2). Prompts and lines are parallel:
a name or id says the same in all languages, so it is held out in all of them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import itertools
import os
import random
import re
import subprocess
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from lcm_data.quality.rows import table_rows

Row = dict[str, Any]

SPEAKERS = {
    "en": ("eng_Latn", "en_US_f_Allison"), "es": ("spa_Latn", "es_MX_f_Allison"), "fr": ("fra_Latn", "fr_CA_f_June"),
    "it": ("ita_Latn", "it_IT_m_Carlo"), "ru": ("rus_Cyrl", "ru_RU_f_IvrvoiceRU"),
}  # fmt: skip
GAME = {"cs": "ces_Latn", "nl": "nld_Latn"}
GAME_TEXTS = GAME | {
    "en": "eng_Latn",
    "de": "deu_Latn",
    "fr": "fra_Latn",
    "it": "ita_Latn",
    "es": "spa_Latn",
    "ru": "rus_Cyrl",
}
ESPEAK = {"eng_Latn": ("en-us", "en-gb"), "spa_Latn": ("es", "es-419"), "fra_Latn": ("fr",), "ita_Latn": ("it",),
          "rus_Cyrl": ("ru",), "nld_Latn": ("nl",)}  # fmt: skip
VOICES = ("m1", "m2", "m3", "m4", "m6", "m7", "f1", "f2", "f3", "klatt", "klatt2", "Andy", "Annie", "Alicia", "steph")
UNHEARD = ("m5", "f4", "klatt4")
PLAIN = re.compile(r"(?:[^\W\d_]|[ ,.'’!?-])+")
LINE = re.compile(r'dialogId\("([^"]+)",\s*"[^"]*",\s*"((?:[^"\\]|\\.)*)"\)(?:\s*dialogStr\("((?:[^"\\]|\\.)*)"\))?')


def is_held_out(key: str, share: float = 0.12) -> bool:
    """Decided by a hash of the name, so the same for all languages."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") < share * 2**64


def clip(file: Path, lang: str, texts: dict[str, str]) -> Row:
    """A row of a table of clips: the recording, its language, what it says, and translations by language."""
    return {"audio": str(file), "lang": lang, "text": texts[lang], **{k: v for k, v in texts.items() if k != lang}}


def prompts(packages: Path, out: Path) -> Iterator[tuple[str, Row]]:
    """Telephone prompts: name of the table, row."""
    import av

    share = packages / "usr/share"
    texts: dict[str, dict[str, str]] = {}
    for code, (lang, _) in SPEAKERS.items():
        text = gzip.decompress((share / f"doc/asterisk-core-sounds-{code}/core-sounds-{code}.txt.gz").read_bytes())
        for line in text.decode("utf-8").splitlines():
            name, found, said = line.partition(":")
            said = " ".join(said.split())
            if found and not name.startswith(";") and said and not re.search(r"[\[\]<>()]", said):
                texts.setdefault(name.strip(), {})[lang] = said
    for code, (lang, speaker) in SPEAKERS.items():
        for name, row in texts.items():
            file = share / f"asterisk/sounds/{speaker}/{name}.g722"
            if lang not in row or not file.is_file():
                continue
            target = out / f"prompts/{code}/{name.replace('/', '-')}.wav"
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.is_file():
                with av.open(str(file), format="g722") as source, av.open(str(target), "w") as sink:
                    stream = sink.add_stream("pcm_s16le", rate=16000, layout="mono")
                    for frame in itertools.chain(source.decode(audio=0)):
                        sink.mux(stream.encode(frame))
                    sink.mux(stream.encode(None))
            yield "test-prompts" if is_held_out(name) else "recordings", clip(target, lang, row)


def game(packages: Path) -> Iterator[tuple[str, Row]]:
    """Lines of the game's figures."""
    share = packages / "usr/share/games/fillets-ng"
    texts: dict[str, dict[str, str]] = {}
    for code, lang in GAME_TEXTS.items():
        for file in sorted(share.glob(f"script/*/dialogs_{code}.lua")):
            for name, english, other in LINE.findall(file.read_text("utf-8")):
                said = english if code == "en" else other
                if " ".join(said.split()):
                    key = f"{file.parent.name}/{name}"
                    texts.setdefault(key, {})[lang] = " ".join(said.replace('\\"', '"').replace("\\n", " ").split())
    for code, lang in GAME.items():
        for file in sorted(share.glob(f"sound/*/{code}/*.ogg")):
            key = f"{file.parents[1].name}/{file.stem}"
            if lang in texts.get(key, {}):
                is_fish = re.search(r"(^|-)[mv](-|$)", file.stem)
                table = "test-figures" if not is_fish else "test-game" if is_held_out(key) else "recordings"
                yield table, clip(file, lang, texts[key])


def sentences(rows: Iterable[Row], lang: str, num: int, rng: random.Random) -> list[Row]:
    """Different plain sentences of 2 to 14 words in a language, with their translations."""
    found: dict[str, Row] = {}
    for row in rows:
        text = row.get(lang)
        if text and len(text) <= 90 and 2 <= len(text.split()) <= 14 and PLAIN.fullmatch(text):
            found.setdefault(text.casefold().strip(" .!?"), {k: v for k, v in row.items() if v})
    return rng.sample(list(found.values()), min(num, len(found)))


def speak(args: argparse.Namespace, out: Path) -> Iterator[tuple[str, Row]]:
    """Sentences said by espeak-ng with a voice, a pitch and a speed drawn for each."""
    rng = random.Random(0)
    jobs: list[tuple[str, Row, list[str]]] = []
    held_out = [row for uri in args.held_out for row in table_rows(uri)]
    keys = {row.get("eng_Latn") for row in held_out}
    texts = [row for uri in args.texts for row in table_rows(uri) if row.get("eng_Latn") not in keys]
    for lang, accents in ESPEAK.items():
        parts = [("spoken", texts, args.spoken // len(ESPEAK), VOICES), ("test-voice", held_out, 150, UNHEARD)]
        for table, rows, num, voices in parts:
            for number, row in enumerate(sentences(rows, lang, num, rng)):
                target = out / f"spoken/{lang}/{table}-{number:06d}.wav"
                target.parent.mkdir(parents=True, exist_ok=True)
                voice = f"{rng.choice(accents)}+{rng.choice(voices)}"
                how = ["-v", voice, "-p", str(rng.randint(20, 80)), "-s", str(rng.randint(130, 210))]
                command = ["espeak-ng", *how, "-w", str(target), "--", row[lang]]
                jobs.append((table, clip(target, lang, row), command))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        list(pool.map(_run, [command for _, _, command in jobs]))
    yield from ((table, row) for table, row, _ in jobs)


def _run(command: list[str]) -> None:
    if not Path(command[command.index("-w") + 1]).is_file():
        subprocess.run(command, check=True)


def main() -> None:
    """Make what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder the packages were unpacked in")
    parser.add_argument("out", type=Path)
    parser.add_argument("--texts", nargs="*", default=[], help="tables of translations for espeak-ng to say")
    parser.add_argument("--held-out", nargs="*", default=[], help="others, to test with")
    parser.add_argument("--spoken", type=int, default=0, help="clips by espeak-ng")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    args.packages = args.packages.resolve()
    tables: dict[str, list[Row]] = {}
    for table, row in itertools.chain(prompts(args.packages, out), game(args.packages), speak(args, out)):
        tables.setdefault(table, []).append(row)
    for table, rows in tables.items():
        (out / f"{table}.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        print(f"{table}: {len(rows):,} clips")


if __name__ == "__main__":
    main()
