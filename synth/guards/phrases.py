"""Phrases that give a model away, as regular expressions: Chinese and English.

Every pattern is linear in the text: repeats of a class are bounded or end at what they cannot contain, none are nested.
Refusals count at the opening of a text only, so that a story in which somebody apologises is none; admissions that text
is missing count at its end or on a line of their own; labels count as lines.
"""

import re

_FLAGS = re.IGNORECASE

_NOT = r"(?:can ?not|can['’]t|could not|couldn['’]t|won['’]t|(?:am|['’]m) (?:not able|unable) to)"
_DO = (
    r"(?:fulfill?|comply|assist|help|provide|generate|create|write|produce|continue|complete|answer|discuss|engage|access"
    r"|find|do that|support|share|offer)"
)

REFUSAL = re.compile(
    "|".join(
        (
            (
                r"(?:i['’]?m|i am|we are|we['’]re)? ?(?:so |very |truly |really )?sorry,? ?(?:but )?"
                r"(?:as an? (?:ai|artificial|(?:large )?language|text)|"
                rf"i(?:['’]m|) ?{_NOT}|i don['’]t have)"
            ),
            rf"(?:i['’]?m |i am )?(?:sorry|afraid),? (?:but )?(?:that )?i ?{_NOT}",
            (
                r"(?:i|my) apologi[sz](?:e|es),? (?:but|for (?:the|any|my) (?:confusion|inconvenience|"
                r"misunderstanding|oversight|error|earlier|previous))"
            ),
            rf"(?:unfortunately|regrettably|apologies),? (?:but )?i ?{_NOT}",
            rf"i ?{_NOT} {_DO}\b",
            r"i don['’]t have (?:access to|enough (?:information|context)|the ability to|any information)",
            r"i must (?:decline|refuse)\b",
            r"as an? (?:ai|artificial intelligence|(?:large )?language model|virtual assistant|text-based)\b",
            r"it (?:is|would be) (?:not possible|impossible) for me to\b",
            r"there is (?:no|not enough) (?:information|mention|context)\b",
            (
                r"the (?:given |provided |above )?(?:text|document|context|passage|article) (?:does not|"
                r"doesn['’]t) (?:mention|contain|provide|include|say|specify)\b"
            ),
            (
                r"(?:this information|the answer|it) (?:is not|isn['’]t|cannot be|could not be) (?:mentioned|"
                r"provided|found|available) in\b"
            ),
            (
                r"(?:非常|很|十分|实在)?(?:抱歉|对不起|遗憾)[,，。!！ ]{0,2}(?:但是?|可是)?(?:我|作为|由于我|"
                r"您的|目前)(?:[^。\n]{0,12})(?:不能|无法|没办法|没有办法|做不到|不便)"
            ),
            (
                r"(?:我|本助手|本模型)(?:暂时|目前|恐怕)?(?:无法|不能|没有办法|没办法)(?:提供|完成|生成|满足|"
                r"回答|协助|帮助|为您|为你|撰写|创作|继续|访问|处理)"
            ),
            r"作为(?:一个|一名|一款|个)?(?:ai|人工智能|大?语言模型|虚拟助手|智能助手)",
            r"(?:文中|文章|原文|上下文|材料|文档)(?:中)?(?:没有|并未|未)(?:提到|提及|说明|包含|给出)",
        )
    ),
    _FLAGS,
)
"""Matched where a text begins, behind spaces and Markdown's emphasis."""

