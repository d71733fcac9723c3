"""Distinct words: upper and lower case count as one."""

from textstats.words import words


def count_distinct_words(text):
    return len(set(words(text)))
