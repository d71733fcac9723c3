"""How often each letter occurs."""

from collections import Counter


def letter_counts(text):
    """Returns a dictionary from lower-case letter to its count, sorted by letter."""
    counts = Counter(character for character in text.lower() if character.isalpha())
    return dict(sorted(counts.items()))