TRUNCATION = re.compile(
    "|".join(
        (
            r"to be continued",
            (
                r"(?:will )?continue[sd]? (?:in|with) (?:the |my )?(?:next|following) (?:part|section|response|"
                r"message|reply|chapter)"
            ),
            (
                r"due to (?:the |its )?(?:length|space|size|token|character|word|output)[ -](?:constraint|limit|"
                r"restriction)"
            ),
            r"due to (?:the |its )?length\b",
            (
                r"(?:rest|remainder|remaining [a-z]{1,20}) (?:of [^.\n]{1,60} )?(?:is |are |has been |"
                r"have been )?(?:omitted|truncated|left out|not shown)"
            ),
            r"(?:omitted|truncated|abbreviated|shortened) (?:here )?for (?:brevity|space|length)",
            r"(?:would you like|do you want) me to (?:continue|go on|proceed)",
            r"(?:shall|should) i (?:continue|go on|proceed)\?",
            r"let me know if you(?:['’]d| would)? (?:like|want) (?:me to )?(?:continue|more|the rest)",
            r"\[(?:continue|continued|the story continues|content continues|and so on)[^\]\n]{0,60}\]",
            (
                r"未完待续|待续[。.…)）]|篇幅所限|篇幅有限|篇幅限制|字数所限|字数限制|此处省略|以下省略|(?:余下|"
                r"剩余|其余)(?:的)?(?:部分|内容|章节)(?:已)?(?:省略|略去|从略)"
            ),
            r"(?:后续|剩余|接下来的)(?:部分|内容|章节)(?:将|会)?(?:在|于)(?:下一|下次|后续)",
            r"(?:需要|是否|要不要)(?:我)?继续(?:写|吗|创作|生成)",
        )
    ),
    _FLAGS,
)
"""Searched in the last characters of a text, and in lines of their own in brackets."""

_NUMBER = r"(?:\d{1,3}|[ivxlc]{1,6}|one|two|three|four|five|six|seven|eight|nine|ten)"
_TEXT = (
    r"(?:paragraph|version|continuation|draft|text|article|essay|story|response|rewrite|revision|section|introduction"
    r"|conclusion|content|passage|report|outline|answer|output|piece|chapter|opening|ending)"
)

_ZH_TEXT = r"(?:段落?|内容|文章|版本|正文|续写|改写|故事|报告|大纲|回答|全文|初稿|修订稿|章节?)"

LABEL_LINE = re.compile(
    "|".join(
        (
            rf"paragraph {_NUMBER}(?: ?\(\D{{0,12}}\d{{1,5}} words\))?[:：.)]?",
            rf"paragraph {_NUMBER} ?[-–—:：,.] ?(?:main point|topic|word count)\b.{{0,400}}",
            r"main point ?[:：].{0,400}",
            r"(?:total |approximate |estimated |target )?word ?count ?[:：=].{0,40}",
            rf"(?:end of|continue to|next) paragraph(?: {_NUMBER})?[.:：]?",
            r"第[一二三四五六七八九十百\d]{1,4}段(?:[（(][^）)]{0,20}[）)])?[:：]?",
            r"段落 ?[一二三四五六七八九十百\d]{1,4}(?:[（(][^）)]{0,20}[）)])?[:：]?",
            (
                r"(?:第[一二三四五六七八九十百\d]{1,4}段|"
                r"段落 ?[一二三四五六七八九十百\d]{1,4}) ?[-–—:：,，] ?(?:主要内容|要点|主题|字数).{0,400}"
            ),
            r"(?:总|本段|本文|全文)?字数(?:统计|要求)?[:：为约共 ]{1,3}\d{1,6}字?.{0,10}",
            r"本段(?:完|结束)",
        )
    ),
    _FLAGS,
)
"""A line that says what the text is, and is nothing else: matched whole, behind its decoration, on any line."""

