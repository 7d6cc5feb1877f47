"""Numbers as people write them in a task: `2,000`, `2k`, `two thousand`, `２０００`, `3万`, `两千五百`.

Both ways: patterns and readers for `prompts.required_words`, and `in_chinese` for `prompts.constraints`.
"""

import re

_EN_UNITS = dict(
    zip(
        "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
        "eighteen nineteen".split(),
        range(1, 20),
        strict=True,
    )
)
_EN_TENS = dict(zip("twenty thirty forty fifty sixty seventy eighty ninety".split(), range(20, 100, 10), strict=True))
_EN_SMALL = {"a": 1, "an": 1, **_EN_UNITS, **_EN_TENS}
_EN_SCALES = {"hundred": 100, "thousand": 1000}
_EN_NAMES = "|".join(sorted({*_EN_UNITS, *_EN_TENS}, key=len, reverse=True))

_ZH_DIGITS = {character: value for value, character in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2, "兩": 2}
_ZH_SCALES = {"十": 10, "百": 100, "千": 1000}
_ZH_NAMES = "零一二三四五六七八九"

ENGLISH = (
    r"(?:(?<![\w.,])\d{1,3}(?:,\d{3})+(?!\d)|(?<![\w.,])\d{1,6}(?:\.\d{1,2})?)(?:\s?k\b|\s+thousand|\s+hundred)?"
    rf"|\b(?:(?:{_EN_NAMES}|an?)[\s-]+)?(?:(?:{_EN_NAMES}|hundred|thousand)(?:[\s-]+and)?[\s-]+){{0,5}}"
    rf"(?:{_EN_NAMES}|hundred|thousand)\b"
)
"""A number in an English sentence, lower case; what it means is `read_english`."""

CHINESE = (
    r"(?:(?<![\d.,])\d{1,3}(?:,\d{3})+(?!\d)|(?<![\d.,])\d{1,6}(?:\.\d{1,2})?)\s?[万萬千百kw]?"
    r"|[零〇一二三四五六七八九十百千万萬两兩]+"
)
"""A number in a Chinese sentence, full-width forms already folded; what it means is `read_chinese`."""


def fold(text: str) -> str:
    """Full-width ASCII as ASCII, any dash as `-`, in lower case: as long as the text itself, place for place."""
    folded = text.translate(_FOLD)
    lower = folded.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in folded)


_FOLD = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
_FOLD |= {0x3000: ord(" "), 0xA0: ord(" "), **dict.fromkeys(map(ord, "‐‑‒–—―−"), ord("-")), ord("～"): ord("~")}


def read_english(text: str) -> int | None:
    """Value of what `ENGLISH` matched; none if it is no whole number (`two three`, `1.25`)."""
    digits = re.fullmatch(r"([\d,]+(?:\.\d+)?)\s*(k|thousand|hundred)?", text)
    if digits:
        return _whole(digits[1], {"k": 1000, "thousand": 1000, "hundred": 100}.get(digits[2] or "", 1))
    total = part = 0
    scale = 10**9
    for word in re.split(r"[\s-]+", text):
        if word == "and":
            continue
        if word in _EN_SCALES:
            if _EN_SCALES[word] >= scale:
                return None
            part = max(part, 1) * _EN_SCALES[word]
            if word == "thousand":
                total, part, scale = total + part, 0, 1000
        else:
            value = _EN_SMALL[word]
            if part % 100 and not (part % 100 in _EN_TENS.values() and value < 10):
                return None
            part += value
    return total + part or None


def read_chinese(text: str) -> int | None:
    """Value of what `CHINESE` matched; none if it is no number (`十万百`). `千` and `万` alone are 1,000 and 10,000."""
    digits = re.fullmatch(r"([\d,]+(?:\.\d+)?)\s?([万萬千百kw])?", text)
    if digits:
        return _whole(
            digits[1], {"万": 10**4, "萬": 10**4, "w": 10**4, "千": 1000, "k": 1000, "百": 100}.get(digits[2], 1)
        )
    left, ten_thousand, right = text.replace("萬", "万").partition("万")
    if ten_thousand:
        high, low = _below_ten_thousand(left or "一"), _below_ten_thousand(right or "零", scale=10**4)
        return None if high is None or low is None else high * 10**4 + low or None
    return _below_ten_thousand(text) or None


def _below_ten_thousand(text: str, *, scale: int = 1) -> int | None:
    """`scale` is that of what stands before: the last digit of 两万五 counts thousands, that of 两万零五 ones."""
    if all(character in _ZH_DIGITS for character in text) and len(text) > 1 and scale == 1:
        return int("".join(str(_ZH_DIGITS[character]) for character in text))
    total, digit = 0, None
    for character in text:
        if character in _ZH_SCALES:
            if _ZH_SCALES[character] >= scale > 1 or (digit is None and text[0] != character):
                return None
            scale = _ZH_SCALES[character]
            total, digit = total + (1 if digit is None else digit) * scale, None
        elif character in "零〇":
            if digit:
                return None
            scale, digit = 1, None
        elif digit is not None:
            return None
        else:
            digit = _ZH_DIGITS[character]
    return total + (digit or 0) * max(1, scale // 10)


def in_chinese(number: int) -> str:
    """A number from 1 to 99,999,999 in Chinese numerals as they are used for lengths: 两千五百, 一万二千, 三百零五."""
    if not 1 <= number < 10**8:
        raise ValueError(f"{number} cannot be written: a length is from 1 to 99,999,999")
    high, low = divmod(number, 10**4)
    text = _digits(low) if low else ""
    if high:
        text = _digits(high) + "万" + ("零" if 0 < low < 1000 else "") + text
    text = text.removeprefix("一") if text.startswith("一十") else text
    return re.sub("(?<!十)二(?=[千万])", "两", text)


def _digits(number: int) -> str:
    text, zero = "", False
    for scale, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit, number = divmod(number, scale)
        if digit:
            text += ("零" if zero and text else "") + _ZH_NAMES[digit] + name
            zero = False
        else:
            zero = True
    return text


def _whole(digits: str, scale: int) -> int | None:
    number = round(float(digits.replace(",", "")) * scale, 6)
    return int(number) if number == int(number) and number > 0 else None
