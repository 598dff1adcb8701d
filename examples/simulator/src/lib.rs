//! A simulator of Rally's WSAPI, as far as a program that posts changesets can meet it.
//!
//! It serves real HTTP on the loopback address, answers as the collected contract says that Rally
//! does, and fails on request. Tests plant faults, act, and then ask what the world holds.
//!
//! The modules, from the inside to the outside:
//! - `schema`, `date`, `reference`, `query`: the language of WSAPI; pure.
//! - `table`, `world`, `default_world`: the state; `scene`, `view`: what tests do to it and see.
//! - `filter`, `comparison`, `render`: from a query to objects, from an object to JSON.
//! - `call`, `read`, `check`, `write`, `collection`, `batch`, `api`: the handlers, thin over the
//!   state.
//! - `auth`, `turn`, `fault`, `settings`: who may, when, and what goes wrong.
//! - `http`, `server`, `schema_dump`, `page`: the outside.

mod api;
mod auth;
mod batch;
mod call;
mod check;
mod collection;
mod comparison;
mod date;
mod default_world;
mod fault;
mod filter;
#[doc(hidden)]
pub mod http;
mod page;
mod query;
mod read;
mod reference;
mod render;
mod scene;
mod schema;
mod schema_dump;
mod server;
mod settings;
mod table;
mod turn;
mod view;
mod world;
mod write;

pub use fault::{Action, Fault, Match};
pub use http::Request;
pub use settings::{Batch, Settings};
pub use view::{Change, Changeset, Repository};
pub use world::{Update, World};

use call::Dice;
use server::{Shared, State};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a wait lasts before it is given up as failed.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// A running server. When dropped it stops to accept and releases every request that hangs.
#[derive(Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
    address: SocketAddr,
    acceptor: Option<JoinHandle<()>>,
}

impl Simulator {
    /// Starts on a free port of the loopback address, with the default world.
    pub fn start() -> Simulator {
        Simulator::start_on("127.0.0.1:0").expect("the loopback address has a free port")
    }

    pub fn start_on(addr: &str) -> io::Result<Simulator> {
        let listener = TcpListener::bind(addr)?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let acceptor = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.accept(&listener)
        });
        Ok(Simulator { shared, address, acceptor: Some(acceptor) })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Looks at the world, or changes it, while no request takes effect.
    pub fn world<T>(&self, f: impl FnOnce(&mut World) -> T) -> T {
        let result = f(&mut self.shared.lock().world);
        self.shared.changed.notify_all();
        result
    }

    pub fn settings(&self, f: impl FnOnce(&mut Settings)) {
        let state = &mut *self.shared.lock();
        let seed = state.settings.conflict_seed;
        f(&mut state.settings);
        if state.settings.conflict_seed != seed {
            state.dice = Dice(state.settings.conflict_seed);
        }
        self.shared.changed.notify_all();
    }

    /// Plants a fault after those that are there.
    pub fn fault(&self, fault: Fault) {
        self.shared.lock().faults.push(fault);
    }

    pub fn clear_faults(&self) {
        self.shared.lock().faults.clear();
    }

    /// Returns the requests to WSAPI so far, in the order of their arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.lock().log.clone()
    }

    pub fn clear_requests(&self) {
        self.shared.lock().log.clear();
    }

    /// Returns how many requests were in work at one moment, at most.
    pub fn max_concurrent(&self) -> usize {
        self.shared.lock().max_concurrent
    }

    /// Waits until the world is as it should be; panics if that takes too long.
    pub fn wait_until(&self, what: &str, mut f: impl FnMut(&World) -> bool) {
        self.wait(what, |state| f(&state.world));
    }

    /// Waits until the requests are as they should be; each counts from its arrival.
    pub fn wait_for_requests(&self, what: &str, mut f: impl FnMut(&[Request]) -> bool) {
        self.wait(what, |state| f(&state.log));
    }

    /// Waits until no request is in work any more, also of clients that have left.
    pub fn wait_for_quiet(&self) {
        self.wait("the end of all requests", |state| state.in_work == 0);
    }

    fn wait(&self, what: &str, mut is_done: impl FnMut(&State) -> bool) {
        let end = Instant::now() + MAX_WAIT;
        let mut state = self.shared.lock();
        while !is_done(&state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let (world, requests) = (state.world.summary(), state.log.len());
                drop(state);
                panic!("waited in vain for {what}; the world holds {world}; {requests} requests came");
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.shared.stop();
        // The acceptor looks at the flag when the next connection comes.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}
