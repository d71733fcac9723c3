import unittest

from textstats.longest import longest_word


class LongestTest(unittest.TestCase):
    def test_the_first_of_the_longest_wins(self):
        self.assertEqual(longest_word("a bcd efg"), "bcd")

    def test_an_empty_text_gives_an_empty_word(self):
        self.assertEqual(longest_word(""), "")


if __name__ == "__main__":
    unittest.main()
