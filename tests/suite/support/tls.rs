//! A TLS proxy in front of a server without TLS, with a certificate of an authority that nobody knows.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};

/// The certificate that the proxy shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shown {
    Valid,
    /// Since the end of 2020.
    Expired,
    /// Until the year 2100.
    NotYetValid,
    ForAnotherHost,
    SelfSigned,
}

/// Accepts TLS connections for the server at this local port until the tests end. Returns the proxy's own port, and the
/// certificate as PEM of whoever signed its own.
pub fn in_front_of(port: u16, shown: Shown) -> (u16, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key can be made");
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority can be made");
    let key = key();
    let name = if shown == Shown::ForAnotherHost { "other.example" } else { "127.0.0.1" };
    let mut certificate = CertificateParams::new([name.to_owned()]).expect("a name or an address");
    match shown {
        Shown::Expired => certificate.not_after = date_time_ymd(2020, 12, 31),
        Shown::NotYetValid => certificate.not_before = date_time_ymd(2100, 1, 1),
        _ => {}
    }
    let (certificate, signer) = match shown {
        Shown::SelfSigned => {
            let certificate = certificate.self_signed(&key).expect("a key can sign");
            (certificate.clone(), certificate.pem())
        }
        _ => (certificate.signed_by(&key, &authority).expect("the authority can sign"), authority.pem()),
    };
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("the certificate is the key's");
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let own = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let config = Arc::clone(&config);
            thread::spawn(move || {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { return };
                let tls = ServerConnection::new(config).expect("the configuration is complete");
                // Either side may leave at any time; then the connection is over.
                let _ = converse(&Mutex::new(tls), &client, &server);
            });
        }
    });
    (own, signer)
}

/// Decrypts what the client sends and passes it to the server, and back.
fn converse(tls: &Mutex<ServerConnection>, mut client: &TcpStream, mut server: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = answer(tls, client, server);
            client.shutdown(Shutdown::Both)
        });
        let asked = loop {
            let length = match client.read(&mut buffer) {
                Ok(length @ 1..) => length,
                ended => break ended.map(drop),
            };
            let mut tls = tls.lock().expect("no holder panics");
            let mut encrypted = &buffer[..length];
            while !encrypted.is_empty() {
                tls.read_tls(&mut encrypted)?;
                let state = tls.process_new_packets().map_err(io::Error::other)?;
                let mut plain = vec![0; state.plaintext_bytes_to_read()];
                tls.reader().read_exact(&mut plain)?;
                server.write_all(&plain)?;
            }
            while tls.wants_write() {
                tls.write_tls(&mut client)?;
            }
        };
        server.shutdown(Shutdown::Both)?;
        asked
    })
}

/// Encrypts what the server sends and passes it to the client.
fn answer(tls: &Mutex<ServerConnection>, mut client: &TcpStream, mut server: &TcpStream) -> io::Result<()> {
    let mut buffer = [0; 1 << 14];
    loop {
        let length = server.read(&mut buffer)?;
        let mut tls = tls.lock().expect("no holder panics");
        match length {
            0 => tls.send_close_notify(),
            _ => tls.writer().write_all(&buffer[..length])?,
        }
        while tls.wants_write() {
            tls.write_tls(&mut client)?;
        }
        if length == 0 {
            return Ok(());
        }
    }
}
