"""Files without a secret that look as if they had one. Each maker gives file name and content as bytes."""

import base64
import json

from .values import BASE62, DIGITS, HEX, LOWER, UPPER, b64, b64url, draw, uuid4
from .places import WORDS


def lines(*rows):
    return ("\n".join(rows) + "\n").encode()


def sri(rng, size=64):
    return {64: "sha512-", 32: "sha256-", 48: "sha384-"}[size] + b64(rng.randbytes(size))


def package(rng):
    return f"@{rng.choice(WORDS)}/{rng.choice(WORDS)}-{rng.choice(['key', 'token', 'secret', 'auth', 'core', 'password-input'])}"


def makers():
    """All makers of clean files, as functions of a random generator."""
    m = []

    def clean(function):
        m.append(function)
        return function

    # Identifiers under names that end in "key" or "id".
    @clean
    def uuid_keys(rng):
        rows = [{"key": uuid4(rng), "name": rng.choice(WORDS), "parentKey": uuid4(rng), "sort_key": uuid4(rng)} for _ in range(12)]
        return "rows.json", json.dumps(rows, indent=2).encode()

    @clean
    def react_keys(rng):
        return "List.jsx", lines("export const items = [", *[f"  {{ key: '{uuid4(rng)}', label: '{rng.choice(WORDS)}' }}," for _ in range(15)], "];")

    @clean
    def cache_keys(rng):
        return "cache.log", lines(*[f"2026-02-01T0{rng.randrange(10)}:11:02Z DEBUG cache {rng.choice(['hit', 'miss'])} key={draw(rng, HEX, rng.choice([32, 40, 64]))} ttl={rng.randrange(900)}" for _ in range(40)])

    @clean
    def cache_yaml(rng):
        return "cache.yml", lines("steps:", "  - uses: actions/cache@v4", "    with:", f"      key: linux-deps-{draw(rng, HEX, 64)}", f"      cache-key: {draw(rng, HEX, 40)}", "      restore-keys: linux-deps-")

    @clean
    def trace_log(rng):
        return "trace.log", lines(*[f"INFO request_id={uuid4(rng)} trace_id={draw(rng, HEX, 32)} span={draw(rng, HEX, 16)} session={draw(rng, HEX, 24)} user={rng.randrange(9999)}" for _ in range(30)])

    @clean
    def database_dump(rng):
        return "dump.sql", lines("INSERT INTO items (id, sort_key, checksum) VALUES", *[f"('{uuid4(rng)}', '{draw(rng, LOWER + DIGITS, 12)}', '{draw(rng, HEX, 40)}')," for _ in range(20)])

    @clean
    def primary_keys(rng):
        return "schema.sql", lines("CREATE TABLE users (", "  id uuid PRIMARY KEY,", "  password_hash text NOT NULL,", "  api_key_id uuid REFERENCES api_keys (id),", "  token_expires_at timestamptz", ");", "CREATE INDEX users_token_key ON users (token_expires_at);")

    # Lock files and other lists of hashes.
    @clean
    def package_lock(rng):
        packages = {f"node_modules/{package(rng)}": {"version": f"{rng.randrange(9)}.{rng.randrange(20)}.{rng.randrange(9)}", "resolved": f"https://packages.corp-demo.net/{rng.choice(WORDS)}-{rng.randrange(99)}.tgz", "integrity": sri(rng)} for _ in range(40)}
        return "package-lock.json", json.dumps({"lockfileVersion": 3, "packages": packages}, indent=2).encode()

    @clean
    def yarn_lock(rng):
        rows = []
        for _ in range(30):
            name = package(rng)
            rows += [f'"{name}@^1.2.0":', '  version "1.2.3"', f'  resolved "https://packages.corp-demo.net/{name}/-/x-1.2.3.tgz#{draw(rng, HEX, 40)}"', f"  integrity {sri(rng)}", ""]
        return "yarn.lock", lines(*rows)

    @clean
    def pnpm_lock(rng):
        return "pnpm-lock.yaml", lines("lockfileVersion: '9.0'", "packages:", *[f"  '{package(rng)}@1.0.{at}':\n    resolution: {{integrity: {sri(rng)}}}" for at in range(25)])

    @clean
    def cargo_lock(rng):
        rows = ["version = 4", ""]
        for _ in range(30):
            rows += ["[[package]]", f'name = "{rng.choice(WORDS)}-{rng.choice(["auth", "secret", "key", "token"])}"', 'version = "0.3.1"', f'checksum = "{draw(rng, HEX, 64)}"', ""]
        return "Cargo.lock", lines(*rows)

    @clean
    def go_sum(rng):
        return "go.sum", lines(*[f"corp-demo.net/{rng.choice(WORDS)}/{rng.choice(WORDS)} v1.{at}.0 h1:{b64(rng.randbytes(32))}" for at in range(40)])

    @clean
    def poetry_lock(rng):
        rows = []
        for _ in range(15):
            rows += ["[[package]]", f'name = "{rng.choice(WORDS)}-token"', 'version = "2.1.0"', "files = [", *[f'    {{file = "x-2.1.0-py3-none-any.whl", hash = "sha256:{draw(rng, HEX, 64)}"}},' for _ in range(3)], "]", ""]
        return "poetry.lock", lines(*rows)

    @clean
    def requirements(rng):
        return "requirements.txt", lines(*[f"{rng.choice(WORDS)}==1.{at}.0 \\\n    --hash=sha256:{draw(rng, HEX, 64)}" for at in range(20)])

    @clean
    def composer_lock(rng):
        return "composer.lock", json.dumps({"content-hash": draw(rng, HEX, 32), "packages": [{"name": package(rng), "source": {"type": "git", "reference": draw(rng, HEX, 40)}, "dist": {"shasum": draw(rng, HEX, 40)}} for _ in range(15)]}, indent=4).encode()

    @clean
    def nuget_lock(rng):
        return "packages.lock.json", json.dumps({"version": 1, "dependencies": {"net8.0": {f"Corp.{word.capitalize()}.Secrets": {"resolved": "1.0.0", "contentHash": b64(rng.randbytes(64))} for word in rng.sample(WORDS, 12)}}}, indent=2).encode()

    @clean
    def terraform_lock(rng):
        return ".terraform.lock.hcl", lines('provider "registry.corp-demo.net/hashicorp/aws" {', '  version = "5.31.0"', "  hashes = [", *[f'    "h1:{b64(rng.randbytes(32))}",' for _ in range(4)], *[f'    "zh:{draw(rng, HEX, 64)}",' for _ in range(8)], "  ]", "}")

    @clean
    def checksums(rng):
        return "SHA256SUMS", lines(*[f"{draw(rng, HEX, 64)}  {rng.choice(WORDS)}-{at}.tar.gz" for at in range(25)])

    @clean
    def docker_digests(rng):
        return "images.yaml", lines("images:", *[f"  {rng.choice(WORDS)}: registry.corp-demo.net/{rng.choice(WORDS)}@sha256:{draw(rng, HEX, 64)}" for _ in range(15)])

    @clean
    def workflow_pins(rng):
        return "build.yml", lines("jobs:", "  build:", "    steps:", *[f"      - uses: corp/{rng.choice(WORDS)}-action@{draw(rng, HEX, 40)} # v3" for _ in range(10)], "      - run: make", "        env:", "          GITHUB_TOKEN: ${{ secrets.GITHUB_TOKEN }}", "          NPM_TOKEN: ${{ secrets.NPM_TOKEN }}")

    @clean
    def git_modules(rng):
        return "vendor.conf", lines(*[f"corp-demo.net/{rng.choice(WORDS)} {draw(rng, HEX, 40)}" for _ in range(25)])

    # Cryptography in the open.
    @clean
    def test_vectors(rng):
        rows = ["# AES-GCM known answers", ""]
        for count in range(12):
            rows += [f"Count = {count}", f"Key = {draw(rng, HEX, 32)}", f"IV = {draw(rng, HEX, 24)}", f"PT = {draw(rng, HEX, 64)}", f"AAD = {draw(rng, HEX, 40)}", f"CT = {draw(rng, HEX, 64)}", f"Tag = {draw(rng, HEX, 32)}", ""]
        return "gcm_vectors.rsp", lines(*rows)

    @clean
    def vectors_json(rng):
        tests = [{"tcId": at, "key": draw(rng, HEX, 64), "msg": draw(rng, HEX, 32), "tag": draw(rng, HEX, 64), "result": "valid"} for at in range(20)]
        return "hmac_sha256_test.json", json.dumps({"algorithm": "HMACSHA256", "testGroups": [{"keySize": 256, "tests": tests}]}, indent=1).encode()

    @clean
    def vectors_rust(rng):
        return "vectors.rs", lines("#[test]", "fn known_answers() {", *[f'    check(hex!("{draw(rng, HEX, 64)}"), hex!("{draw(rng, HEX, 32)}"));' for _ in range(10)], f"    let key = hex!(\"{draw(rng, HEX, 64)}\");", "}")

    @clean
    def certificate(rng):
        body = b64(b"\x30\x82\x03\x20" + rng.randbytes(800))
        return "ca.pem", lines("-----BEGIN CERTIFICATE-----", *[body[at:at + 64] for at in range(0, len(body), 64)], "-----END CERTIFICATE-----")

    @clean
    def public_keys(rng):
        body = b64(rng.randbytes(290))
        return "keys.pub", lines(f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{b64(rng.randbytes(33))} dev@laptop", f"ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ{b64(rng.randbytes(380))} ops@host", "-----BEGIN PUBLIC KEY-----", *[body[at:at + 64] for at in range(0, len(body), 64)], "-----END PUBLIC KEY-----")

    @clean
    def known_hosts(rng):
        return "known_hosts", lines(*[f"|1|{b64(rng.randbytes(20))}|{b64(rng.randbytes(20))} ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{b64(rng.randbytes(33))}" for _ in range(6)])

    @clean
    def pgp_public(rng):
        body = b64(rng.randbytes(600))
        return "release.asc", lines("-----BEGIN PGP PUBLIC KEY BLOCK-----", "", *[body[at:at + 64] for at in range(0, len(body), 64)], "=" + b64(rng.randbytes(3)), "-----END PGP PUBLIC KEY BLOCK-----")

    @clean
    def jwks(rng):
        return "jwks.json", json.dumps({"keys": [{"kty": "RSA", "use": "sig", "alg": "RS256", "kid": uuid4(rng), "n": b64url(rng.randbytes(256)), "e": "AQAB"} for _ in range(3)]}, indent=1).encode()

    @clean
    def wireguard_peer(rng):
        return "wg0.conf.sample", lines("[Interface]", "PrivateKey = <your private key>", "", "[Peer]", f"PublicKey = {b64(rng.randbytes(32))}", "AllowedIPs = 10.0.0.0/24")

    @clean
    def chain_data(rng):
        return "transactions.csv", lines("hash,from,to,value", *[f"0x{draw(rng, HEX, 64)},0x{draw(rng, HEX, 40)},0x{draw(rng, HEX, 40)},{rng.randrange(10**9)}" for _ in range(25)])

    @clean
    def signatures(rng):
        return "webhook.http", lines("POST /hook HTTP/1.1", "Host: app.corp-demo.net", f"X-Hub-Signature-256: sha256={draw(rng, HEX, 64)}", f"ETag: \"{draw(rng, HEX, 32)}\"", f"X-Request-Id: {uuid4(rng)}", f"Digest: SHA-256={b64(rng.randbytes(32))}")

    # Generated text.
    @clean
    def minified(rng):
        parts = []
        for _ in range(400):
            a, b = draw(rng, LOWER, 1), draw(rng, LOWER, 2)
            parts.append(rng.choice([f"function {b}({a}){{return {a}.key||{a}.token}}", f"var {b}={{key:\"{rng.choice(WORDS)}\",secret:{a},password:!0}};", f"{a}.apiKey={b}.apiKey,", f"if({a}.password!=={b})throw Error(\"{rng.randrange(99)}\");"]))
        return "app.min.js", "".join(parts).encode()

    @clean
    def bundle_manifest(rng):
        return "manifest.json", json.dumps({f"static/{word}.js": f"/static/{word}.{draw(rng, HEX, 20)}.js" for word in WORDS}, indent=1).encode()

    @clean
    def source_map(rng):
        return "app.js.map", json.dumps({"version": 3, "sources": ["webpack:///src/auth/token.ts"], "names": ["apiKey", "password"], "mappings": ";".join("".join(rng.choice(["AAAA", "CAAC", "IAAI", "GAAG", "QAAQ", "EAAE"]) for _ in range(8)) for _ in range(120))}).encode()

    @clean
    def inline_image(rng):
        return "style.css", lines(".logo {", f"  background: url(data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA{b64(rng.randbytes(1500))});", "}", ".font { src: url(data:font/woff2;base64,d09GMgABAAAAA" + b64(rng.randbytes(900)) + "); }")

    @clean
    def vector_image(rng):
        points = " ".join(f"{rng.randrange(999)}.{rng.randrange(99)},{rng.randrange(999)}.{rng.randrange(99)}" for _ in range(300))
        return "icon.svg", lines('<svg viewBox="0 0 999 999">', f'<path d="M{points}z" id="key-icon"/>', f'<image href="data:image/png;base64,iVBORw0KGgo{b64(rng.randbytes(700))}"/>', "</svg>")

    @clean
    def project_file(rng):
        return "project.pbxproj", lines(*[f"\t\t{draw(rng, DIGITS + 'ABCDEF', 24)} /* Token.swift in Sources */ = {{isa = PBXBuildFile; fileRef = {draw(rng, DIGITS + 'ABCDEF', 24)}; }};" for _ in range(30)])

    @clean
    def model_index(rng):
        return "model.index.json", json.dumps({"metadata": {"total_size": 13476831232}, "weight_map": {f"layers.{at}.self_attn.key_proj.weight": f"model-{at:05}-of-00003.safetensors" for at in range(30)}}, indent=1).encode()

    @clean
    def vocabulary(rng):
        return "vocab.txt", lines(*[draw(rng, LOWER, rng.randrange(3, 12)) for _ in range(300)])

    @clean
    def notebook_image(rng):
        return "plot.ipynb", json.dumps({"cells": [{"cell_type": "code", "source": ["plt.plot(x)"], "outputs": [{"data": {"image/png": "iVBORw0KGgo" + b64(rng.randbytes(3000))}, "output_type": "display_data"}]}], "nbformat": 4}).encode()

    @clean
    def hex_dump(rng):
        return "frame.txt", lines(*[f"{at * 16:08x}  " + " ".join(draw(rng, HEX, 2) for _ in range(16)) for at in range(40)])

    @clean
    def binary_arrays(rng):
        return "table.c", lines("static const unsigned char key_table[] = {", *["  " + ", ".join(f"0x{draw(rng, HEX, 2)}" for _ in range(12)) + "," for _ in range(20)], "};")

    # Code and settings about secrets.
    @clean
    def reads_password(rng):
        return "login.py", lines("import getpass", "import os", "", "password = getpass.getpass('Password: ')", "api_key = os.environ['API_KEY']", "token = config.get('auth', 'token')", "secret = load_secret(\"app/db-password\")", "if password == confirm_password:", "    user.set_password(password)", "client = Client(api_key=api_key, password=password, token=self.token)", "PASSWORD_MIN_LENGTH = 12", "TOKEN_TYPE = 'bearer_token_type'", "SECRET_NAME = 'prod/billing/database'")

    @clean
    def reads_secrets_go(rng):
        return "auth.go", lines("package auth", "", 'const HeaderAPIKey = "X-Api-Key"', 'const passwordField = "password"', 'var ErrBadPassword = errors.New("the password is wrong")', "func f(c *Config) {", '\ttoken := os.Getenv("SERVICE_TOKEN")', "\tc.Password = strings.TrimSpace(string(raw))", '\treq.Header.Set("Authorization", "Bearer "+token)', '\tapiKey := flag.String("api-key", "", "key of the service")', "}")

    @clean
    def reads_secrets_ts(rng):
        return "auth.ts", lines("export const TOKEN_KEY = 'auth.accessToken.v2';", "export const PASSWORD_RESET_URL = '/account/password/reset';", "const apiKey = process.env.API_KEY ?? '';", "const secret = await client.getSecret('database-password');", "type Props = { password: string; apiKey?: string; secretKey: keyof Store };", "const headers = { Authorization: `Bearer ${token}`, 'X-API-Key': apiKey };", "<input type=\"password\" name=\"password\" placeholder=\"Enter your password\" autocomplete=\"current-password\" />", "localStorage.setItem('refreshToken', response.refreshToken);", "const passwordPattern = /^(?=.*[A-Z])(?=.*\\d).{12,}$/;")

    @clean
    def reads_secrets_java(rng):
        return "Auth.java", lines("class Auth {", '    private static final String PASSWORD_PROPERTY = "spring.datasource.password";', '    private static final String TOKEN_HEADER = "X-Auth-Token";', '    @Value("${app.api-key}") private String apiKey;', "    void f() {", "        String password = System.getenv(\"DB_PASSWORD\");", "        this.token = request.getHeader(TOKEN_HEADER);", '        builder.password(passwordEncoder.encode(password)).secret(properties.getSecret());', "        char[] keystorePassword = prompt.readPassword();", "    }", "}")

    @clean
    def references(rng):
        return "deployment.yaml", lines("env:", "  - name: DB_PASSWORD", "    valueFrom:", "      secretKeyRef:", "        name: billing-database", "        key: password", "  - name: API_KEY", "    valueFrom: {secretKeyRef: {name: api, key: api-key}}", "  - name: TOKEN_FILE", "    value: /var/run/secrets/tokens/service-token", "tls:", "  secretName: billing-tls", "imagePullSecrets:", "  - name: registry-credentials")

    @clean
    def templates(rng):
        return "values.yaml", lines("db:", "  password: {{ .Values.db.password | quote }}", "  username: app", "api:", '  key: "{{ vault_api_key }}"', "  token: ${API_TOKEN}", "  secret: $(SECRET)", "  password: !vault |", "    $ANSIBLE_VAULT;1.1;AES256", *["    " + draw(rng, DIGITS, 80) for _ in range(4)], "mail:", "  password: <%= ENV['MAIL_PASSWORD'] %>", "  api_key: %(mail_key)s", "  client_secret: __CLIENT_SECRET__")

    @clean
    def placeholders(rng):
        return ".env.example", lines("DB_PASSWORD=changeme", "API_KEY=your-api-key-here", "SECRET_KEY=<secret>", "AUTH_TOKEN=xxxxxxxxxxxxxxxxxxxxxxxx", "JWT_SECRET=replace-me-with-a-long-random-string", "STRIPE_KEY=sk_live_" + 24 * "x", "GITHUB_TOKEN=ghp_" + 36 * "X", "AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY", "DATABASE_URL=postgres://user:password@localhost:5432/app", "REDIS_URL=redis://:${REDIS_PASSWORD}@redis:6379/0", "PASSWORD=********", "TOKEN=TODO", "CLIENT_SECRET=")

    @clean
    def documentation(rng):
        return "guide.md", lines("# Authentication", "", "Send `Authorization: Bearer <token>` with each request. Replace `YOUR_API_KEY` with your key:", "", "    curl -H 'X-API-Key: YOUR_API_KEY' https://api.corp-demo.net/v1/items", "    curl -u username:password https://api.corp-demo.net/v1/items", "", "| option | meaning |", "|---|---|", "| `password` | the password of the user, at least 12 characters |", "| `secret_key` | a random key, see [rotation](rotation.md#secret-key) |", "", "Set `api_key: \"<api-key>\"`, and `token=...` if you have one. The password: it must not be the name.")

    @clean
    def open_api(rng):
        return "openapi.yaml", lines("components:", "  securitySchemes:", "    apiKey:", "      type: apiKey", "      name: X-API-Key", "      in: header", "  schemas:", "    Login:", "      properties:", "        password: {type: string, format: password, minLength: 12}", "        clientSecret: {type: string, description: secret of the client}", "        token: {type: string, example: string}", "      required: [username, password]")

    @clean
    def translations(rng):
        return "de.json", json.dumps({"password": "Passwort", "login.password.forgotten": "Passwort vergessen?", "apiKey": "API-Schluessel", "token": "Zugriffstoken", "secret.help": "Das Geheimnis wird nur einmal angezeigt", "error.password": "Benutzername oder Passwort falsch", "accessToken.expired": "abgelaufen"}, indent=2).encode()

    @clean
    def terraform_variables(rng):
        return "variables.tf", lines('variable "db_password" {', "  type      = string", "  sensitive = true", "}", 'resource "x" "y" {', "  password         = var.db_password", "  api_key          = data.vault_generic_secret.api.data[\"key\"]", f'  kms_key_id       = "arn:aws:kms:eu-west-1:{draw(rng, DIGITS, 12)}:key/{uuid4(rng)}"', '  secret_arn       = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db"', "  token            = random_password.token.result", f'  tenant_id        = "{uuid4(rng)}"', f'  key_vault_id     = "/subscriptions/{uuid4(rng)}/resourceGroups/rg"', "}")

    @clean
    def html_form(rng):
        return "login.html", lines("<form>", '<label for="password">Password</label>', '<input id="password" type="password" name="user[password]" value="">', f'<input type="hidden" name="csrf_token" value="{b64(rng.randbytes(32))}">', f'<meta name="csrf-token" content="{b64(rng.randbytes(64))}">', f'<script nonce="{b64(rng.randbytes(16))}" integrity="{sri(rng, 48)}" src="/app.js"></script>', "</form>")

    @clean
    def config_options(rng):
        return "options.toml", lines("[auth]", "password_min_length = 12", 'token_type = "Bearer"', 'token_endpoint = "https://id.corp-demo.net/oauth/token"', 'key_file = "/etc/app/private.key"', 'secret_backend = "vault"', 'password_file = "/run/secrets/db"', 'api_key_header = "X-Api-Key"', 'key = "name"', 'sort_key = "created_at"', 'private_key_path = "~/.ssh/id_ed25519"', 'credentials = "same-origin"', 'secret = "projects/corp/secrets/db-password/versions/latest"', 'auth_method = "username_password"')

    @clean
    def sealed(rng):
        return "sealed.yaml", lines("kind: SealedSecret", "spec:", "  encryptedData:", f"    password: AgB{b64(rng.randbytes(400))}", "sops:", f"  mac: ENC[AES256_GCM,data:{b64(rng.randbytes(60))},iv:{b64(rng.randbytes(32))},tag:{b64(rng.randbytes(16))},type:str]")

    @clean
    def sops_file(rng):
        return "secrets.enc.yaml", lines(f"db_password: ENC[AES256_GCM,data:{b64(rng.randbytes(12))},iv:{b64(rng.randbytes(32))},tag:{b64(rng.randbytes(16))},type:str]", f"api_key: ENC[AES256_GCM,data:{b64(rng.randbytes(24))},iv:{b64(rng.randbytes(32))},tag:{b64(rng.randbytes(16))},type:str]")

    @clean
    def cloud_ids(rng):
        return "resources.json", json.dumps({"accountId": draw(rng, DIGITS, 12), "keyId": uuid4(rng), "subscriptionId": uuid4(rng), "clientId": uuid4(rng), "vpc": "vpc-0" + draw(rng, HEX, 16), "ami": "ami-0" + draw(rng, HEX, 16), "objectKey": f"uploads/2026/{uuid4(rng)}.png", "partitionKey": draw(rng, HEX, 32), "etag": draw(rng, HEX, 32), "versionId": draw(rng, BASE62, 32)}, indent=2).encode()

    @clean
    def shell_code(rng):
        return "rotate.sh", lines("#!/bin/bash", 'read -rsp "Password: " PASSWORD', "export PGPASSWORD=\"$DB_PASSWORD\"", "TOKEN=$(vault kv get -field=token secret/ci)", 'curl -u "$USER:$PASSWORD" -H "Authorization: Bearer ${TOKEN}" https://api.corp-demo.net', "mysql -u root -p\"$MYSQL_ROOT_PASSWORD\" app", "API_KEY=${API_KEY:?set it}", "SECRET=`cat /run/secrets/app`", "PASSWORD_FILE=/run/secrets/db")

    @clean
    def password_rules(rng):
        return "validation.rs", lines('const ERR: &str = "password must have at least 12 characters";', 'let password = rpassword::prompt_password("Password: ")?;', 'assert!(secret.expose().len() >= 32, "the secret key is too short");', 'let token = header.strip_prefix("Bearer ")?;', "let api_key: ApiKey = config.api_key.clone();", 'map.insert("password".to_owned(), Value::String(password));', 'fn key() -> &\'static str { "user.session.token" }')

    @clean
    def user_names(rng):
        return "users.csv", lines("id,name,key,score", *[f"{uuid4(rng)},{rng.choice(WORDS)},{draw(rng, LOWER + DIGITS, 8)},{rng.random():.8f}" for _ in range(30)])

    @clean
    def messages(rng):
        return "messages.properties", lines("login.password=Password", "login.password.hint=At least 12 characters", "error.token=The token has expired, ask for a new one", "secret.title=Secrets of the project", "api.key.label=Key of the API", "password.reset.subject=Reset your password")

    @clean
    def emails(rng):
        return "mail.mbox", lines(f"Message-ID: <{draw(rng, HEX, 32)}@mail.corp-demo.net>", "DKIM-Signature: v=1; a=rsa-sha256; d=corp-demo.net; s=key1;", f" bh={b64(rng.randbytes(32))};", f" b={b64(rng.randbytes(128))}", "Subject: your password expires", "", "Please choose a new password: it must differ from the old one.")

    @clean
    def sentences(rng):
        return "essay.txt", lines(*[" ".join(rng.choice(WORDS + ["the", "password", "of", "key", "token:", "secret", "is", "a", "and", "=", "authorization"]) for _ in range(14)) + "." for _ in range(60)])

    @clean
    def near_misses(rng):
        return "near.txt", lines("ghp_" + draw(rng, BASE62, 36), "npm_" + draw(rng, BASE62, 36), "AKIA" + draw(rng, UPPER, 6), "xoxb-not-a-token-at-all", "eyJ" + draw(rng, BASE62, 30) + ".eyJ" + draw(rng, BASE62, 40) + "." + draw(rng, BASE62, 43), "5" + draw(rng, "23456789ABCDEFGH", 50), "sk-" + rng.choice(WORDS) + "-" + rng.choice(WORDS))

    @clean
    def unity_meta(rng):
        return "Key.prefab.meta", lines("fileFormatVersion: 2", f"guid: {draw(rng, HEX, 32)}", "PrefabImporter:", "  userData:", f"  assetBundleKey: {draw(rng, HEX, 32)}")

    @clean
    def junit(rng):
        return "report.xml", lines("<testsuite>", *[f'<testcase classname="auth.PasswordTest" name="token_{at}" time="0.{rng.randrange(999)}"/>' for at in range(30)], f"<property name=\"build.id\" value=\"{uuid4(rng)}\"/>", "</testsuite>")

    @clean
    def prometheus(rng):
        return "metrics.txt", lines(*[f'http_requests_total{{path="/token",instance="{uuid4(rng)}",pod="auth-{draw(rng, HEX, 10)}-{draw(rng, LOWER, 5)}"}} {rng.randrange(10**6)}' for _ in range(25)])

    @clean
    def encoded_text(rng):
        text = " ".join(rng.choice(WORDS) for _ in range(60)).encode()
        return "message.json", json.dumps({"key": "topic-7", "value": base64.b64encode(text).decode(), "blob": b64(rng.randbytes(300))}).encode()

    @clean
    def avro_schema(rng):
        return "schema.avsc", json.dumps({"type": "record", "name": "Credential", "fields": [{"name": "password", "type": "string", "doc": "hashed"}, {"name": "api_key", "type": ["null", "string"], "default": None}], "fingerprint": draw(rng, HEX, 64)}).encode()

    return m
