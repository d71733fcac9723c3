"""The command: python3 -m textstats [FILE]"""

import argparse
import sys

from textstats import report


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="textstats", description="Statistics of a text.")
    parser.add_argument("file", nargs="?", help="the text; standard input if absent")
    options = parser.parse_args(arguments)
    if options.file:
        with open(options.file, encoding="utf-8") as source:
            text = source.read()
    else:
        text = sys.stdin.read()
    print(report.render(text))
    return 0


if __name__ == "__main__":
    sys.exit(main())
