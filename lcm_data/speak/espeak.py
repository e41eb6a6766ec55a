"""espeak-ng, which speaks a hundred languages anywhere: small, quick, and plainly a machine.

It is a program of its own (``apt install espeak-ng``, ``brew install espeak-ng``), run once a sentence.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import wave

import numpy as np

from lcm_data.errors import UnknownNameError, UsageError
from lcm_data.languages import parse_language
from lcm_data.speak.base import FloatTrack

_PROGRAM = "espeak-ng"


class EspeakNg:
    """A voice of espeak-ng, as ``Speaker``.

    Raises:
        UsageError: the program is missing, or has no voice for the language.
    """

    def __init__(self, lang: str) -> None:
        if shutil.which(_PROGRAM) is None:
            raise UsageError(
                "the speech engine espeak-ng is not installed. Install it with the system's packages (apt install "
                "espeak-ng), or give the folder of a VITS model."
            )
        voices = _voices()
        if lang not in voices:
            raise UsageError(
                f"espeak-ng has no voice for {lang}; it has them for {', '.join(sorted(voices))}. Give the folder of a "
                "VITS model, such as those of MMS."
            )
        self._voice = voices[lang]
        version = _run("--version").decode().split("Data at")[0].strip().rsplit(" ", 1)[-1]
        self.name = f"espeak-ng {version}, voice {self._voice}"
        self.rate = _read(_run("-v", self._voice, "--stdout", "--", "a"))[1]

    def say(self, text: str) -> FloatTrack:
        """See ``Speaker.say``."""
        return _read(_run("-v", self._voice, "--stdout", "-b", "1", "--stdin", text=text))[0]


def _voices() -> dict[str, str]:
    """The voice of each language that has one: the first whose code means it, the shortest code first."""
    found: dict[str, str] = {}
    codes = [line.split()[1] for line in _run("--voices").decode().splitlines()[1:] if line.strip()]
    for code in sorted(codes, key=len):
        try:
            found.setdefault(parse_language(code), code)
        except UnknownNameError:
            continue  # a language that is not in FLORES-200, such as Klingon
    return found


def _run(*arguments: str, text: str = "") -> bytes:
    done = subprocess.run([_PROGRAM, *arguments], input=text.encode(), capture_output=True, check=False)
    if done.returncode:
        error = done.stderr.decode(errors="replace").strip()
        raise UsageError(f"espeak-ng failed with exit code {done.returncode}: {error or 'no message'}.")
    return done.stdout


def _read(data: bytes) -> tuple[FloatTrack, int]:
    """Samples and rate of what it wrote: 16 bits, one channel, and a header that does not know the length."""
    with wave.open(io.BytesIO(data)) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32)
        return samples / np.float32(32768), file.getframerate()
