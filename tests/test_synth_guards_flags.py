"""What is flagged and what is not: model's words, people's words, and text made to be slow to search."""

import pytest

from ropewalk.synth.guards import phrases
from ropewalk.synth.guards.flags import FLAGS, find_flags, strip_labels

STORY = "The rain had stopped before they reached the harbour. Nobody spoke of the letter.\n\n" * 4


def names(text, language="en", prompt="", whole=False):
    return [flag.name for flag in find_flags(text, language=language, prompt=prompt, whole=whole)]


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, but as an AI I have no opinions.",
        "I apologize for the confusion. Here goes.",
        "Unfortunately, I am unable to write it.",
        "I cannot fulfill this request.",
        "I can't assist with that.",
        "**I'm unable to provide** an essay of this length.",
        "As an AI language model, I have no memories.",
        "The text does not mention a lighthouse.",
        "There is no information about the year.",
        "抱歉，我无法完成这个请求。",
        "很抱歉，但我不能写这样的内容。",
        "对不起，作为人工智能，我不能提供意见。",
        "作为一个AI语言模型，我没有感情。",
        "我无法提供这方面的内容。",
        "文中没有提到这件事。",
    ],
)
def test_refusals_at_the_opening(text):
    assert names(text)[0] == "refusal"
    assert "refusal" not in names(f"{STORY}\n\n{text}")


@pytest.mark.parametrize(
    "text",
    [
        "I am sorry to say that my uncle never came back.",
        "\"I'm sorry, but I can't come,\" said Anna.",
        "Sorry seems to be the hardest word, and he had never said it.",
        "I cannot remember a summer as hot as that one.",
        "Unfortunately, the bridge was closed.",
        "I must confess that I liked him.",
        "The context of the treaty matters more than its text.",
        "抱歉这个词，他说了一辈子。",
        "我无法忘记那个夏天。",
        "“对不起，我不能去。”她说。",
    ],
)
def test_people_who_apologise(text):
    assert names(text) == []


@pytest.mark.parametrize(
    "text",
    [
        STORY + "To be continued...",
        STORY + "[Continued in the next part]",
        STORY + "(The rest of the chapters are omitted for brevity.)",
        STORY + "Due to length constraints, the other scenes are left out.",
        STORY + "Would you like me to continue?",
        STORY + "未完待续",
        STORY + "由于篇幅有限，这里不再展开。",
        "（此处省略若干段落）\n\n" + STORY,
        "[... remainder of the story omitted ...]\n\n" + STORY,
    ],
)
def test_admissions_that_text_is_missing(text):
    assert "truncation" in names(text)


def test_admissions_far_from_the_end_are_a_story():
    assert names("It said To be continued, and the screen went dark. " + STORY * 3) == []
    assert names("“未完待续”四个字出现在屏幕上。" + STORY * 3) == []


@pytest.mark.parametrize(
    "line",
    [
        "Paragraph 3:",
        "**Paragraph 3**",
        "Paragraph 2 - Main Point: the storm - Word Count: 300 words",
        "Main Point: the storm begins",
        "[Word count: 250]",
        "(Word Count: ~250 words)",
        "Here is the revised paragraph:",
        "Sure! Here's the next section of the essay:",
        "Certainly!",
        "Revised version:",
        "(250 words)",
        "第三段：",
        "段落 2 - 主要内容：暴风雨 - 字数：300字",
        "（字数：300字）",
        "好的，以下是修改后的段落：",
        "以下是续写的正文：",
        "（约300字）",
    ],
)
def test_labels_are_stripped_at_the_seams_and_flagged_there(line):
    for text in (f"{line}\n\n{STORY}", f"{STORY}\n{line}\n", f"{line}\n{STORY}\n{line}"):
        assert "meta_label" in names(text)
        assert strip_labels(text) == STORY.strip()
    assert strip_labels(line) == ""


@pytest.mark.parametrize(
    "text",
    [
        "Paragraph 3: The rain had stopped.",
        "Main point: hurry.\nThe rain had stopped.",
        "The rain had stopped. (Word count: 250) Nobody spoke.",
        "Sure, I'll write the next part. The rain had stopped.",
        "Here is the paragraph. The rain had stopped.",
        f"{STORY}\nParagraph 4:\n{STORY}",
        "He said that, as an AI language model, he could not feel rain.",
        "第二段：雨停了。",
        "雨停了。（字数：300）没有人说话。",
    ],
)
def test_labels_inside_prose_are_flagged_and_never_edited(text):
    assert "meta_label" in names(text)
    if not text.startswith("Main point"):
        assert strip_labels(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        '"Certainly."\n\nHe closed the door.',
        "He asked again.\n\nCertainly.\n\nThat was all she said.",
        "Sure enough, the ship was gone.",
        "Here is the house where I was born, said the old man, and here the well.",
        "She read out the letter.\n\nHere is the text of it:\n\nMy dear friend, come soon.",
        "Paragraph 3 of the treaty was never signed.",
        "Section 2\n\nThe rain had stopped.",
        "下面是一个声明常量的例子：\n\n代码如下。",
        "当然，他没有来。",
        "第三段路最难走。",
    ],
)
def test_what_is_no_label(text):
    assert names(text) == []
    assert strip_labels(text) == text


