"""Files in which a value stands: what people write, in the languages and formats that they write it in.

A place takes a generator, the name of a variable and a value, and gives the file's name and its text. The value stands in the
text as it is, so that its lines can be found again.
"""

import json

from .values import BASE62, DIGITS, HEX, LOWER, b64, draw, inner, uuid4

WORDS = "amber river delta falcon harbor lumen maple orchid pixel quartz ridge summit tundra willow copper meadow".split()


def camel(name):
    first, *rest = name.lower().replace("-", "_").split("_")
    return first + "".join(word.capitalize() for word in rest)


def kebab(name):
    return name.lower().replace("_", "-")


def env(rng, name, value):
    return ".env", f"NODE_ENV=production\nPORT={rng.randrange(3000, 9000)}\n{name.upper()}={value}\nLOG_LEVEL=info\n"


def env_quoted(rng, name, value):
    return "deploy.env", f"# settings of the service\nREGION=eu-west-1\n{name.upper()}=\"{value}\"\nWORKERS=4\n"


def shell(rng, name, value):
    return "run.sh", f"#!/bin/sh\nset -eu\ncd /srv/app\nexport {name.upper()}='{value}'\nexec ./server --port 8080\n"


def yaml(rng, name, value):
    return "config.yaml", f"service:\n  name: billing\n  replicas: 3\n  {name.lower()}: {value}\n  timeout: 30s\n"


def yaml_quoted(rng, name, value):
    return "values.yml", f"image:\n  tag: 1.{rng.randrange(40)}.2\nconfig:\n  {camel(name)}: \"{value}\"\n"


def k8s_env(rng, name, value):
    return "deployment.yaml", f"    spec:\n      containers:\n        - name: app\n          env:\n            - name: {name.upper()}\n              value: \"{value}\"\n"


def compose(rng, name, value):
    return "docker-compose.yml", f"services:\n  web:\n    image: corp/web:2\n    environment:\n      - {name.upper()}={value}\n    ports: ['80:80']\n"


def json_file(rng, name, value):
    return "settings.json", json.dumps({"debug": False, "retries": 3, name.lower(): value, "hosts": ["a.corp-demo.net"]}, indent=2) + "\n"


def json_flat(rng, name, value):
    return "payload.json", json.dumps({"id": rng.randrange(10**6), camel(name): value, "kind": "sync"})


def toml(rng, name, value):
    return "app.toml", f"[server]\nport = 8080\n\n[auth]\n{name.lower()} = \"{value}\"\n"


def ini(rng, name, value):
    return "app.ini", f"[main]\nworkers = 4\n{name.lower()} = {value}\nverbose = no\n"


def properties(rng, name, value):
    return "application.properties", f"server.port=8080\ncorp.{kebab(name)}={value}\nspring.main.banner-mode=off\n"


def python(rng, name, value):
    return "client.py", f"import requests\n\nBASE = 'https://api.corp-demo.net'\n{name.upper()} = \"{value}\"\n\n\ndef fetch(path):\n    return requests.get(BASE + path, timeout=10)\n"


def python_call(rng, name, value):
    return "job.py", f"from service import Client\n\nclient = Client(\n    region='eu',\n    {name.lower()}='{value}',\n    retries=3,\n)\n"


def javascript(rng, name, value):
    return "index.js", f"const http = require('http');\n\nconst {camel(name)} = '{value}';\n\nmodule.exports = {{ start: () => http.createServer().listen(80) }};\n"


def typescript(rng, name, value):
    return "config.ts", f"export const config = {{\n  region: 'eu-west-1',\n  {camel(name)}: \"{value}\",\n  retries: 3,\n}};\n"


def go(rng, name, value):
    return "main.go", f"package main\n\nimport \"fmt\"\n\nconst {camel(name)} = \"{value}\"\n\nfunc main() {{ fmt.Println(\"up\") }}\n"


def rust(rng, name, value):
    return "main.rs", f"const {name.upper()}: &str = \"{value}\";\n\nfn main() {{\n    println!(\"up\");\n}}\n"


def java(rng, name, value):
    return "Settings.java", f"public final class Settings {{\n    private static final String {name.upper()} = \"{value}\";\n    static final int PORT = 8080;\n}}\n"


