"""Refusals, and talk about the prompt instead of the matter.

`refusal-text` is the fault of a short answer that opens with a refusal; a phrase that the document itself uses counts as
the document's. `meta_phrases` counts turns such as "the text above", which mean nothing to a reader who was never told
where the text stands; `unanswered` is 1 where the answer says that the document does not tell.
"""

import re

from longalign_data.checks.base import Finding

OPENING_CHARS = 200
SHORT_CHARS = 800

_REFUSAL = re.compile(
    r"""
    \bI(?:['’]m|\s+am)\s+(?:sorry|unable|not\s+able)\b.{0,60}?\b(?:can(?:no|['’])t|unable|not\s+able|won['’]t)\b
    | \bI\s+(?:can(?:no|['’])t|could\s+not|am\s+unable\s+to|will\s+not|won['’]t)\s+
      (?:help|assist|comply|provide|answer|fulfil+|generate|create|do\s+that|continue|discuss)\b
    | \bas\s+an?\s+(?:AI|artificial\s+intelligence|(?:large\s+)?language\s+model)\b
    | \bmy\s+(?:training\s+data|knowledge\s+cutoff)\b
    | (?:很抱歉|对不起|抱歉)[，,。]?\s*(?:但)?(?:我|作为).{0,12}?(?:无法|不能|没有办法|不便)
    | 作为(?:一个|一名)?\s*(?:AI|人工智能|(?:大型?)?语言模型)
    | 我(?:无法|不能)(?:回答|提供|协助|帮助|满足|完成)
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_META = re.compile(
    r"""
    \b(?:the|this)\s+(?:text|document|passage|article|excerpt|content|context)\s+(?:above|below|provided|given)\b
    | \b(?:the\s+)?(?:above|aforementioned|provided|given)\s+(?:text|document|passage|article|excerpt|context)\b
    | \b(?:text|document|passage|article|excerpt)\s+(?:you|that\s+you)(?:['’]ve|\s+have)?\s+(?:provided|given|shared|uploaded)\b
    | \b(?:your|the)\s+(?:prompt|instruction)s?\b(?=.{0,20}\b(?:ask|say|request))
    | (?:上述|上面的|以上|给定的?|所提供的|您提供的|你提供的)(?:文本|文档|文章|内容|材料|段落)
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNANSWERED = re.compile(
    r"""
    \b(?:document|text|passage|article|source)\s+(?:does\s+not|doesn['’]t|did\s+not|didn['’]t)\s+
      (?:mention|say|state|specify|provide|contain|include|discuss|give|indicate)\b
    | \b(?:is|are|was|were)\s+not\s+(?:mentioned|stated|specified|given|provided|discussed)\s+in\s+the\s+
      (?:document|text|passage|article|source)\b
    | (?:文档|文中|文章|原文|本文|材料)(?:中|里)?(?:并)?(?:没有|未)(?:提及|提到|说明|给出|涉及|提供)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def check(document: str, question: str, answer: str) -> Finding:
    """Scores `meta_phrases` (a count) and `unanswered` (0 or 1); fault `refusal-text`."""
    del question
    metas = [match.group() for match in _META.finditer(answer) if match.group() not in document]
    unanswered = any(match.group() not in document for match in _UNANSWERED.finditer(answer))
    scores = {"meta_phrases": float(len(metas)), "unanswered": float(unanswered)}
    refusal = _REFUSAL.search(answer[:OPENING_CHARS]) if len(answer) <= SHORT_CHARS else None
    if refusal is None or refusal.group() in document:
        return Finding(scores=scores)
    return Finding(scores=scores, fault="refusal-text", detail=f"the answer opens with {refusal.group()!r}")
