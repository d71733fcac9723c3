"""The longest word; of several, the first."""

from textstats.words import words


def longest_word(text):
    return max(words(text), key=len, default="")