PREAMBLE_LINE = re.compile(
    "|".join(
        (
            r"(?:approximately |about |approx\.? |~)?\d{1,5} words[.]?",
            (
                r"(?:sure|certainly|of course|okay|ok|absolutely|great|understood|got it)[,!.] ?(?:here|below|"
                r"i['’]ll|i will|let)[^:：.!\n]{0,200}[:：.!]"
            ),
            r"(?:sure|certainly|of course|absolutely|understood|got it)(?: thing)?[!.]",
            (
                r"(?:here(?:['’]s| is| are)|below is|the following is) (?:the|a|an|my|your|"
                rf"another) [^:：]{{0,80}}{_TEXT}s?\b[^:：]{{0,120}}[:：]"
            ),
            (
                r"(?:revised|updated|final|improved|edited|corrected|expanded|new) (?:version|draft|"
                rf"{_TEXT})(?: {_NUMBER})?[:：]?"
            ),
            r"(?:约|共|大约|全文约?)?\d{2,6}字[。]?",
            (
                r"(?:好的|当然|没问题|明白了?|收到|可以)[,，。!！](?:以下|下面|这是|我来|我将|"
                r"让我)[^:：。!！\n]{0,100}[:：。!！]"
            ),
            rf"(?:以下|下面|这)(?:就)?(?:是|为)[^:：]{{0,40}}{_ZH_TEXT}[^:：]{{0,20}}[:：]",
            r"(?:修改|修订|改写|润色|最终|扩写)(?:版本?|稿|后的?(?:版本|内容|文章))[:：]?",
        )
    ),
    _FLAGS,
)
"""The same, but said by people, too: labels on the first and the last line only."""

LABEL_START = re.compile(
    "|".join(
        (
            rf"paragraph {_NUMBER}(?: ?\(\D{{0,12}}\d{{1,5}} words\))? ?[:：] ?\S",
            r"main point ?[:：]",
            r"word ?count ?[:：]",
            (
                r"(?:第[一二三四五六七八九十百\d]{1,4}段|"
                r"段落 ?[一二三四五六七八九十百\d]{1,4})(?:[（(][^）)]{0,20}[）)])?[:：]"
            ),
            r"字数 ?[:：] ?约?\d",
        )
    ),
    _FLAGS,
)
"""A label in front of prose, on its line: it cannot be stripped without editing the line."""

LABEL_OPENING = re.compile(
    "|".join(
        (
            (
                r"(?:sure|certainly|of course|absolutely|understood|got it)[,!] ?(?:here|below|i['’]ll|i will|"
                r"i can|i['’]d|let me)"
            ),
            rf"(?:here(?:['’]s| is)|below is) (?:the|a|an|my|your) (?:[a-z-]{{1,20}} ){{0,4}}{_TEXT}\b",
            r"(?:好的|当然|没问题|明白|收到)[,，!！](?:以下|下面|这是|我来|我将|让我)",
            rf"(?:以下|下面)是(?:根据|按照|为您|为你|您|你|修改|改写|续写|第)[^。\n]{{0,40}}{_ZH_TEXT}",
        )
    ),
    _FLAGS,
)
"""An assistant's preamble: matched where a text begins."""

LABEL_ANYWHERE = re.compile(
    "|".join(
        (
            r"\bas an ai(?: language)? (?:model|assistant)\b",
            r"\bas a large language model\b",
            r"[\[(【（](?:total |approximate |current )?word ?count ?[:：][^\])】）\n]{0,40}[\])】）]",
            r"[\[(【（](?:本段|全文|总)?字数(?:统计)?[:：][^\])】）\n]{0,20}[\])】）]",
            r"作为(?:一个|一名|一款)?(?:ai|人工智能|大)(?:大)?语言模型",
        )
    ),
    _FLAGS,
)

SPECIAL_TOKEN = re.compile(
    r"<\|[A-Za-z0-9_/-]{1,40}\|>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|<｜[^｜<>\n]{1,40}｜>"
    r"|</?think(?:ing)?>|</s>|<(?:eos|bos|pad|unk)>|\[end of text\]"
)
"""Tokens of chat templates and marks of reasoning that came out as text."""

HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u200b\u2060-\u2064\u202a-\u202e\u2066-\u2069\ufeff\ufff9-\ufffd"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)
"""Controls, zero-width and direction marks, replacement characters. The joiners U+200C and U+200D belong to letters."""
