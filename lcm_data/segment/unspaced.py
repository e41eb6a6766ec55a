"""Sentence ends that no mark tells: Thai, Lao (spaces), Tibetan (a mark for every clause), Korean, Urdu (verbs).

These are heuristics with figures well below those of marked scripts; a trained segmenter does better for Thai.
"""

from __future__ import annotations

import re

_THAI_GAP = re.compile("(?<=[\u0e01-\u0e4e\u0e81-\u0ecd])[ \u00a0]+(?=[\u0e01-\u0e45\u0e81-\u0ec4])")
_SURE, _LONG = 20, 50  # code points that a sentence has before a sign, or a mere space, may end it

# A sentence often begins so: besides, when, although, as for, some, at present, then, therefore, however, both, ...
_THAI_STARTS = re.compile(
    "นอกจาก|เมื่อ|แม้|ถึงแม้|ส่วน|บาง|ปัจจุบัน|ในปัจจุบัน|จากนั้น|ดังนั้น|เพราะฉะนั้น|อย่างไรก็|ทั้งนี้|สำหรับ|หลังจาก|"
    "ต่อมา|ข้าพเจ้า|ในขณะ|ในที่สุด|ตัวอย่างเช่น|ผม|ฉัน|เขา|เธอ|พวกเขา|พวกเรา|อีกทั้ง|ถ้า|หาก|ด้วยเหตุนี้|"
    "ນອກຈາກ|ເມື່ອ|ເຖິງແມ່ນ|ສ່ວນ|ປັດຈຸບັນ|ຈາກນັ້ນ|ດັ່ງນັ້ນ|ຢ່າງໃດກໍ|ສຳລັບ|ຫຼັງຈາກ|ຕໍ່ມາ|ຂ້ອຍ|ລາວ|ຖ້າ|ຫາກ"
)
# The sentence goes on: and, or, which, in order to, that is, such as, together, by, so, ...
_THAI_GOES_ON = re.compile(
    "และ|หรือ|ซึ่ง|เพื่อ|คือ|เช่น|พร้อม|รวม|ที่|โดย|จึง|อาทิ|เป็น|อยู่|ได้แก่|ก็|ว่า|ของ|กับ|แก่|มี|ต้อง|แล้ว|ตลอดจน|"
    "ແລະ|ຫຼື|ຊຶ່ງ|ເຊິ່ງ|ເພື່ອ|ຄື|ເຊັ່ນ|ພ້ອມ|ລວມ|ທີ່|ໂດຍ|ຈຶ່ງ|ເປັນ|ກໍ|ວ່າ|ຂອງ|ກັບ"
)
# Particles and words that close a sentence, and words that cannot.
_THAI_FINALS = (
    "ครับ",
    "ค่ะ",
    "คะ",
    "นะ",
    "ต่อไป",
    "ด้วย",
    "เสมอ",
    "ปกติ",
    "เท่านั้น",
    "เดียว",
    "กันเอง",
    "นั่นเอง",
    "ແລ້ວ",
    "ເດີ",
    "ນຳ",
)
_THAI_OPEN = ("เช่น", "คือ", "ชื่อ", "ต่าง", "ว่า", "หรือ", "และ", "นาย", "นาง", "ที่", "ๆ", "ເຊັ່ນ", "ຄື", "ຊື່", "ວ່າ", "ຫຼື", "ແລະ")

# Tibetan closes clauses and sentences alike with a shad. Doubled, or after a final verb or particle, it is a full stop.
_TIBETAN_END = re.compile(
    "(?:(?<=[་།\u0f40-\u0fbc])(?:འོ|གོ|ངོ|དོ|ནོ|བོ|མོ|རོ|ལོ|སོ|ཏོ|རེད|ཡིན|མིན|འདུག|ཡོད|མེད|བྱུང|སོང|ཤོག|ཅིག|ཞིག|བཞུགས|ཨིན|ནོ|ཅི|ཡི|དེས)[་]?།+|།\\s*།)[།\\s]*"
)

_KOREAN_END = re.compile(
    "(?<=[가-힣])(?:니다|[네세]요|[아어여해예에워려군구데죠지]요|나요|더라고요|[가-힣]죠|[려여아어해]줘|시오|[었았했였겠]다)"
    "[~^ㅋㅎㅠㅜ!]*(?: [~^ㅋㅎㅠㅜ!]+)*(?=\\s)"
)

# Urdu is often typed with a hyphen for its full stop: after a verb that ends clauses (is, are, was, went, will).
_URDU_END = re.compile(r"\b(?:ہے|ہیں|ہوں|تھا|تھی|تھے|تھیں|گیا|گئی|گئے|گا|گی|گے) ?-(?=\s)")


def thai_ends(text: str) -> list[int]:
    """Return the spaces of Thai or Lao ``text`` at which a sentence ends, judged by the words around and the length."""
    ends = []
    start = 0
    for gap in _THAI_GAP.finditer(text):
        length = gap.start() - start
        if length < _SURE or text.endswith(_THAI_OPEN, start, gap.start()):
            continue
        if _THAI_GOES_ON.match(text, gap.end()):
            continue
        if length >= _LONG or _THAI_STARTS.match(text, gap.end()) or text.endswith(_THAI_FINALS, start, gap.start()):
            start = gap.end()
            ends.append(start)
    return ends


def korean_ends(text: str) -> list[int]:
    """Return the ends of Korean sentences that carry no mark: polite and past endings before a space."""
    return [match.end() for match in _KOREAN_END.finditer(text)]


def tibetan_ends(text: str) -> list[int]:
    """Return the ends of Tibetan or Dzongkha sentences: a double shad, or a shad after a word that closes one."""
    return [match.end() for match in _TIBETAN_END.finditer(text)]


def urdu_ends(text: str) -> list[int]:
    """Return the ends of Urdu sentences closed by a hyphen."""
    return [match.end() for match in _URDU_END.finditer(text)]
