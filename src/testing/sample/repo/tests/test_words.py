import unittest

from textstats.words import count_lines, count_words, words


class WordsTest(unittest.TestCase):
    def test_words_are_lower_case_and_keep_the_apostrophe(self):
        self.assertEqual(words("Don't panic, Arthur!"), ["don't", "panic", "arthur"])

    def test_an_empty_text_has_no_words_and_no_lines(self):
        self.assertEqual(count_words(""), 0)
        self.assertEqual(count_lines(""), 0)

    def test_lines_are_counted_with_and_without_a_last_newline(self):
        self.assertEqual(count_lines("a\nb"), 2)
        self.assertEqual(count_lines("a\nb\n"), 2)


if __name__ == "__main__":
    unittest.main()
