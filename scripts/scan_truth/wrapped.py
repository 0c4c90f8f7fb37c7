"""Secrets that do not stand there in plain sight: encoded, escaped, in other encodings of text, in archives.

The whole file counts: a scanner that says anything about the right member or line has found it.
"""

import base64
import gzip
import io
import json
import tarfile
import zipfile
from urllib.parse import quote

from . import places
from .values import b64, pem


def zip_of(members):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return data.getvalue()


def tar_of(members, mode="w:gz"):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as archive:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return data.getvalue()


def one(rng, kinds):
    """Gives file name and content as bytes."""
    short = [kind for kind in kinds if not kind[0].startswith("pem-")]
    name, names, make = rng.choice(short)
    value, variable = make(rng), rng.choice(names)
    inner_name, inner = rng.choice([places.env, places.json_file, places.python, places.yaml])(rng, variable, value)
    raw = inner.encode()
    line = f"{variable.upper()}={value}"
    notebook = {"cells": [{"cell_type": "code", "source": ["import os\n", f"{variable.upper()} = \"{value}\"\n"], "outputs": [], "metadata": {}, "execution_count": 1}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    return rng.choice([
        lambda: ("values.yaml", f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: app\ndata:\n  {variable.lower()}: {b64(value.encode())}\n".encode()),
        lambda: ("user-data.yaml", f"write_files:\n  - path: /etc/app.env\n    encoding: b64\n    content: {b64(raw)}\n".encode()),
        lambda: ("boot.py", f"import base64\nexec(base64.b64decode('{b64(raw)}'))\n".encode()),
        lambda: ("event.json", json.dumps({"messageId": "8812", "data": b64(json.dumps({variable.lower(): value}).encode())}).encode()),
        lambda: ("dump.txt", f"payload (hex): {line.encode().hex()}\n".encode()),
        lambda: ("blob.c", f"static const char *conf = \"{line.encode().hex()}\";\n".encode()),
        lambda: ("access.log", f"10.0.0.7 - - \"GET /hook?state=1&{variable.lower()}={quote(value, safe='')}&x=2 HTTP/1.1\" 200 17\n".encode()),
        lambda: ("redirect.txt", f"https://login.corp-demo.net/cb?next={quote('https://app.corp-demo.net/?' + variable.lower() + '=' + value, safe='')}\n".encode()),
        lambda: ("settings.reg", b"\xff\xfe" + f"[HKEY_CURRENT_USER\\Corp]\r\n\"{variable}\"=\"{value}\"\r\n".encode("utf-16-le")),
        lambda: ("export.csv", b"\xfe\xff" + f"name,value\r\n{variable},{value}\r\n".encode("utf-16-be")),
        lambda: ("request.json", json.dumps({"body": json.dumps({variable.lower(): value}), "method": "POST"}).encode()),
        lambda: ("nested.json", json.dumps({"log": json.dumps({"body": json.dumps({variable.lower(): value})})}).encode()),
        lambda: ("escaped.json", ('{"config": "' + f"{variable.upper()}\\u003d{value}\\nPORT\\u003d80" + '"}\n').encode()),
        lambda: ("analysis.ipynb", json.dumps(notebook, indent=1).encode()),
        lambda: ("backup.zip", zip_of([("readme.txt", b"backup\n"), ("etc/" + inner_name, raw)])),
        lambda: ("backup.tar.gz", tar_of([("readme.txt", b"backup\n"), ("etc/" + inner_name, raw)])),
        lambda: ("backup.tar", tar_of([("etc/" + inner_name, raw)], "w:")),
        lambda: (inner_name + ".gz", gzip.compress(raw, mtime=0)),
        lambda: ("bundle.zip", zip_of([("inner.tar.gz", tar_of([(inner_name, raw)]))])),
        lambda: ("app.jar", zip_of([("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0\n"), ("application.properties", f"a=1\n{line}\n".encode())])),
        lambda: ("archive.dat", zip_of([(inner_name, raw)])),
        lambda: ("notes.docx", zip_of([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", f"<w:document><w:body><w:p><w:r><w:t>{line.replace('&', '&amp;')}</w:t></w:r></w:p></w:body></w:document>".encode())])),
        lambda: ("key.json", json.dumps({"private_key": pem(rng, "PRIVATE KEY") + "\n"}).encode()),
        lambda: ("key.env", ("TLS_KEY=\"" + pem(rng).replace("\n", "\\n") + "\"\n").encode()),
        lambda: ("kube.yaml", f"users:\n- name: admin\n  user:\n    client-key-data: {b64(pem(rng).encode())}\n".encode()),
        lambda: ("key.yaml", ("tls:\n  key: |\n" + "".join(f"    {row}\n" for row in pem(rng, "EC PRIVATE KEY").split("\n"))).encode()),
        lambda: ("Key.java", ("class Key { static final String PEM =\n" + " +\n".join(f"    \"{row}\\n\"" for row in pem(rng).split("\n")) + ";\n}\n").encode()),
        lambda: ("basic.txt", f"Authorization: Basic {b64(('deploy:' + places.password(rng)).encode())}\n".encode()),
        lambda: ("config.json", json.dumps({"auths": {"registry.corp-demo.net": {"auth": b64(("deploy:" + places.password(rng)).encode())}}}, indent=1).encode()),
    ])()
