"""What is in the basket, and what it costs together."""

import sys
from collections import Counter

try:
    from shop.prices import price
except ImportError:  # within the program file
    from prices import price


def total(things: list[str]) -> int:
    """The price of all things, in cents; the tenth of a kind is free."""
    return sum(price(thing, count - count // 10) for thing, count in Counter(things).items())


def main() -> None:
    """Prints what the things on the command line cost."""
    print(f"{total(sys.argv[1:]) / 100:.2f}")
