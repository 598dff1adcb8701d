//! Why a connection did not come about, in words that tell an administrator what to do.

use std::error::Error;
use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use super::Keys;
use crate::text::cut;
use crate::time::CommitTime;

/// How many names of a certificate are shown, and how much of each, in bytes.
const MAX_NAMES: usize = 5;
const MAX_NAME: usize = 100;

const WRONG_CLOCK: &str = "or this machine's clock is wrong";

/// Returns the reason for a failed connection: what TLS or a proxy says about it, else the root cause.
pub(crate) fn reason(error: &(dyn Error + 'static), keys: &Keys) -> String {
    let chain = || std::iter::successors(Some(error), |&error| error.source());
    let root = root_cause(error);
    if let Some(tls) = chain().find_map(tls_error) {
        return tls_reason(tls, keys).unwrap_or(root);
    }
    if root == "tls handshake eof" {
        return format!("it broke off the TLS handshake: {}, or no version that is still safe", no_tls(keys));
    }
    // The type of the errors of hyper-util's tunnels is not public.
    let texts = || chain().map(|error| error.to_string());
    match texts().find_map(|text| text.strip_prefix("tunnel error: ").map(str::to_owned)).as_deref() {
        None => root,
        Some("proxy authorization required") => {
            format!(
                "the proxy refuses the user name and password, or wants some; put the right ones into {}, as in \
                 \"http://user:password@proxy.example:3128\"",
                keys.proxy
            )
        }
        Some("unsuccessful") => format!(
            "the proxy refuses to connect to it; check the user name and password in {}, or ask who runs the proxy",
            keys.proxy
        ),
        Some("failed to create underlying connection") => {
            format!("the proxy cannot be reached: {root}; check {}", keys.proxies)
        }
        Some(_) => format!("the connection to the proxy broke: {root}"),
    }
}

/// Returns the last cause of an error.
pub(crate) fn root_cause(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Returns the error of TLS that this one is or holds: an I/O error is not the source of what it holds.
fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let held = || tls_error(error.downcast_ref::<io::Error>()?.get_ref()?);
    error.downcast_ref().or_else(held)
}

fn no_tls(keys: &Keys) -> String {
    format!("it may speak plain HTTP at this port (see {})", keys.server)
}

fn tls_reason(error: &rustls::Error, keys: &Keys) -> Option<String> {
    match error {
        rustls::Error::InvalidCertificate(error) => certificate_reason(error, keys),
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) | rustls::Error::PeerIncompatible(_) => {
            Some("it speaks no TLS that is still safe; it must offer TLS 1.2 or newer".into())
        }
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            Some("it offers TLS with old ciphers only, or wants a client's certificate".into())
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Some(format!("its answer is not TLS: {}", no_tls(keys)))
        }
        _ => None,
    }
}

fn certificate_reason(error: &CertificateError, keys: &Keys) -> Option<String> {
    let another_name = format!("check {}, or have the certificate replaced", keys.server);
    let date = |time: &UnixTime| CommitTime::from_seconds(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    Some(match error {
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}; have it renewed, {WRONG_CLOCK}", date(not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}, {WRONG_CLOCK}", date(not_before))
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| plain_name(name)).take(MAX_NAMES).collect();
            format!("its certificate is for {} and not for {}; {another_name}", names.join(", "), expected.to_str())
        }
        CertificateError::NotValidForName => format!("its certificate is for another name; {another_name}"),
        CertificateError::UnknownIssuer => format!(
            "its certificate is signed by itself or by an authority that this machine does not know; if that is right, set \
             {} to the authority's certificate",
            keys.ca_file
        ),
        _ => return None,
    })
}

/// Returns the name in `DnsName("rally.example")`, as rustls writes those of a certificate.
fn plain_name(written: &str) -> &str {
    let name = written.split_once('(').map_or(written, |(_, name)| name.trim_end_matches(')').trim_matches('"'));
    cut(name, MAX_NAME)
}
