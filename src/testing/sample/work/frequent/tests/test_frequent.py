import unittest

from textstats.frequent import most_frequent


class FrequentTest(unittest.TestCase):
    def test_the_most_frequent_word_comes_first(self):
        self.assertEqual(most_frequent("b a b c", limit=2), [("b", 2), ("a", 1)])

    def test_an_empty_text_has_none(self):
        self.assertEqual(most_frequent(""), [])


if __name__ == "__main__":
    unittest.main()
