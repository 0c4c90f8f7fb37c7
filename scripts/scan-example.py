#!/usr/bin/env python3
"""Makes up secrets for the examples in fixtures/scan/rules.toml, with right check digits where the kind has them.

    scripts/scan-example.py                 lists the kinds
    scripts/scan-example.py github-pat      prints one
    scripts/scan-example.py 'xy_{base62:20}-{hex:8}'
                                            prints one of a shape: base62, base32, hex, lower, upper, digits, base64, urlsafe, uuid
"""

import pathlib
import random
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from scan_truth import values  # noqa: E402

ALPHABETS = {
    "base62": values.BASE62, "base32": values.BASE32, "hex": values.HEX, "lower": values.LOWER + values.DIGITS,
    "upper": values.UPPER + values.DIGITS, "digits": values.DIGITS, "base64": values.BASE62 + "+/", "urlsafe": values.URLSAFE,
}


def fill(rng, shape):
    def part(match):
        name, count = match.group(1), match.group(2)
        return values.uuid4(rng) if name == "uuid" else values.draw(rng, ALPHABETS[name], int(count))
    return re.sub(r"\{(\w+)(?::(\d+))?\}", part, shape)


def main():
    rng = random.SystemRandom()
    kinds = {name: make for name, _, make in values.kinds()}
    if len(sys.argv) != 2:
        print("\n".join(sorted(kinds)))
    elif sys.argv[1] in kinds:
        print(kinds[sys.argv[1]](rng))
    else:
        print(fill(rng, sys.argv[1]))


if __name__ == "__main__":
    main()