def csharp(rng, name, value):
    return "Settings.cs", f"namespace Corp {{\n  public static class Settings {{\n    public const string {camel(name)} = \"{value}\";\n  }}\n}}\n"


def ruby(rng, name, value):
    return "setup.rb", f"require 'json'\n\nCorp.configure do |config|\n  config.{name.lower()} = '{value}'\n  config.retries = 3\nend\n"


def php(rng, name, value):
    return "config.php", f"<?php\nreturn [\n    'debug' => false,\n    '{name.lower()}' => '{value}',\n];\n"


def dockerfile(rng, name, value):
    return "Dockerfile", f"FROM debian:12\nENV {name.upper()}={value}\nRUN apt-get update\nCMD [\"/app\"]\n"


def terraform(rng, name, value):
    return "main.tf", f"provider \"corp\" {{\n  region = \"eu\"\n  {name.lower()} = \"{value}\"\n}}\n"


def workflow(rng, name, value):
    return "ci.yml", f"jobs:\n  build:\n    runs-on: ubuntu-latest\n    env:\n      {name.upper()}: {value}\n    steps:\n      - run: make\n"


def markdown(rng, name, value):
    return "NOTES.md", f"# How to deploy\n\nLog in to the console, then set `{name.upper()}={value}` and run `make deploy`.\n"


def xml(rng, name, value):
    escaped = value.replace("&", "&amp;").replace("<", "&lt;")
    return "web.xml", f"<settings>\n  <port>8080</port>\n  <{camel(name)}>{escaped}</{camel(name)}>\n</settings>\n"


def log_line(rng, name, value):
    return "server.log", f"2026-03-0{rng.randrange(1, 9)}T10:22:31Z INFO starting\n2026-03-04T10:22:32Z DEBUG config loaded {name.lower()}={value} retries=3\n"


PLAIN = [env, env_quoted, shell, yaml, yaml_quoted, k8s_env, compose, json_file, json_flat, toml, ini, properties, python,
         python_call, javascript, typescript, go, rust, java, csharp, ruby, php, dockerfile, terraform, workflow, markdown,
         xml, log_line]


def plain(rng, name, value):
    """Puts a value of a known kind somewhere."""
    if "\n" in value:
        return rng.choice([("key.pem", value + "\n"), ("setup.md", f"Save as `id_key`:\n\n```\n{value}\n```\n"), ("keys.py", f'KEY = """{value}"""\n')])
    return rng.choice(PLAIN)(rng, name, value)


def human_password(rng):
    word = rng.choice(WORDS)
    return rng.choice([
        lambda: word.capitalize() + draw(rng, DIGITS, rng.randrange(2, 5)) + rng.choice("!#@*?"),
        lambda: word + rng.choice("-_.") + rng.choice(WORDS) + rng.choice("-_.") + draw(rng, DIGITS, 2),
        lambda: word.replace("a", "4").replace("e", "3").replace("o", "0").replace("i", "1") + draw(rng, DIGITS, 3) + "$x",
        lambda: word[:4] + rng.choice("!@#%^*") + draw(rng, BASE62, 6),
        lambda: "".join(part.capitalize() for part in rng.sample(WORDS, 2)) + draw(rng, DIGITS, 4),
    ])()


def random_password(rng):
    return inner(rng, BASE62 + "!@#%^*_+-", rng.randrange(10, 24))


def password(rng):
    return human_password(rng) if rng.random() < 0.5 else random_password(rng)


def token(rng):
    return rng.choice([
        lambda: draw(rng, HEX, rng.choice([32, 40, 48, 64])),
        lambda: draw(rng, BASE62, rng.randrange(20, 64)),
        lambda: b64(rng.randbytes(rng.choice([24, 32, 48]))),
        lambda: inner(rng, BASE62 + "-_", rng.randrange(24, 50)),
        lambda: draw(rng, LOWER + DIGITS, rng.randrange(24, 40)),
    ])()


