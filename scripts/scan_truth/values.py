"""Synthetic secrets, each by the shape that its provider publishes, with right check digits where there are any.

Nothing here is taken from the rules of a scanner. A kind has a name, the group `plain`, the names of variables that
people give it, and a function from a random generator to a value.
"""

import base64
import hashlib
import json
import uuid
import zlib

DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"
UPPER = LOWER.upper()
HEX = DIGITS + "abcdef"
BASE62 = DIGITS + UPPER + LOWER
BASE32 = UPPER + "234567"
URLSAFE = BASE62 + "-_"
BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


def draw(rng, alphabet, count):
    return "".join(rng.choice(alphabet) for _ in range(count))


def inner(rng, alphabet, count):
    """As `draw`, with a letter or digit at both ends: where a token ends in `-`, no two readers agree on its end."""
    plain = [c for c in alphabet if c.isalnum()]
    return rng.choice(plain) + draw(rng, alphabet, count - 2) + rng.choice(plain)


def crc_base62(text):
    number, digits = zlib.crc32(text.encode()), ""
    while number:
        number, rest = divmod(number, 62)
        digits = BASE62[rest] + digits
    return digits.rjust(6, "0")


def base36(number):
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = (DIGITS + LOWER)[rest] + digits
    return digits or "0"


def uuid4(rng):
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def b64(data):
    return base64.b64encode(data).decode()


def b64url(data):
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def with_crc(prefix):
    def make(rng):
        body = draw(rng, BASE62, 30)
        return prefix + body + crc_base62(body)
    return make


def routable(rng):
    payload = b"o:" + base36(rng.randrange(10**6)).encode()
    content = b64url(rng.randbytes(16) + payload + bytes([len(payload)]))
    text = "glpat-" + content + ".01." + base36(len(content)).rjust(2, "0")
    return text + base36(zlib.crc32(text.encode())).rjust(7, "0")


def aws_id(rng):
    account = rng.randrange(10**10, 10**12)
    number = (1 << 47) | (account << 7) | rng.getrandbits(7)
    return "AKIA" + base64.b32encode(number.to_bytes(6, "big") + rng.randbytes(4)).decode()[:16]


def jwt(rng, claims=None):
    head = {"alg": rng.choice(["HS256", "RS256", "ES256"]), "typ": "JWT"}
    claims = claims or {"sub": uuid4(rng), "iss": "https://id.corp-demo.net/", "exp": 1800000000 + rng.randrange(10**8)}
    parts = [b64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims)]
    return ".".join(parts + [b64url(rng.randbytes(32))])


def der(rng, length):
    """A sequence that has the length of a key and no key in it."""
    return b"\x30\x82" + length.to_bytes(2, "big") + b"\x02\x01\x00" + rng.randbytes(length - 3)


