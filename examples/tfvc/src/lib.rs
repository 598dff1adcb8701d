//! A double of the REST interface to Team Foundation Version Control, as far as a program that reads changesets can meet it.
//!
//! No such server runs where rally-hook is developed. The double answers as recorded answers in public do (docs/tfvc.md
//! names them), and on request as servers that ignore, cut or refuse things were reported to. Tests order a fault, act, and
//! then ask what was requested.

mod answer;
mod world;

pub use rally_simulator::http::Request;
pub use world::{Change, Changeset, Fault, Person, Settings, World};

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rally_simulator::http::{self, Response};

/// The personal access token that is accepted.
pub const TOKEN: &str = "a-personal-access-token";

/// How long a wait lasts before it is given up as failed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// What all threads share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    world: World,
    requests: Vec<Request>,
    is_stopping: bool,
}

/// A running server, which ends when it is dropped.
pub struct Double {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Double {
    /// Starts on a free port of the loopback address, without changesets.
    pub fn start() -> Double {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback address has a free port");
        let address = listener.local_addr().expect("it is bound");
        let shared = Arc::new(Shared::default());
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                for stream in listener.incoming() {
                    if shared.lock().is_stopping {
                        return;
                    }
                    let shared = Arc::clone(&shared);
                    let Ok(stream) = stream else { continue };
                    std::thread::spawn(move || shared.serve(&stream));
                }
            }
        });
        Double { shared, address, acceptor: Some(acceptor) }
    }

    /// Returns the address of the collection.
    pub fn collection(&self) -> String {
        format!("http://{}{}", self.address, world::COLLECTION)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Looks at the changesets and settings, or changes them, between two requests.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let result = f(&mut self.shared.lock().world);
        self.shared.changed.notify_all();
        result
    }

    /// Returns the requests so far; the path of each is its whole target.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().requests.clone()
    }

    /// Waits until the requests are as they should be; panics if that takes too long.
    pub fn wait_for_requests(&self, what: &str, mut holds: impl FnMut(&[Request]) -> bool) {
        let end = Instant::now() + MAX_WAIT;
        let mut state = self.shared.lock();
        while !holds(&state.requests) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "waited in vain for {what}; {} requests came", state.requests.len());
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.lock().is_stopping = true;
        self.shared.changed.notify_all();
        // The acceptor looks at the flag when the next connection comes.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: &TcpStream) {
        // The client left, or sent what is no HTTP: either way the connection is over.
        let _ = self.converse(stream);
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(request) = http::read(&mut reader, &mut writer)? {
            let (response, fault) = {
                let mut state = self.lock();
                state.requests.push(request.clone());
                self.changed.notify_all();
                let base = format!("http://{}", request.header("Host").unwrap_or("localhost"));
                let fault = state.world.take_fault(&request.path);
                (answer::answer(&state.world, &request, &base), fault)
            };
            let response = match fault {
                None => response,
                Some(Fault::Hang) => return self.hang(stream),
                Some(Fault::Cut) => return Ok(()),
                Some(Fault::CutMidBody) => {
                    let (mut bytes, body) = response.encode(&request);
                    bytes.extend(&body[..body.len() / 2]);
                    return writer.write_all(&bytes);
                }
                Some(Fault::SignInPage(code)) => Response::html(code, answer::SIGN_IN_PAGE),
                Some(Fault::Status(code)) => Response { code, headers: Vec::new(), body: String::new() },
                Some(Fault::Redirect) => Response::html(302, "").with_header("Location", "/_signin?token=canary"),
                Some(Fault::Body(body)) => Response::json(body),
            };
            let (mut bytes, body) = response.encode(&request);
            bytes.extend(body);
            writer.write_all(&bytes)?;
            if request.closes_connection() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Gives no answer until the client leaves or the server ends.
    fn hang(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_millis(20)))?;
        let mut byte = [0];
        while !self.lock().is_stopping {
            match stream.peek(&mut byte) {
                Ok(0) => return Ok(()),
                Ok(_) => std::thread::sleep(Duration::from_millis(20)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}
