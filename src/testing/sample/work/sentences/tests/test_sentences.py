import unittest

from textstats.report import report
from textstats.sentences import count_sentences


class SentencesTest(unittest.TestCase):
    def test_each_closing_mark_ends_a_sentence(self):
        self.assertEqual(count_sentences("Yes. No! Really?! Then"), 4)

    def test_an_empty_text_has_none(self):
        self.assertEqual(count_sentences(""), 0)

    def test_the_report_shows_them(self):
        self.assertEqual(report("One. Two.")["sentences"], 2)


if __name__ == "__main__":
    unittest.main()
