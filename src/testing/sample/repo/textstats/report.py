"""The report: every metric by its name, in the order of the table."""

from textstats import words

METRICS = [
    ("words", words.count_words),
    ("lines", words.count_lines),
]


def report(text):
    """Returns the metrics of the text as a dictionary from name to number."""
    return {name: metric(text) for name, metric in METRICS}


def render(text):
    """Returns the report as lines of `name: number`."""
    return "\n".join(f"{name}: {value}" for name, value in report(text).items())
