import unittest

from textstats.distinct import count_distinct_words
from textstats.report import report


class DistinctTest(unittest.TestCase):
    def test_a_repeated_word_counts_once(self):
        self.assertEqual(count_distinct_words("The cat saw the dog"), 4)

    def test_an_empty_text_has_none(self):
        self.assertEqual(count_distinct_words(""), 0)

    def test_the_report_shows_them(self):
        self.assertEqual(report("a A b")["distinct words"], 2)


if __name__ == "__main__":
    unittest.main()
