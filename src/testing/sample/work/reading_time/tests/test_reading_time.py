import unittest

from textstats.reading_time import reading_seconds


class ReadingTimeTest(unittest.TestCase):
    def test_two_hundred_words_take_a_minute(self):
        self.assertEqual(reading_seconds("word " * 200), 60)

    def test_a_part_of_a_second_counts_as_a_whole_one(self):
        self.assertEqual(reading_seconds("word"), 1)

    def test_an_empty_text_takes_no_time(self):
        self.assertEqual(reading_seconds(""), 0)


if __name__ == "__main__":
    unittest.main()
