//! Checks of structure: what a secret of a known format must be besides its characters.
//!
//! A rule names a check. It gets the secret as it was matched and says whether check digits are right or the
//! content decodes. Checks are pure, take bytes of any kind and length, and never panic. Those whose format
//! has no check digits answer `Unknown` for what looks right: no evidence is not evidence.

mod base58;
mod base64;
mod bech32;
mod classes;
mod cloud;
mod crc;
mod json;
mod pem;
mod phrase;
mod service;
mod userinfo;

/// What a check found out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// Check digits are right, or the content decodes to what it must be.
    Valid,
    /// Nothing speaks against it.
    Unknown,
    /// It cannot be such a secret.
    Invalid,
}

/// One check.
pub(super) type Check = fn(&[u8]) -> Verdict;

/// Every check by its name in rules, sorted.
const CHECKS: [(&str, Check); 32] = [
    ("aws-key-id", cloud::aws_key_id),
    ("azure-key", cloud::azure_key),
    ("azure-sas", cloud::azure_sas),
    ("base58check", base58::wallet_key),
    ("base58check-soft", base58::extended_key),
    ("basic-auth", userinfo::basic_auth),
    ("bech32", bech32::age),
    ("discord", service::discord),
    ("elastic-key", service::elastic),
    ("github-crc32", crc::github),
    ("gitlab-routable", crc::gitlab),
    ("grafana-crc32", crc::grafana),
    ("jwe", json::jwe),
    ("jwt", json::jwt),
    ("jwt-kubernetes", json::kubernetes),
    ("mixed-case", classes::mixed_case),
    ("mixed-classes", classes::mixed),
    ("mixed-classes-or-hex", classes::mixed_or_hex),
    ("mixed-digits", classes::mixed_digits),
    ("mnemonic", phrase::mnemonic),
    ("nkey", crc::nkey),
    ("no-example", cloud::no_example),
    ("npm-crc32", crc::npm),
    ("password", userinfo::password),
    ("password-literal", userinfo::literal),
    ("pem", pem::pem),
    ("pem-base64", pem::wrapped),
    ("random-text", classes::text),
    ("slack", service::slack),
    ("stripe", service::stripe),
    ("telegram", service::telegram),
    ("url-password", userinfo::url_password),
];

/// Returns the check of a name.
pub(super) fn check(name: &str) -> Option<Check> {
    let index = CHECKS.binary_search_by_key(&name, |(name, _)| name).ok()?;
    CHECKS.get(index).map(|(_, check)| *check)
}

impl Verdict {
    /// Right or wrong check digits.
    fn proof(right: bool) -> Self {
        if right { Self::Valid } else { Self::Invalid }
    }

    /// Evidence for it, or none.
    fn hint(right: bool) -> Self {
        if right { Self::Valid } else { Self::Unknown }
    }

    /// Evidence against it, or none.
    fn possible(possible: bool) -> Self {
        if possible { Self::Unknown } else { Self::Invalid }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_check_is_found_by_its_name() {
        assert!(CHECKS.is_sorted_by_key(|(name, _)| *name));
        for (name, _) in CHECKS {
            assert!(check(name).is_some(), "{name}");
        }
        assert!(check("none-such").is_none());
    }

    proptest! {
        #[test]
        fn no_check_panics_on_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for (_, check) in CHECKS {
                check(&bytes);
            }
        }

        #[test]
        fn no_check_panics_on_text_of_the_kind_that_formats_have(
            head in "(ghp_|glpat-|glsa_|eyJ|xprv|AGE-SECRET-KEY-1|SU|sk_live_|xoxb-|AKIA|-----BEGIN A-----|\\{\"kty\":)?",
            body in "[A-Za-z0-9+/=_.:%\\\\\"\n -]{0,200}",
        ) {
            for (_, check) in CHECKS {
                check(format!("{head}{body}").as_bytes());
            }
        }
    }
}