PASSWORD_NAMES = "DB_PASSWORD password db_password POSTGRES_PASSWORD MYSQL_ROOT_PASSWORD smtp_password admin_password REDIS_PASSWORD passwd PGPASSWORD rootPassword ftp_pass DATABASE_PASSWORD ldap_bind_password keystore_password vnc_passwd user_pwd adminPassword".split()
SECRET_NAMES = "API_KEY api_key secret_key CLIENT_SECRET auth_token ACCESS_TOKEN client_secret SESSION_SECRET jwt_secret ENCRYPTION_KEY signing_secret webhook_secret api_token APP_SECRET private_token COOKIE_SECRET apiKey internal_api_key service_token bearer_token".split()


def header(rng):
    """A header with credentials: in curl, in code, in a file of requests."""
    user = rng.choice(["deploy", "svc-ci", "admin", "reports"])
    basic = b64(f"{user}:{password(rng)}".encode())
    bearer = inner(rng, BASE62 + "-_", rng.randrange(24, 60))
    name, value, secret = rng.choice([
        ("Authorization", "Bearer " + bearer, bearer), ("Authorization", "Basic " + basic, basic),
        ("Authorization", "Token " + bearer, bearer), ("X-API-Key", bearer, bearer), ("X-Auth-Token", bearer, bearer),
        ("Authorization", "ApiKey " + bearer, bearer), ("api-key", bearer, bearer), ("Proxy-Authorization", "Basic " + basic, basic),
        ("PRIVATE-TOKEN", bearer, bearer), ("X-Access-Token", bearer, bearer)])
    place = rng.choice([
        ("call.sh", f"curl -s -H '{name}: {value}' https://api.corp-demo.net/v1/jobs\n"),
        ("call.sh", f"curl -X POST \\\n  -H \"{name}: {value}\" \\\n  -d @body.json https://api.corp-demo.net/v1\n"),
        ("call.py", f"import requests\nheaders = {{'Accept': 'application/json', '{name}': '{value}'}}\n"),
        ("call.js", f"fetch(url, {{ headers: {{ \"{name}\": \"{value}\" }} }});\n"),
        ("call.http", f"GET /v1/jobs HTTP/1.1\nHost: api.corp-demo.net\n{name}: {value}\n"),
        ("call.go", f"package x\nfunc f() {{ req.Header.Set(\"{name}\", \"{value}\") }}\n"),
        ("Call.java", f"class Call {{ void f() {{ request.setHeader(\"{name}\", \"{value}\"); }} }}\n"),
        ("call.rb", f"request['{name}'] = '{value}'\n"),
        ("call.rs", f"fn f() {{ let r = client.get(url).header(\"{name}\", \"{value}\").send(); }}\n"),
        ("proxy.conf", f"location / {{\n  proxy_set_header {name} \"{value}\";\n}}\n"),
        ("collection.json", json.dumps({"header": [{"key": name, "value": value}], "method": "GET"}, indent=1)),
        ("call.ps1", f"Invoke-RestMethod -Headers @{{ '{name}' = '{value}' }} -Uri $uri\n"),
    ])
    return *place, secret