PROMPT = (
    "Write an essay of two thousand words about the history of lighthouses on the northern coast, how they were built,"
    " who kept them, and why they were given up one after the other."
)


def test_instruction_echo():
    echo = PROMPT.replace("Write an essay", "An essay")
    assert names(echo + " " + STORY, prompt=PROMPT) == ["instruction_echo"]
    assert names(STORY, prompt=PROMPT) == []
    # All words of the story stand in a long prompt, in another order: single words would be an echo, pairs are none.
    shuffled = " ".join(sorted(set(STORY.split()))) + " " + PROMPT
    assert names(STORY, prompt=shuffled) == []
    zh = "请写一篇关于北方海岸灯塔历史的两千字文章，说明它们如何建造、由谁看守、以及为什么一个接一个地被废弃。"
    assert names(zh * 2, language="zh", prompt=zh) == ["instruction_echo"]
    assert names("雨停了，" * 20, language="zh", prompt=zh) == []
    assert names("Write an essay.", prompt=PROMPT) == []


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        ("Text.\n```python\nx = (1\n", True),
        ("Text.\n```python\nx = (1\n```\n", False),
        ("The end (or so it", True),
        ("他说（其实不是", True),
        ("One (two) three. A smile :) and 1) a list.", False),
        ("An open ( here.\n\nIt is closed by nothing, but long past.", False),
        ("<answer>Let me see.", True),
        ("<answer>Let me see.</answer> It was so.", False),
        ("<div><div></div>", True),
        ("Vec<T> and a < b.", False),
        ("“An open quote goes on in the next paragraph.", False),
    ],
)
def test_unclosed(text, flagged):
    assert names(text) == (["unclosed"] if flagged else [])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The end.<|im_end|>", "special_token"),
        ("The end.<|endoftext|>", "special_token"),
        ("[INST] go on [/INST]", "special_token"),
        ("a\u200bb", "hidden_characters"),
        ("a\x00b", "hidden_characters"),
        ("a\ufffdb", "hidden_characters"),
        ("a\ud800b", "hidden_characters"),
    ],
)
def test_characters(text, name):
    (flag,) = find_flags(text, language="en")
    assert (flag.name, text[flag.at :].startswith(text[flag.at])) == (name, True)
    assert names("tab\t newline\n return\r\n 👩‍👩‍👧 a‌b café") == []  # joiners belong to emoji and letters


LONG = "The rain had stopped before they reached the harbour, and nobody spoke"


@pytest.mark.parametrize(
    ("text", "flagged"),
    [
        (LONG, True),
        (LONG + " of it,", True),
        (LONG + " and then (", True),
        ("雨停了，他们走到港口的时候没有人说话，那封信还在桌上，谁也没有去碰它一下因为", True),
        (LONG + ".", False),
        (LONG + ".”", False),
        (LONG + ". **)", False),
        (LONG + "! 🐳", False),
        ("雨停了，他们走到港口的时候没有人说话，那封信还在桌上，谁也没有去碰它一下。", False),
        (LONG + ".\n\nYours ever,\nAnna", False),
        (LONG + ":\n\n- " + LONG, False),
        (LONG + ".\n| " + LONG + " | x |", False),
        (LONG + ".\n1. " + LONG, False),
        ("# " + LONG, False),
    ],
)
def test_prose_ends_with_a_full_stop(text, flagged):
    assert ("no_end" in names(text, whole=True)) is flagged
    assert "no_end" not in names(text)


def test_clean_text_has_no_flags():
    assert names(STORY, prompt=PROMPT, whole=True) == []
    assert len(set(FLAGS)) == len(FLAGS)


HOSTILE = {
    "letters": "a" * 2_000_000,
    "spaces": " " * 2_000_000 + "x",
    "sorry": "I'm " * 500_000,
    "brackets": "[" * 2_000_000,
    "pairs": "([" * 1_000_000,
    "tags": "<div " * 400_000,
    "special": "<|" * 1_000_000,
    "word count": "[word count:" * 170_000,
    "labels": ("Here is the " + "a " * 200 + "\n") * 4000,
    "paragraphs": ("Paragraph 1 (" + " " * 400 + "\n") * 4000,
    "continued": ("[rest of " + "a" * 400 + "\n") * 4000,
    "newlines": "\n" * 2_000_000,
    "fences": "```\n" * 400_000,
    "zh": "以下是" * 600_000,
    "decoration": "*_#> " * 400_000,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_text_is_searched_to_its_end(kind):
    """Quadratic time would be hours for these two megabytes, and the suite's timeout would end it."""
    text = HOSTILE[kind]
    found = find_flags(f"{text}\n\n<|im_end|>", language="en", prompt="a b c", whole=True)
    assert "special_token" in [flag.name for flag in found]
    assert len(found) <= 2 * len(FLAGS)
    assert len(strip_labels(text)) <= len(text)


def test_patterns_do_not_repeat_a_repeat():
    """No unbounded quantifier in any pattern: what could backtrack without end is not written."""
    for name in ("REFUSAL", "TRUNCATION", "LABEL_LINE", "PREAMBLE_LINE", "LABEL_START", "LABEL_OPENING",
                 "LABEL_ANYWHERE", "SPECIAL_TOKEN", "HIDDEN"):  # fmt: skip
        pattern = getattr(phrases, name).pattern
        assert "*" not in pattern.replace("[*", "") and "+" not in pattern, name
