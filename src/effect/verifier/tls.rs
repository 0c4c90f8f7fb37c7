//! Proves that a certificate chain and a key belong together, and that a server presents them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::Presented;
use crate::effect::step::{Outcome, Step, invalid};
use crate::effect::stream::{Stream, configuration};
use crate::effect::{Address, EffectError};
use crate::system::SecretBytes;

const PORT: u16 = 443;

impl Presented {
    pub(super) fn verify(&self, step: &Step<'_>) -> Outcome {
        let leaf = matching_pair(step.new_value()?)?;
        let Some(address) = &self.address else {
            return Ok("the certificate and the key belong together".to_owned());
        };
        let name = match (&self.server_name, address) {
            (Some(name), _) | (None, Address::Host { name, .. }) => name,
            (None, Address::Socket(_)) => return Err(invalid("a server_name is needed")),
        };
        let provider = rustls::crypto::ring::default_provider();
        let expected = Expected { leaf, algorithms: provider.signature_verification_algorithms };
        let config = configuration()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(expected))
            .with_no_client_auth();
        Stream::connect(address, PORT)?.over(name, config)?;
        Ok(format!("{address} presents the certificate"))
    }
}

/// Returns the first certificate of a value whose key belongs to it.
fn matching_pair(value: &SecretBytes) -> Result<CertificateDer<'static>, EffectError> {
    let no_key = |_| invalid("the value has no private key");
    let key = PrivateKeyDer::from_pem_slice(value.expose()).map_err(no_key)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(value.expose()).collect();
    let chain = chain.map_err(|_| invalid("the value has a malformed certificate"))?;
    let leaf = chain.first().cloned().ok_or_else(|| invalid("the value has no certificate"))?;
    let provider = rustls::crypto::ring::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|error| EffectError::Refused(format!("the pair is of no use: {error}")))?;
    Ok(leaf)
}

/// Accepts one certificate, from whoever has its key. Who has signed it is not the question.
#[derive(Debug)]
struct Expected {
    leaf: CertificateDer<'static>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Expected {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity == self.leaf {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::General("the server presents another certificate".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
