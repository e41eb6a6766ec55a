"""Text to speech: engines that say a sentence, behind one table, and files of what they said.

Which sentences are said and where the files lie is ``pipelines.speak``. Importing this package is cheap.
"""

from lcm_data.speak.base import SPEAKERS, Speaker, load_speaker

__all__ = ["SPEAKERS", "Speaker", "load_speaker"]
