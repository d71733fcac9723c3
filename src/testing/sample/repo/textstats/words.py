"""Words and lines: what every other metric builds on."""

import re

WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")


def words(text):
    """Returns the words of the text in order, in lower case."""
    return [match.group(0).lower() for match in WORD.finditer(text)]


def count_words(text):
    return len(words(text))


def count_lines(text):
    return len(text.splitlines())
