#!/usr/bin/env python3
"""Reads exported events with parsers that are not ours: export-check.py OCSF CEF JSON, files of the same events, or
export-check.py --fault OCSF CEF WHAT, files of one fault each.

OCSF is held against the schema of version 1.5.0 as published, CEF is parsed by pycef; both must say of each event
what the JSON says. Needs what scripts/setup-python.sh installs.
"""
import json
import re
import sys

import pycef
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema


def lines(path):
    with open(path, newline="\n") as file:
        return file.read().splitlines()


def check_fault(ocsf, cef, what):
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
    (event,), (line,) = map(json.loads, lines(ocsf)), lines(cef)
    name = schema.lookup_class_name_from_uid(event["class_uid"])
    errors = list(Draft202012Validator(schema.get_class_schema(name)).iter_errors(event))
    assert not errors, (errors, event)
    assert event["finding_info"]["desc"] == what, event
    parsed = pycef.parse(line)
    assert parsed and parsed["msg"].replace("\\=", "=").replace("\\\\", "\\") == what, (parsed, line)
    assert parsed["DeviceSeverity"] == "10" and parsed["externalId"] == event["metadata"]["uid"], parsed
    print(f"a fault of class {event['class_uid']}")


def main():
    if sys.argv[1] == "--fault":
        return check_fault(*sys.argv[2:5])
    ocsf, cef, ours = ([line for line in lines(path)] for path in sys.argv[1:4])
    assert len(ocsf) == len(cef) == len(ours) > 0, (len(ocsf), len(cef), len(ours))
    schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
    validators = {}
    for text, line, entry in zip(map(json.loads, ocsf), cef, map(json.loads, ours)):
        uid = text["class_uid"]
        if uid not in validators:
            validators[uid] = Draft202012Validator(schema.get_class_schema(schema.lookup_class_name_from_uid(uid)))
        errors = [f"{error.json_path}: {error.message[:200]}" for error in validators[uid].iter_errors(text)]
        assert not errors, (errors, text)
        parsed = pycef.parse(line)
        assert parsed, line
        # pycef leaves escapes in values as they are.
        plain = lambda key: None if key not in parsed else re.sub(
            r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), parsed[key])
        pairs = {"externalId": "seq", "act": "action", "outcome": "outcome", "fname": "secret", "suid": "uid",
                 "spid": "pid", "version": "version", "mac": "mac"}
        for key, member in pairs.items():
            value = entry.get(member)
            assert plain(key) == (None if value is None else str(value)), (key, line, entry)
        if entry["exe"]:
            assert plain("sproc") == entry["exe"], (line, entry)
        if uid == 6003 and entry["uid"] is not None:
            assert text["actor"]["user"]["uid"] == str(entry["uid"]), text
        named = [resource["name"] for resource in text.get("resources", [])]
        assert named == ([entry["secret"]] if entry["secret"] else []), text
        assert text["unmapped"]["mac"] == entry["mac"], text
    print(f"{len(ours)} events of classes {sorted(validators)}")


main()
