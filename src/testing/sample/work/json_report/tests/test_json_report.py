import contextlib
import io
import json
import tempfile
import unittest

from textstats.__main__ import main
from textstats.json_report import render_json
from textstats.report import report


class JsonReportTest(unittest.TestCase):
    def test_it_tells_the_same_as_the_report(self):
        self.assertEqual(json.loads(render_json("a b")), report("a b"))

    def test_the_command_prints_it(self):
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as source:
            source.write("one two")
            source.flush()
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                main(["--json", source.name])
        self.assertEqual(json.loads(printed.getvalue())["words"], 2)


if __name__ == "__main__":
    unittest.main()
