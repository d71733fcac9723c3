"""Reading time, at a steady pace."""

from textstats.words import count_words

WORDS_PER_MINUTE = 200


def reading_seconds(text):
    """Returns whole seconds, rounded up."""
    return -(-count_words(text) * 60 // WORDS_PER_MINUTE)
