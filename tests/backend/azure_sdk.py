"""What tests/backend/azure_sdk.rs has Azure's own clients do; each function prints what it has found as JSON."""

import base64
import datetime
import json
import os
import sys

from azure.core.exceptions import HttpResponseError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.keyvault.keys import KeyClient
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm
from azure.keyvault.secrets import SecretClient

env = os.environ
# Entra's list of authorities is elsewhere.
here = {"disable_instance_discovery": True}


def credential():
    tenant, client = env["AZURE_TENANT_ID"], env["AZURE_CLIENT_ID"]
    how = env.get("HOW", "client_secret")
    if how == "client_secret":
        return ClientSecretCredential(tenant, client, env["AZURE_CLIENT_SECRET"], **here)
    if how == "client_certificate":
        return CertificateCredential(tenant, client, env["CERTIFICATE"], **here)
    if how == "workload_identity":
        return WorkloadIdentityCredential(**here)
    return ManagedIdentityCredential()


def client(**options):
    return SecretClient(env["VAULT"], credential(), retry_total=0, **options)


def refused(call):
    try:
        call()
    except HttpResponseError as error:
        inner = error.error.innererror if error.error else None
        code = [inner["code"]] if inner else []
        return " ".join([type(error).__name__, error.error.code, *code])
    return "allowed"


def secrets():
    vault = client()
    found = {}
    expires = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    one = vault.set_secret("s", "one")
    two = vault.set_secret("s", "two", content_type="text/plain", tags={"a": "b"}, expires_on=expires)
    found["current"] = vault.get_secret("S").value
    found["first"] = vault.get_secret("s", one.properties.version).value
    found["versions"] = len(list(vault.list_properties_of_secret_versions("s")))
    properties = vault.get_secret("s").properties
    found["content_type"], found["tags"] = properties.content_type, properties.tags
    found["expires"] = abs(properties.expires_on - expires) < datetime.timedelta(seconds=2)
    for n in range(59):
        vault.set_secret(f"n{n}", "x")
    pages = vault.list_properties_of_secrets(max_page_size=25).by_page()
    found["pages"] = [len(list(page)) for page in pages]
    found["missing"] = refused(lambda: vault.get_secret("nowhere"))
    vault.update_secret_properties("s", two.properties.version, enabled=False)
    found["disabled"] = refused(lambda: vault.get_secret("s"))
    vault.update_secret_properties("s", enabled=True)
    vault.begin_delete_secret("s", _polling_interval=0.01).wait()
    found["deleted"] = refused(lambda: vault.get_secret("s"))
    found["again"] = refused(lambda: vault.set_secret("s", "three"))
    found["deleted_names"] = [deleted.name for deleted in vault.list_deleted_secrets()]
    vault.begin_recover_deleted_secret("s", _polling_interval=0.01).wait()
    found["recovered"] = vault.get_secret("s").value
    vault.begin_delete_secret("s", _polling_interval=0.01).wait()
    vault.purge_deleted_secret("s")
    while refused(lambda: vault.get_deleted_secret("s")) == "allowed":
        pass
    found["purged"] = [deleted.name for deleted in vault.list_deleted_secrets()]
    found["too_long"] = refused(lambda: vault.set_secret("long", "x" * (25 * 1024 + 1)))
    found["bad_name"] = refused(lambda: vault.set_secret("bad_name", "x"))
    return found


def exchange():
    vault = client()
    found = {}
    for properties in vault.list_properties_of_secrets():
        secret = vault.get_secret(properties.name)
        found[secret.name] = [secret.value, secret.properties.content_type]
    vault.set_secret("Theirs--S", "\U0001f511 theirs", tags={"kept": "yes"})
    return found


def login():
    return client().get_secret("s").value


def keys():
    vault = KeyClient(env["VAULT"], credential())
    algorithm = KeyWrapAlgorithm.rsa_oaep_256
    version, sealed = env["WRAPPED"].split(".")
    old = CryptographyClient(vault.get_key("root", version), credential())
    opened = old.unwrap_key(algorithm, base64.urlsafe_b64decode(sealed + "==")).key
    made = vault.create_rsa_key("root")
    # This one computes with the public key itself.
    new = CryptographyClient(made, credential())
    wrapped = new.wrap_key(algorithm, b"canary-9c1d")
    sealed = base64.urlsafe_b64encode(wrapped.encrypted_key).decode().rstrip("=")
    return {"opened": opened.decode(), "wrapped": f"{made.properties.version}.{sealed}"}


print(json.dumps({"secrets": secrets, "exchange": exchange, "login": login, "keys": keys}[sys.argv[1]]()))
