import unittest

from textstats.letters import letter_counts


class LettersTest(unittest.TestCase):
    def test_letters_are_counted_without_regard_to_case(self):
        self.assertEqual(letter_counts("Abba 42!"), {"a": 2, "b": 2})

    def test_an_empty_text_has_none(self):
        self.assertEqual(letter_counts(""), {})


if __name__ == "__main__":
    unittest.main()
