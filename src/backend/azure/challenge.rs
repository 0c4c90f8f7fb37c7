//! The challenge of a vault: which resource a token has to be for, and whether this vault may ask for that.
//!
//! A token for a resource is good at every vault of it, so one that says it is for another resource than its own
//! wants somebody else's token. The authority that it names is not looked at: a credential goes to the configured
//! one alone.

use ureq::http::Uri;

use crate::backend::http::address;
use crate::backend::{BackendError, Result};

/// Returns the resource of a `WWW-Authenticate`, if `vault` may name it: it is the one that the configuration
/// has, or else the domain that the vault's host is directly below.
pub(super) fn resource(header: &str, vault: &Uri, configured: Option<&str>) -> Result<String> {
    let resource = named(header).ok_or_else(|| refused("its challenge names no resource"))?;
    let is_its_own = match configured {
        Some(configured) => resource == configured.trim_end_matches('/'),
        None => is_parent(&resource, vault),
    };
    if is_its_own {
        return Ok(resource);
    }
    Err(refused("its challenge asks for a token for another resource than its own domain"))
}

/// Reads `Bearer authorization="...", resource="..."`, where the latter may be a `scope` too.
fn named(header: &str) -> Option<String> {
    let (scheme, parameters) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let value = |wanted: &str| {
        parameters.split(',').find_map(|parameter| {
            let (name, value) = parameter.trim().split_once('=')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim_matches('"'))
        })
    };
    let scope = || Some(value("scope")?.strip_suffix("/.default").unwrap_or(value("scope")?));
    let resource = value("resource").or_else(scope)?;
    Some(resource.trim_end_matches('/').to_owned())
}

fn is_parent(resource: &str, vault: &Uri) -> bool {
    let Ok(resource) = address(resource) else { return false };
    let host = |uri: &Uri| uri.host().unwrap_or_default().to_ascii_lowercase();
    let (parent, host) = (host(&resource), host(vault));
    let has_only_this = resource.port().is_none() && resource.path() == "/";
    has_only_this && host.split_once('.').is_some_and(|(_, above)| above == parent)
}

fn refused(why: &str) -> BackendError {
    BackendError::Unauthenticated(why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(header: &str, vault: &str, configured: Option<&str>) -> Result<String> {
        resource(header, &vault.parse().unwrap(), configured)
    }

    const HEADER: &str =
        "Bearer authorization=\"https://login.example/t\", resource=\"https://vault.azure.net\"";
    const VAULT: &str = "https://corp.vault.azure.net";

    #[test]
    fn the_resource_is_the_domain_above_the_vault() {
        let expected = Ok("https://vault.azure.net".to_owned());
        assert_eq!(asked(HEADER, VAULT, None), expected);
        assert_eq!(asked(HEADER, "https://Corp.Vault.Azure.NET:443", None), expected);
        let scope = "bearer scope=\"https://vault.azure.net/.default\" , error=\"x\"";
        assert_eq!(asked(scope, VAULT, None), expected);
        let slash = HEADER.replace("azure.net\"", "azure.net/\"");
        assert_eq!(asked(&slash, VAULT, None), expected);
    }

    #[test]
    fn a_vault_that_asks_for_somebody_else_s_token_gets_none() {
        for vault in [
            "https://corp.vault.azure.net.evil.example",
            "https://corp.vaultXazure.net",
            "https://vault.azure.net",
            "https://a.corp.vault.azure.net",
            "https://127.0.0.1:8200",
        ] {
            assert!(asked(HEADER, vault, None).is_err(), "{vault}");
        }
        for resource in [
            "https://management.azure.com",
            "https://azure.net",
            "https://net",
            "https://",
            "http://vault.azure.net",
            "https://vault.azure.net:8443",
            "https://vault.azure.net/other",
            "https://vault.azure.net@evil.example",
        ] {
            let header = HEADER.replace("https://vault.azure.net", resource);
            assert!(asked(&header, VAULT, None).is_err(), "{resource}");
        }
    }

    #[test]
    fn a_configured_resource_is_the_only_one() {
        let private = "https://corp.internal.example";
        assert!(asked(HEADER, private, Some("https://vault.azure.net/")).is_ok());
        assert!(asked(HEADER, VAULT, Some("https://vault.azure.cn")).is_err());
    }

    #[test]
    fn what_is_no_challenge_gets_no_token() {
        for header in ["", "Bearer", "Basic realm=\"x\"", "Bearer realm=\"x\"", "Bearer resource"] {
            assert!(asked(header, VAULT, None).is_err(), "{header}");
        }
    }
}
