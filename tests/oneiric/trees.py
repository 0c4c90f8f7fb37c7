"""Random trees of settings for tests/oneiric.rs: makes them, and holds what secretfs loads against Oneiric's own loader."""

import datetime
import json
import math
import os
import random
import sys
from pathlib import Path

import structlog
from oneiric.core import config

structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

PLAIN = """yes No on OFF y ~ null Null NULL true True TRUE tRUE 0 12 -3 +4 0777 08 0o7 0x1F 0b101 1_000 1:30 -1:30:05
1. 1.5 -.5 .5 +.inf -.INF .nan 1e3 1.5e3 1.5e+3 1.5E-3 1:30.5 1_0.2_5 2024-02-29 2024-2-3 2024-02-03T04:05:06Z
2001-12-14t21:59:43.10-05:00 12345678901234567890 1.2.3 a,b a:b -x x- =x <<x 0_ 00 - ~x .5.5 1e +1 0x_1 http://h/p?q#f""".split()
PLAIN += ["a b", "2001-12-14 21:59:43.1 -5", "2001-12-15 2:59:43", "x  # comment", "", "don't", 'say "x"', "\u00e9\u2603", "\U0001f511"]
TEXTS = ["", " ", "x", "12345", "true", "it's", 'q"', "a\\b", "a: b # c", "l1\nl2\n", "\ttab", "\u00e9\u2028\u0085", "\x07\x7f", "{{ x }}", "\U0001f511", "a, b", "-----BEGIN X-----\nQQ==\n-----END X-----\n"]
# Not 1: to Python, that is the same key as True.
KEYS = ["a", "b", "c_d", "e-f", "12", "yes", "null", "2.5", "host", "x"]
ENV = ["", "12", " 1_0 ", "1__0", "true", "FALSE", "yes", "1e5", ".5", "5.", "nan", "-Infinity", "0012", "+5", "-0", "a, b,c", ",", "text", "a b", "0x10", "1_0.5e1_0", "9" * 30, "9" * 5000, "{}", "\u00e9", "1.5.5", "\t7\n"]
VARIABLES = ["APP__NAME", "X__Y__Z", "X__Y", "X", "SECRETS__INLINE__A", "SECRETS__PROVIDER", "SECRETS__A", "LOG_LEVEL", "ACTIVITY_STORE", "PROFILE", "PROFILE__NAME", "LOGGING", "A", "A__B", "a__c", "__D", "E__"]


def quoted(rng, text):
    """A scalar in some style that the text allows."""
    if rng.random() < 0.3 and "\n" not in text and text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\x7f").replace("\u0085", "\\x85").replace("\u2028", "\\u2028")


def scalar(rng):
    return rng.choice(PLAIN) if rng.random() < 0.6 else quoted(rng, rng.choice([t for t in TEXTS if t.isascii() or len(t) < 3]))


def safe(rng):
    """A scalar that may stand in flow style."""
    text = scalar(rng)
    return text if not any(c in text for c in ",#:-?{}[]=") and text and text != "<<x" else quoted(rng, rng.choice(TEXTS[:9]))


def flow(rng, depth):
    kind = rng.random()
    if depth <= 0 or kind < 0.5:
        return safe(rng)
    if kind < 0.75:
        return "[" + ", ".join(flow(rng, depth - 1) for _ in range(rng.randrange(4))) + "]"
    return "{" + ", ".join(f"{key}: {flow(rng, depth - 1)}" for key in rng.sample(KEYS, rng.randrange(4))) + "}"


def block(rng, indent, depth, anchors):
    """Lines of a mapping."""
    pad, lines = "  " * indent, []
    keys = rng.sample(KEYS, rng.randrange(1, 5))
    # PyYAML merges a mapping that has a key twice by the identity of strings, so this is for one that nothing merges.
    if indent == 0 and rng.random() < 0.2:
        keys.append(keys[0])
    if anchors and rng.random() < 0.3:
        lines.append(f"{pad}<<: *{rng.choice(anchors)}")
    for key in keys:
        key = quoted(rng, key) if rng.random() < 0.3 else key
        kind = rng.random()
        if depth > 0 and kind < 0.35:
            anchor = ""
            inner = block(rng, indent + 1, depth - 1, anchors)
            if rng.random() < 0.3:
                anchors.append(f"n{len(anchors)}")
                anchor = f" &{anchors[-1]}"
            lines += [f"{pad}{key}:{anchor}"] + inner
        elif kind < 0.45:
            mark = rng.choice(["|", "|-", "|+", ">", ">-"])
            lines += [f"{pad}{key}: {mark}"] + [f"{pad}  {line}" for line in rng.choice([["one"], ["one", "two"], ["a: b", "# c"]])]
        elif kind < 0.55:
            lines += [f"{pad}{key}:"] + [f"{pad}- {scalar(rng)}" for _ in range(rng.randrange(1, 4))]
        elif kind < 0.75:
            lines.append(f"{pad}{key}: {flow(rng, depth)}")
        else:
            lines.append(f"{pad}{key}: {scalar(rng)}")
        if rng.random() < 0.1:
            lines.append(rng.choice(["", "# comment", pad + "# comment"]))
    return lines


