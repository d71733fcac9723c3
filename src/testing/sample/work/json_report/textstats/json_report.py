"""The report as JSON."""

import json

from textstats.report import report


def render_json(text):
    return json.dumps(report(text), indent=2)