def pem(rng, label="RSA PRIVATE KEY", length=None):
    body = b64(der(rng, length or rng.choice([294, 600, 1190])))
    if label.startswith("OPENSSH"):
        body = b64(b"openssh-key-v1\0\0\0\0\x04none\0\0\0\x04none\0\0\0\0\0\0\0\x01" + rng.randbytes(320))
    lines = [body[at:at + 64] for at in range(0, len(body), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----"])


def base58check(data):
    data += hashlib.sha256(hashlib.sha256(data).digest()).digest()[:4]
    number, digits = int.from_bytes(data, "big"), ""
    while number:
        number, rest = divmod(number, 58)
        digits = BASE58[rest] + digits
    return digits


def age(rng):
    """A secret key of age: bech32 with its checksum."""
    bits = int.from_bytes(rng.randbytes(32), "big") << 4
    data = [bits >> 5 * (51 - at) & 31 for at in range(52)]
    prefix = "age-secret-key-"
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + data + [0] * 6
    check = 1
    for value in values:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, factor in enumerate([0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]):
            check ^= factor if top >> bit & 1 else 0
    check ^= 1
    data += [check >> 5 * (5 - at) & 31 for at in range(6)]
    return (prefix + "1" + "".join(BECH32[value] for value in data)).upper()


def of(*parts):
    """Joins texts and pairs of alphabet and count into one maker."""
    def make(rng):
        return "".join(part if isinstance(part, str) else inner(rng, *part) if part[1] > 2 else draw(rng, *part)
                       for part in parts)
    return make


def any_of(*makers):
    return lambda rng: rng.choice(makers)(rng)


def kinds():
    """Every kind: name, names of variables, maker. Names without a vendor are given only where the shape has a mark."""
    k = []

    def kind(name, names, *parts):
        maker = parts[0] if len(parts) == 1 and callable(parts[0]) else of(*parts)
        k.append((name, names.split(), maker))

    # Clouds.
    kind("aws-access-key-id", "AWS_ACCESS_KEY_ID aws_access_key_id accessKeyId", aws_id)
    kind("aws-secret-key", "AWS_SECRET_ACCESS_KEY aws_secret_access_key awsSecretKey", lambda r: b64(r.randbytes(30)))
    kind("aws-appsync", "APPSYNC_API_KEY appsync_key", "da2-", (LOWER + DIGITS, 26))
    kind("google-api-key", "GOOGLE_API_KEY maps_key googleKey", "AIza", (URLSAFE, 35))
    kind("google-oauth-secret", "GOOGLE_CLIENT_SECRET oauth_client_secret", "GOCSPX-", (URLSAFE, 28))
    kind("google-refresh", "GOOGLE_REFRESH_TOKEN refresh_token", "1//0", (URLSAFE, 99))
    kind("google-access", "GOOGLE_ACCESS_TOKEN access_token", "ya29.a0", (URLSAFE, 180))
    kind("azure-storage", "AZURE_STORAGE_KEY storage_account_key", lambda r: b64(r.randbytes(64)))
    kind("azure-storage-connection", "AZURE_STORAGE_CONNECTION_STRING storageConnection", lambda r: "DefaultEndpointsProtocol=https;AccountName=corp" + draw(r, LOWER, 5) + ";AccountKey=" + b64(r.randbytes(64)) + ";EndpointSuffix=core.windows.net")
    kind("azure-ad", "AZURE_CLIENT_SECRET client_secret", (BASE62, 3), "8Q~", (URLSAFE + ".~", 34))
    kind("azure-devops", "AZURE_DEVOPS_PAT azure_devops_token", lambda r: draw(r, BASE32.lower(), 52))
    kind("azure-devops-new", "AZURE_DEVOPS_EXT_PAT pat", (BASE62, 76), "AZDO", (BASE62, 4))
    kind("azure-servicebus", "SERVICEBUS_CONNECTION bus_connection", lambda r: "Endpoint=sb://corp.servicebus.windows.net/;SharedAccessKeyName=RootManageSharedAccessKey;SharedAccessKey=" + b64(r.randbytes(32)))
    kind("azure-openai", "AZURE_OPENAI_API_KEY azure_openai_key", (HEX, 32))
    kind("azure-sas", "BLOB_URL sas_url", lambda r: f"https://corp.blob.core.windows.net/data?sv=2024-11-04&ss=b&srt=co&sp=rl&se=2027-05-01T00:00:00Z&st=2026-01-01T00:00:00Z&spr=https&sig={b64(r.randbytes(32)).replace('+', '%2B').replace('/', '%2F').replace('=', '%3D')}")
    kind("alibaba", "ALIBABA_ACCESS_KEY_ID access_key_id", "LTAI5t", (BASE62, 18))
    kind("tencent", "TENCENT_SECRET_ID secret_id", "AKID", (BASE62, 32))
    kind("digitalocean", "DIGITALOCEAN_ACCESS_TOKEN do_token", any_of(of("dop_v1_", (HEX, 64)), of("doo_v1_", (HEX, 64)), of("dor_v1_", (HEX, 64))))
    kind("linode", "LINODE_TOKEN linode_api_token linodeToken", (HEX, 64))
    kind("hetzner", "HCLOUD_TOKEN hetzner_api_token", (BASE62, 64))
    kind("scaleway", "SCW_SECRET_KEY scaleway_secret_key", uuid4)
    kind("vultr", "VULTR_API_KEY vultr_api_key", (UPPER + DIGITS, 36))
    kind("ovh", "OVH_APPLICATION_SECRET ovh_consumer_key", (BASE62, 32))
    kind("ibm-cloud", "IBMCLOUD_API_KEY ibm_cloud_api_key", (URLSAFE, 44))
    kind("exoscale", "EXOSCALE_API_KEY exoscale_key", "EXO", (HEX, 24))
    kind("cloudflare", "CLOUDFLARE_API_TOKEN cloudflare_api_token cloudflareToken", (URLSAFE, 40))
    kind("cloudflare-origin-ca", "CF_ORIGIN_CA_KEY origin_ca_key", "v1.0-", (HEX, 24), "-", (HEX, 146))
    kind("fastly", "FASTLY_API_TOKEN fastly_key", (URLSAFE, 32))
    kind("heroku", "HEROKU_API_KEY heroku_api_key herokuKey", any_of(uuid4, of("HRKU-AA", (URLSAFE, 58))))
    kind("fly", "FLY_API_TOKEN fly_token", "fo1_", (URLSAFE, 43))
    kind("netlify", "NETLIFY_AUTH_TOKEN netlify_token", "nfp_", (BASE62, 40))
    kind("vercel", "VERCEL_TOKEN vercel_token", any_of(of("vcp_", (BASE62, 56)), of((BASE62, 24))))
    kind("render", "RENDER_API_KEY render_key", "rnd_", (BASE62, 28))
    kind("railway", "RAILWAY_TOKEN railway_api_token", uuid4)
    kind("supabase", "SUPABASE_ACCESS_TOKEN supabase_token", "sbp_", (HEX, 40))
    kind("supabase-secret", "SUPABASE_SECRET_KEY supabase_key", "sb_secret_", (URLSAFE, 31))
    kind("planetscale", "PLANETSCALE_TOKEN pscale_token", any_of(of("pscale_tkn_", (URLSAFE, 43)), of("pscale_pw_", (URLSAFE, 43)), of("pscale_oauth_", (URLSAFE, 43))))
    kind("neon", "NEON_API_KEY neon_key", "napi_", (LOWER + DIGITS, 64))
    kind("databricks", "DATABRICKS_TOKEN databricks_token", "dapi", (HEX, 32))
    kind("clickhouse", "CLICKHOUSE_CLOUD_SECRET clickhouse_secret", "4b1d", (BASE62, 38))
    kind("atlas", "MONGODB_ATLAS_PRIVATE_KEY atlas_private_key", uuid4)
    kind("mongodb-sa", "ATLAS_CLIENT_SECRET client_secret", "mdb_sa_sk_", (URLSAFE, 40))
    # Source and CI.
    for prefix, name in [("ghp_", "pat"), ("gho_", "oauth"), ("ghu_", "user"), ("ghs_", "server"), ("ghr_", "refresh")]:
        kind("github-" + name, "GITHUB_TOKEN github_token GH_TOKEN token", with_crc(prefix))
    kind("github-fine", "GITHUB_TOKEN github_pat", "github_pat_", (BASE62, 22), "_", (BASE62, 59))
    kind("gitlab", "GITLAB_TOKEN gitlab_token CI_TOKEN", any_of(of("glpat-", (URLSAFE, 20)), routable))
    for prefix, name, count in [("glrt-", "runner", 20), ("gldt-", "deploy", 20), ("glcbt-", "job", 24), ("glptt-", "trigger", 40), ("glft-", "feed", 20), ("glimt-", "mail", 25), ("glagent-", "agent", 50), ("glsoat-", "scim", 20), ("GR1348941", "registration", 20)]:
        kind("gitlab-" + name, "GITLAB_TOKEN runner_token", prefix, (URLSAFE if prefix != "glptt-" else HEX, count))
    kind("bitbucket", "BITBUCKET_APP_PASSWORD bitbucket_password", "ATBB", (BASE62, 24), (DIGITS + "ABCDEF", 8))
    kind("atlassian", "ATLASSIAN_API_TOKEN jira_token", "ATATT3xFfGF0", (URLSAFE, 171), "=", (DIGITS + "ABCDEF", 8))
    kind("jira-old", "JIRA_API_TOKEN jira_api_token", (BASE62, 24))
    kind("gitea", "GITEA_TOKEN gitea_token", (HEX, 40))
    kind("npm", "NPM_TOKEN npm_token", with_crc("npm_"))
    kind("pypi", "PYPI_TOKEN TWINE_PASSWORD pypi_token", lambda r: "pypi-AgEIcHlwaS5vcmc" + inner(r, URLSAFE, 152))
    kind("rubygems", "RUBYGEMS_API_KEY rubygems_key", "rubygems_", (HEX, 48))
    kind("rust-registry", "CARGO_REGISTRY_TOKEN cargo_token", "cio", (BASE62, 32))
    kind("nuget", "NUGET_API_KEY nuget_key", "oy2", (LOWER + DIGITS, 43))
    kind("docker-hub", "DOCKERHUB_TOKEN docker_token", any_of(of("dckr_pat_", (URLSAFE, 27)), of("dckr_oat_", (URLSAFE, 32))))
    kind("jfrog", "ARTIFACTORY_API_KEY artifactory_key", "AKCp8", (BASE62, 68))
    kind("clojars", "CLOJARS_TOKEN clojars_token", "CLOJARS_", (LOWER + DIGITS, 60))
    kind("circleci", "CIRCLECI_TOKEN circle_token", "CCIPAT_", (BASE58, 22), "_", (HEX, 40))
    kind("buildkite", "BUILDKITE_API_TOKEN buildkite_token", "bkua_", (HEX, 40))
    kind("jenkins", "JENKINS_API_TOKEN jenkins_token", "11", (HEX, 32))
    kind("codecov", "CODECOV_TOKEN codecov_token", uuid4)
    kind("sonarqube", "SONAR_TOKEN sonar_token", any_of(of("squ_", (HEX, 40)), of("sqp_", (HEX, 40)), of("sqa_", (HEX, 40))))
    kind("snyk", "SNYK_TOKEN snyk_token", uuid4)
    kind("terraform-cloud", "TFE_TOKEN terraform_token", (BASE62, 14), ".atlasv1.", (BASE62, 67))
    kind("pulumi", "PULUMI_ACCESS_TOKEN pulumi_token", "pul-", (HEX, 40))
    kind("vault", "VAULT_TOKEN vault_token", any_of(of("hvs.CAESI", (URLSAFE, 90)), of("hvs.", (BASE62, 24)), of("hvb.AAAAAQ", (URLSAFE, 130)), of("s.", (BASE62, 24))))
    kind("doppler", "DOPPLER_TOKEN doppler_token", any_of(of("dp.pt.", (BASE62, 43)), of("dp.st.prd.", (BASE62, 43)), of("dp.sa.", (BASE62, 43))))
    kind("infisical", "INFISICAL_TOKEN infisical_token", "st.", (HEX, 24), ".", (HEX, 32), ".", (HEX, 32))
    kind("1password", "OP_SERVICE_ACCOUNT_TOKEN op_token", lambda r: "ops_" + b64url(json.dumps({"signInAddress": "corp.1password.com", "userAuth": {"method": "SRPg-4096"}, "email": "x@1passwordserviceaccounts.com", "srpX": draw(r, HEX, 64), "muk": {"k": b64url(r.randbytes(32))}}).encode()))
    kind("octopus", "OCTOPUS_API_KEY octopus_key", "API-", (UPPER + DIGITS, 26))
    kind("harness", "HARNESS_API_KEY harness_token", "pat.", (BASE62, 22), ".", (HEX, 24), ".", (BASE62, 20))
    kind("prefect", "PREFECT_API_KEY prefect_key", "pnu_", (BASE62, 36))
    kind("openshift", "OPENSHIFT_TOKEN oc_token", "sha256~", (URLSAFE, 43))
    kind("rancher", "RANCHER_TOKEN rancher_token", "token-", (LOWER + DIGITS, 5), ":", (LOWER + DIGITS, 54))
    kind("k8s-jwt", "K8S_TOKEN service_account_token", lambda r: jwt(r, {"iss": "kubernetes/serviceaccount", "kubernetes.io/serviceaccount/namespace": "ci", "sub": "system:serviceaccount:ci:deploy"}))
    # AI.
    kind("openai", "OPENAI_API_KEY openai_key openaiApiKey", any_of(of("sk-proj-", (URLSAFE, 74), "T3BlbkFJ", (URLSAFE, 74)), of("sk-", (BASE62, 20), "T3BlbkFJ", (BASE62, 20)), of("sk-svcacct-", (URLSAFE, 74), "T3BlbkFJ", (URLSAFE, 74))))
    kind("anthropic", "ANTHROPIC_API_KEY anthropic_key", any_of(of("sk-ant-api03-", (URLSAFE, 93), "AA"), of("sk-ant-admin01-", (URLSAFE, 93), "AA"), of("sk-ant-oat01-", (URLSAFE, 93), "AA")))
    kind("huggingface", "HF_TOKEN huggingface_token", "hf_", (LOWER + UPPER, 34))
    kind("cohere", "COHERE_API_KEY cohere_key", (BASE62, 40))
    kind("mistral", "MISTRAL_API_KEY mistral_key", (BASE62, 32))
    kind("deepseek", "DEEPSEEK_API_KEY deepseek_key", "sk-", (HEX, 32))
    kind("together", "TOGETHER_API_KEY together_key", (HEX, 64))
    kind("groq", "GROQ_API_KEY groq_key", "gsk_", (BASE62, 52))
    kind("xai", "XAI_API_KEY xai_key", "xai-", (BASE62, 80))
    kind("perplexity", "PERPLEXITY_API_KEY pplx_key", "pplx-", (BASE62, 48))
    kind("openrouter", "OPENROUTER_API_KEY openrouter_key", "sk-or-v1-", (HEX, 64))
    kind("replicate", "REPLICATE_API_TOKEN replicate_token", "r8_", (BASE62, 37))
    kind("cerebras", "CEREBRAS_API_KEY cerebras_key", "csk-", (LOWER + DIGITS, 48))
    kind("nvidia", "NVIDIA_API_KEY nvidia_key", "nvapi-", (URLSAFE, 64))
    kind("langsmith", "LANGSMITH_API_KEY langsmith_key", "lsv2_pt_", (HEX, 32), "_", (HEX, 10))
    kind("langfuse", "LANGFUSE_SECRET_KEY langfuse_secret", lambda r: "sk-lf-" + uuid4(r))
    kind("wandb", "WANDB_API_KEY wandb_key", (HEX, 40))
    kind("elevenlabs", "ELEVENLABS_API_KEY elevenlabs_key", "sk_", (HEX, 48))
    kind("stability", "STABILITY_API_KEY stability_key", "sk-", (BASE62, 48))
    kind("pinecone", "PINECONE_API_KEY pinecone_key", any_of(of("pcsk_", (BASE62, 6), "_", (BASE62, 63)), uuid4))
    kind("deepgram", "DEEPGRAM_API_KEY deepgram_key", (HEX, 40))
    kind("assemblyai", "ASSEMBLYAI_API_KEY assemblyai_key", (HEX, 32))
    kind("tavily", "TAVILY_API_KEY tavily_key", "tvly-", (BASE62, 32))
    kind("firecrawl", "FIRECRAWL_API_KEY firecrawl_key", "fc-", (HEX, 32))
    # Money.
    kind("stripe", "STRIPE_SECRET_KEY stripe_key stripeKey", any_of(of("sk_live_", (BASE62, 24)), of("sk_live_51", (BASE62, 97)), of("rk_live_51", (BASE62, 97))))
    kind("stripe-webhook", "STRIPE_WEBHOOK_SECRET webhook_secret", "whsec_", (BASE62, 32))
    kind("square", "SQUARE_ACCESS_TOKEN square_token", any_of(of("sq0atp-", (URLSAFE, 22)), of("sq0csp-", (URLSAFE, 43)), of("EAAAE", (URLSAFE, 59))))
    kind("braintree", "BRAINTREE_ACCESS_TOKEN braintree_token", "access_token$production$", (LOWER + DIGITS, 16), "$", (HEX, 32))
    kind("paystack", "PAYSTACK_SECRET_KEY paystack_key", "sk_live_", (HEX, 40))
    kind("flutterwave", "FLW_SECRET_KEY flutterwave_key", "FLWSECK-", (HEX, 32), "-X")
    kind("razorpay", "RAZORPAY_KEY_ID razorpay_key", "rzp_live_", (BASE62, 14))
    kind("plaid", "PLAID_SECRET plaid_secret", (HEX, 30))
    kind("binance", "BINANCE_API_SECRET binance_secret", (BASE62, 64))
    kind("kraken", "KRAKEN_PRIVATE_KEY kraken_private_key", lambda r: b64(r.randbytes(64)))
    kind("mollie", "MOLLIE_API_KEY mollie_key", "live_", (BASE62, 30))
    kind("gocardless", "GOCARDLESS_ACCESS_TOKEN gocardless_token", "live_", (URLSAFE, 40))
    kind("shippo", "SHIPPO_API_TOKEN shippo_token", "shippo_live_", (HEX, 40))
    kind("shopify", "SHOPIFY_ACCESS_TOKEN shopify_token", any_of(*[of(prefix, (HEX, 32)) for prefix in ["shpat_", "shpca_", "shppa_", "shpss_"]]))
    kind("ethereum", "ETH_PRIVATE_KEY private_key deployerPrivateKey", lambda r: r.choice(["", "0x"]) + draw(r, HEX, 64))
    kind("bitcoin-wif", "BTC_PRIVATE_KEY wif wallet_private_key", lambda r: base58check(b"\x80" + r.randbytes(32) + b"\x01"))
    # Messages and mail.
    kind("slack-bot", "SLACK_BOT_TOKEN slack_token", "xoxb-", ("123456789", 1), (DIGITS, 11), "-", ("123456789", 1), (DIGITS, 12), "-", (BASE62, 24))
    kind("slack-user", "SLACK_TOKEN slack_user_token", "xoxp-", ("123456789", 1), (DIGITS, 11), "-", ("123456789", 1), (DIGITS, 11), "-", ("123456789", 1), (DIGITS, 12), "-", (HEX, 32))
    kind("slack-app", "SLACK_APP_TOKEN slack_app_token", "xapp-1-A0", (UPPER + DIGITS, 9), "-", ("123456789", 1), (DIGITS, 12), "-", (HEX, 64))
    kind("slack-hook", "SLACK_WEBHOOK_URL slack_webhook", "https://hooks.slack.com/services/T0", (UPPER + DIGITS, 9), "/B0", (UPPER + DIGITS, 9), "/", (BASE62, 24))
    kind("discord-bot", "DISCORD_TOKEN bot_token", lambda r: b64url(str(r.randrange(10**17, 10**18)).encode()) + "." + inner(r, URLSAFE, 6) + "." + inner(r, URLSAFE, 38))
    kind("discord-hook", "DISCORD_WEBHOOK_URL discord_webhook", lambda r: f"https://discord.com/api/webhooks/{r.randrange(10**17, 10**18)}/{inner(r, URLSAFE, 68)}")
    kind("telegram", "TELEGRAM_BOT_TOKEN telegram_token", ("123456789", 1), (DIGITS, 9), ":AA", (URLSAFE, 33))
    kind("twilio-key", "TWILIO_API_KEY twilio_key", "SK", (HEX, 32))
    kind("twilio-auth", "TWILIO_AUTH_TOKEN twilio_auth_token", (HEX, 32))
    kind("sendgrid", "SENDGRID_API_KEY sendgrid_key", "SG.", (URLSAFE, 22), ".", (URLSAFE, 43))
    kind("mailgun", "MAILGUN_API_KEY mailgun_key", any_of(of("key-", (HEX, 32)), of((HEX, 32), "-", (HEX, 8), "-", (HEX, 8))))
    kind("mailchimp", "MAILCHIMP_API_KEY mailchimp_key", (HEX, 32), "-us", ("123456789", 1))
    kind("brevo", "BREVO_API_KEY sendinblue_key", "xkeysib-", (HEX, 64), "-", (BASE62, 16))
    kind("postmark", "POSTMARK_SERVER_TOKEN postmark_token", uuid4)
    kind("resend", "RESEND_API_KEY resend_key", "re_", (BASE62, 8), "_", (BASE62, 24))
    kind("mandrill", "MANDRILL_API_KEY mandrill_key", "md-", (URLSAFE, 22))
    kind("teams-hook", "TEAMS_WEBHOOK_URL teams_webhook", lambda r: f"https://corp.webhook.office.com/webhookb2/{uuid4(r)}@{uuid4(r)}/IncomingWebhook/{draw(r, HEX, 32)}/{uuid4(r)}")
    kind("zendesk", "ZENDESK_API_TOKEN zendesk_token", (BASE62, 40))
    kind("mattermost", "MATTERMOST_TOKEN mattermost_token", (LOWER + DIGITS, 26))
    kind("feishu-hook", "FEISHU_WEBHOOK lark_webhook", lambda r: "https://open.feishu.cn/open-apis/bot/v2/hook/" + uuid4(r))
    # Observability.
    kind("datadog", "DATADOG_API_KEY dd_api_key datadogApiKey", (HEX, 32))
    kind("datadog-app", "DATADOG_APP_KEY datadog_app_key", (HEX, 40))
    kind("newrelic", "NEW_RELIC_API_KEY newrelic_key", any_of(of("NRAK-", (UPPER + DIGITS, 27)), of((HEX, 36), "NRAL"), of("NRII-", (URLSAFE, 32))))
    kind("grafana-sa", "GRAFANA_TOKEN grafana_token", lambda r: (lambda body: f"{body}_{zlib.crc32(body.encode()):08x}")("glsa_" + draw(r, BASE62, 32)))
    kind("grafana-cloud", "GRAFANA_CLOUD_TOKEN grafana_cloud", lambda r: "glc_" + b64(json.dumps({"o": "12345", "n": "ci", "k": draw(r, BASE62, 24), "m": {"r": "eu"}}, separators=(",", ":")).encode()))
    kind("sentry-org", "SENTRY_AUTH_TOKEN sentry_token", lambda r: "sntrys_" + b64(json.dumps({"iat": 1790000000.5, "url": "https://sentry.io", "region_url": "https://de.sentry.io", "org": "corp"}, separators=(",", ":")).encode()) + "_" + inner(r, BASE62, 43))
    kind("sentry-user", "SENTRY_AUTH_TOKEN sentry_token", "sntryu_", (HEX, 64))
    kind("pagerduty", "PAGERDUTY_API_KEY pagerduty_token", "u+", (BASE62, 18))
    kind("opsgenie", "OPSGENIE_API_KEY opsgenie_key", uuid4)
    kind("splunk", "SPLUNK_HEC_TOKEN splunk_token", uuid4)
    kind("dynatrace", "DYNATRACE_TOKEN dt_token", "dt0c01.", (BASE32, 24), ".", (BASE32, 64))
    kind("rollbar", "ROLLBAR_ACCESS_TOKEN rollbar_token", (HEX, 32))
    kind("launchdarkly", "LAUNCHDARKLY_SDK_KEY launchdarkly_key", lambda r: r.choice(["sdk-", "api-"]) + uuid4(r))
    kind("posthog", "POSTHOG_API_KEY posthog_key", "phx_", (BASE62, 43))
    kind("algolia", "ALGOLIA_ADMIN_KEY algolia_admin_key", (HEX, 32))
    kind("mapbox", "MAPBOX_SECRET_TOKEN mapbox_token", lambda r: "sk." + b64url(json.dumps({"u": "corp", "a": draw(r, LOWER + DIGITS, 25)}).encode()) + "." + inner(r, URLSAFE, 22))
    kind("tailscale", "TS_AUTHKEY tailscale_key", "tskey-auth-k", (BASE62, 10), "CNTRL-", (BASE62, 32))
    kind("ngrok", "NGROK_AUTHTOKEN ngrok_token", "2", (BASE62, 26), "_", (BASE62, 21))
    # SaaS.
    kind("airtable", "AIRTABLE_TOKEN airtable_pat", "pat", (BASE62, 14), ".", (HEX, 64))
    kind("notion", "NOTION_TOKEN notion_key", any_of(of("ntn_", (DIGITS, 11), (BASE62, 35)), of("secret_", (BASE62, 43))))
    kind("linear", "LINEAR_API_KEY linear_key", "lin_api_", (BASE62, 40))
    kind("asana", "ASANA_TOKEN asana_pat", lambda r: f"2/{r.randrange(10**15, 10**16)}/{r.randrange(10**15, 10**16)}:{draw(r, HEX, 32)}")
    kind("clickup", "CLICKUP_TOKEN clickup_token", "pk_", ("123456789", 1), (DIGITS, 7), "_", (UPPER + DIGITS, 32))
    kind("figma", "FIGMA_TOKEN figma_token", "figd_", (URLSAFE, 40))
    kind("dropbox", "DROPBOX_TOKEN dropbox_token", "sl.", (URLSAFE, 138))
    kind("contentful", "CONTENTFUL_MANAGEMENT_TOKEN contentful_token", "CFPAT-", (URLSAFE, 43))
    kind("typeform", "TYPEFORM_TOKEN typeform_token", "tfp_", (URLSAFE, 59))
    kind("hubspot", "HUBSPOT_TOKEN hubspot_token", lambda r: r.choice(["pat-na1-", "pat-eu1-"]) + uuid4(r))
    kind("salesforce", "SALESFORCE_ACCESS_TOKEN sf_token", "00D", (BASE62, 12), "!AQ", (BASE62 + "._", 94))
    kind("okta", "OKTA_API_TOKEN okta_token", "00", (URLSAFE, 40))
    kind("auth0", "AUTH0_CLIENT_SECRET auth0_secret", (URLSAFE, 64))
    kind("facebook", "FACEBOOK_ACCESS_TOKEN fb_token", "EAA", (BASE62, 180))
    kind("twitter-bearer", "TWITTER_BEARER_TOKEN bearer", "A" * 22, (BASE62, 8), "%2B", (BASE62, 30), "%3D", (BASE62, 40))
    kind("postman", "POSTMAN_API_KEY postman_key", "PMAK-", (HEX, 24), "-", (HEX, 34))
    kind("rapidapi", "RAPIDAPI_KEY x_rapidapi_key", (HEX, 10), "msh", (HEX, 15), "p1", (HEX, 6), "jsn", (HEX, 12))
    kind("virustotal", "VIRUSTOTAL_API_KEY virustotal_key", (HEX, 64))
    kind("duffel", "DUFFEL_ACCESS_TOKEN duffel_token", "duffel_live_", (URLSAFE, 43))
    kind("easypost", "EASYPOST_API_KEY easypost_key", "EZAK", (HEX, 32), (BASE62, 22))
    # Keys and tokens of standard form.
    kind("age", "AGE_SECRET_KEY age_key", age)
    kind("jwt", "ACCESS_TOKEN id_token session", jwt)
    for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "DSA PRIVATE KEY"]:
        kind("pem-" + label.split()[0].lower(), "private_key", lambda r, label=label: pem(r, label))
    for scheme in ["postgres", "postgresql", "mysql", "mongodb", "mongodb+srv", "redis", "amqp", "mssql", "ldap", "smtp", "ftp"]:
        kind("url-" + scheme, "DATABASE_URL dsn connection_url", lambda r, scheme=scheme: f"{scheme}://app:{draw(r, BASE62, r.randrange(10, 20))}@db{r.randrange(9)}.corp-demo.net:5432/app")
    return k