def login(rng):
    """A password where no name of a variable announces it: command lines, files of tools, URLs, SQL."""
    secret = rng.choice([human_password, random_password])(rng).replace("#", "7").replace("@", "9").replace("%", "5").replace("^", "6")
    host = f"db{rng.randrange(20)}.corp-demo.net"
    place = rng.choice([
        (".netrc", f"machine {host}\n  login deploy\n  password {secret}\n"),
        (".pgpass", f"{host}:5432:app:app_rw:{secret}\n"),
        ("backup.sh", f"#!/bin/sh\nmysqldump -u backup -p{secret} -h {host} app > /backup/app.sql\n"),
        ("backup.sh", f"#!/bin/sh\nPGPASSWORD='{secret}' pg_dump -h {host} -U app app\n"),
        ("sync.sh", f"sshpass -p '{secret}' rsync -a /srv deploy@{host}:/srv\n"),
        ("call.sh", f"curl -u deploy:{secret} https://{host}/api\n"),
        ("call.sh", f"curl --user 'deploy:{secret}' https://{host}/api\n"),
        ("clone.sh", f"git clone https://deploy:{secret}@git.corp-demo.net/team/app.git\n"),
        ("feed.py", f"URL = 'https://reader:{secret}@feeds.corp-demo.net/all.xml'\n"),
        ("init.sql", f"CREATE USER 'app'@'%' IDENTIFIED BY '{secret}';\nGRANT ALL ON app.* TO 'app'@'%';\n"),
        ("init.sql", f"CREATE ROLE app LOGIN PASSWORD '{secret}';\n"),
        ("init.sql", f"ALTER USER app WITH ENCRYPTED PASSWORD '{secret}';\n"),
        ("Web.config", f"<add name=\"Db\" connectionString=\"Server={host};Database=App;User Id=app;Password={secret};\" />\n"),
        ("appsettings.json", json.dumps({"ConnectionStrings": {"Db": f"Host={host};Username=app;Password={secret};Database=app"}}, indent=2)),
        ("jdbc.properties", f"url=jdbc:mysql://{host}:3306/app?user=app&password={secret}\n"),
        ("settings.xml", f"<server>\n  <id>releases</id>\n  <username>deploy</username>\n  <password>{secret}</password>\n</server>\n"),
        ("login.ps1", f"$secure = ConvertTo-SecureString '{secret}' -AsPlainText -Force\n"),
        ("redis.sh", f"redis-cli -h {host} -a {secret} ping\n"),
        ("run.sh", f"docker run -d -e MYSQL_ROOT_PASSWORD={secret} mysql:8\n"),
        ("run.sh", f"./tool --user app --password {secret} --host {host}\n"),
        ("run.sh", f"./tool --password={secret} sync\n"),
        ("run.sh", f"docker login -u deploy -p {secret} registry.corp-demo.net\n"),
        ("wp-config.php", f"<?php\ndefine('DB_NAME', 'wp');\ndefine('DB_PASSWORD', '{secret}');\n"),
        ("db.go", f"package db\nvar opts = &Options{{Addr: \"{host}:6379\", Password: \"{secret}\"}}\n"),
        ("db.rs", f"fn f() {{ let o = Options::new().host(\"{host}\").password(\"{secret}\"); }}\n"),
        ("Db.java", f"class Db {{ void f() {{ source.setUsername(\"app\"); source.setPassword(\"{secret}\"); }} }}\n"),
        ("db.js", f"const pool = new Pool({{ host: '{host}', user: 'app', password: '{secret}' }});\n"),
        ("db.py", f"conn = psycopg2.connect(host='{host}', user='app', password='{secret}')\n"),
        ("db.py", f"DATABASES = {{'default': {{'HOST': '{host}', 'USER': 'app', 'PASSWORD': '{secret}'}}}}\n"),
        ("redis.conf", f"bind 127.0.0.1\nrequirepass {secret}\n"),
        ("hosts.ini", f"[web]\n{host} ansible_user=root ansible_ssh_pass={secret}\n"),
        (".pypirc", f"[corp]\nrepository = https://pypi.corp-demo.net/\nusername = deploy\npassword = {secret}\n"),
        (".npmrc", f"registry=https://npm.corp-demo.net/\n//npm.corp-demo.net/:_authToken={uuid4(rng)}\n"),
    ])
    if place[0] == ".npmrc":
        return *place, place[1].rsplit("=", 1)[1].strip()
    return *place, secret


def unprefixed(rng):
    """A password, token or header without a format of its own. Gives file name, text and the secret."""
    choice = rng.random()
    if choice < 0.3:
        return header(rng)
    if choice < 0.6:
        return login(rng)
    is_password = choice < 0.82
    name = rng.choice(PASSWORD_NAMES if is_password else SECRET_NAMES)
    secret = password(rng) if is_password else token(rng)
    place = rng.choice([place for place in PLAIN if place is not markdown])
    if place in (env, ini, properties, yaml, compose, dockerfile, workflow, log_line, xml) or place is shell:
        # Where nothing quotes it, people choose passwords that need no quotes.
        secret = secret.replace("#", "7").replace("*", "8").replace("!", "1").replace("@", "9").replace("%", "5").replace("^", "6").replace("$", "4")
    return *place(rng, name, secret), secret
