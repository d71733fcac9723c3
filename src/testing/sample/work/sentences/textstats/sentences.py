"""Sentences: a run of text closed by `.`, `!` or `?`, or by the end of the text."""

import re

END = re.compile(r"[.!?]+")


def count_sentences(text):
    return sum(1 for part in END.split(text) if part.strip())
