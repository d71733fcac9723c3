"""The most frequent words."""

from collections import Counter

from textstats.words import words


def most_frequent(text, limit=10):
    """Returns up to `limit` pairs of word and count; equal counts in the order of the alphabet."""
    counts = Counter(words(text))
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