def yaml_text(rng):
    kind = rng.random()
    if kind < 0.04:
        return rng.choice(["a: [", "a: b: c", "%x\n", "a: *none", "- 1\n---\n- 2", "a: !!python/none x", "a: =", "a: 'x", "\ta: 1"])
    if kind < 0.08:
        return rng.choice(["", "# only\n", "---\n", "~", "false", "[]", "''", "0"])
    if kind < 0.10:
        return rng.choice(["[1]", "text", "2024-01-01", "a: 2024-13-01", "a: 0b_"])
    lines = ["---"] if rng.random() < 0.2 else []
    if rng.random() < 0.7:
        lines += ["app:", f"  name: {quoted(rng, rng.choice(TEXTS[:9]))}", f"  debug: {rng.choice(['yes', 'off', 'true'])}"]
    if rng.random() < 0.7:
        lines += ["secrets:", "  inline:", f"    a: {quoted(rng, rng.choice(TEXTS))}", f"    b-c: {quoted(rng, rng.choice(TEXTS))}"]
        lines += [f"  cache_ttl_seconds: {rng.choice(['0', '1.5', '0x10'])}"] if rng.random() < 0.5 else []
    if rng.random() < 0.5:
        lines += ["remote:", f"  max_retries: {rng.choice(['1', '010', '1_0'])}", f"  unknown: {scalar(rng)}"]
    lines += ["x:"] + block(rng, 1, 3, []) + block(rng, 0, 2, [])
    ending = rng.choice(["\n", "\n", "\r\n"])
    return ending.join(lines) + (ending if rng.random() < 0.9 else "")


def explicit(rng, tree):
    value = {"x": {"a": rng.choice(TEXTS), "n": 1.5, "t": True, "l": [1, "2", {"k": 0}]}, "app": {"name": "explicit"}}
    toml = f'n = 0x1F\n[x]\na = {json.dumps(rng.choice(TEXTS)).replace(chr(0x7F), chr(92) + "u007f")}\nd = 1979-05-27T07:32:00Z\ne = 1979-05-27\nf = inf\n'
    name, text = rng.choice([
        ("c.yaml", yaml_text(rng)), ("c.yml", "x: {a: yes}\n"), ("c.json", json.dumps(value)), ("c.toml", toml), ("conf", json.dumps(value)),
        ("conf", toml), ("c.json", "[1]"), ("c.toml", "x = "), ("missing.yaml", None),
    ])
    if text is not None:
        (tree / "root" / name).write_text(text)
    return name


def make(top, count, seed):
    for index in range(count):
        rng = random.Random(seed * 100_000 + index)
        tree = top / str(index)
        places = ["root/settings/app.yaml", "root/settings/app.yml", "root/settings/local.yaml", "xdg/app/config.yaml", "xdg/app/local.yaml"]
        for place in places:
            (tree / place).parent.mkdir(parents=True, exist_ok=True)
            if rng.random() < (0.2 if place.endswith(".yml") else 0.6):
                (tree / place).write_bytes(yaml_text(rng).encode())
        variables = {"APP_" + name: rng.choice(ENV) for name in rng.sample(VARIABLES, rng.choice([0, 1, 2, 5]))}
        variables["XDG_CONFIG_HOME"] = rng.choice([str(tree / "xdg"), "../xdg", "~/xdg"])
        variables["HOME"] = str(tree)
        if rng.random() < 0.4:
            variables["APP_CONFIG"] = explicit(rng, tree)
        (tree / "env.json").write_text(json.dumps(dict(sorted(variables.items()))))


def shown(value):
    """A value as JSON can have it."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else key_text(key): shown(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, (datetime.date, datetime.datetime, datetime.time)):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return value


def key_text(key):
    text = shown(key)
    return text if isinstance(text, str) else json.dumps(text)


def check(top, count):
    original = config.OneiricSettings.model_validate
    compared = failed = wrong = 0
    for index in range(count):
        tree = top / str(index)
        os.environ.clear()
        os.environ.update(json.loads((tree / "env.json").read_text()))
        os.chdir(tree / "root")
        ours = tree / "ours.json"
        ours = json.loads(ours.read_text()) if ours.exists() else None
        seen = []
        config.OneiricSettings = type("Seen", (), {"model_validate": staticmethod(lambda data: seen.append(data))})
        try:
            config.load_settings(project_name="app")
        except Exception as error:
            seen.append(error)
        config.OneiricSettings = original.__self__
        theirs = seen[0]
        if isinstance(theirs, Exception):
            failed += 1
            if ours is not None:
                wrong += 1
                print(f"{tree}: the loader fails with {theirs!r}, and secretfs does not")
            continue
        compared += 1
        if ours is None or not same(shown(theirs), ours):
            wrong += 1
            print(f"{tree}: {difference('', shown(theirs), ours)}")
        elif validated(shown(theirs)) != validated(ours):
            wrong += 1
            print(f"{tree}: validated, {difference('', validated(shown(theirs)), validated(ours))}")
    print(f"compared {compared}, failing in both {failed}, wrong {wrong}")
    sys.exit(wrong > 0 or compared < count // 2 or failed == 0)


def difference(path, theirs, ours):
    """The first place where two settings differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *ours]:
            if key not in theirs or key not in ours or not same(theirs[key], ours[key]):
                return difference(f"{path}.{key}", theirs.get(key, "nothing"), ours.get(key, "nothing"))
    return f"{path}: {theirs!r} and here {ours!r}"


def same(a, b):
    """Equality in which 1, 1.0 and True are three things."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def validated(data):
    try:
        return shown(config.OneiricSettings.model_validate(data).model_dump())
    except ValueError as error:
        return len(error.errors())


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    else:
        check(Path(sys.argv[2]), int(sys.argv[3]))
