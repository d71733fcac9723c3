import unittest

from textstats.report import render, report


class ReportTest(unittest.TestCase):
    def test_the_report_tells_words_and_lines(self):
        result = report("one two\nthree\n")
        self.assertEqual(result["words"], 3)
        self.assertEqual(result["lines"], 2)

    def test_the_text_form_has_one_line_for_each_metric(self):
        self.assertEqual(len(render("a").splitlines()), len(report("a")))


if __name__ == "__main__":
    unittest.main()
