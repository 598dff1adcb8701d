//! The server around the state: connections, turns, faults, and how answers leave.
//!
//! Each connection has a thread. The state has one lock, held while a request takes effect and
//! never while one waits.

use crate::api::{self, Route};
use crate::auth::{self, Caller, Sessions};
use crate::call::{Call, Dice, Outcome};
use crate::fault::{self, Action, Fault, MAINTENANCE_PAGE};
use crate::http::{self, Request, Response};
use crate::settings::Settings;
use crate::turn::{self, Claims};
use crate::world::World;
use crate::{page, schema_dump};
use std::collections::{HashMap, HashSet};
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// Where WSAPI begins; the version may be written `v2.x`.
const BASE: &str = "/slm/webservice/v2.";

/// Pieces in which a slow body leaves.
const SLOW_PIECES: u32 = 20;

/// What all threads share.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    /// Told after every arrival, effect and end of a request.
    pub changed: Condvar,
}

/// Everything behind the lock.
#[derive(Debug)]
pub struct State {
    pub world: World,
    pub settings: Settings,
    pub faults: Vec<Fault>,
    pub log: Vec<Request>,
    pub dice: Dice,
    pub claims: Claims,
    /// Requests in work for each user.
    pub turns: HashMap<u64, usize>,
    pub in_work: usize,
    pub max_concurrent: usize,
    pub is_stopping: bool,
    sessions: Sessions,
    connections: HashMap<u64, TcpStream>,
    connections_made: u64,
}

impl Default for State {
    fn default() -> State {
        let settings = Settings::default();
        State {
            world: World::default(),
            faults: Vec::new(),
            log: Vec::new(),
            dice: Dice(settings.conflict_seed),
            settings,
            claims: Claims::default(),
            turns: HashMap::new(),
            in_work: 0,
            max_concurrent: 0,
            is_stopping: false,
            sessions: Sessions::default(),
            connections: HashMap::new(),
            connections_made: 0,
        }
    }
}

/// How an answer leaves.
enum Outgoing {
    Whole(Response),
    /// Half of the body, then the end of the connection.
    Half(Response),
    Slow(Response, Duration),
    /// The end of the connection.
    Cut,
    /// Nothing, until the client leaves.
    Hang,
}

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A test that panics while it looks at the world has left it in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes connections until the server stops.
    pub fn accept(self: &Arc<Shared>, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.lock().is_stopping {
                return;
            }
            let Ok(stream) = stream else { continue };
            let shared = Arc::clone(self);
            std::thread::spawn(move || shared.serve(stream));
        }
    }

    /// Ends all connections and all waiting.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_stopping = true;
        for stream in state.connections.values() {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.changed.notify_all();
    }

    /// Waits, unless the server stops.
    pub fn pause(&self, time: Duration) {
        let end = Instant::now() + time;
        let mut state = self.lock();
        while !state.is_stopping {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn serve(&self, stream: TcpStream) {
        let Some(number) = self.enter(&stream) else {
            return;
        };
        // The client left, or sent what is no HTTP: either way the connection is over.
        let _ = self.converse(&stream);
        let _ = stream.shutdown(Shutdown::Both);
        self.lock().connections.remove(&number);
    }

    fn enter(&self, stream: &TcpStream) -> Option<u64> {
        let mut state = self.lock();
        if state.is_stopping {
            return None;
        }
        state.connections_made += 1;
        let number = state.connections_made;
        state.connections.insert(number, stream.try_clone().ok()?);
        Some(number)
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        while let Some(mut request) = http::read(&mut reader, &mut writer)? {
            let is_api = localize(&mut request);
            let outgoing = self.handle(&request, is_api, stream);
            if !self.send(outgoing, &request, writer)? || request.closes_connection() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Sends an answer; returns whether the connection goes on.
    fn send(&self, outgoing: Outgoing, request: &Request, mut stream: &TcpStream) -> io::Result<bool> {
        match outgoing {
            Outgoing::Whole(response) => {
                let (mut bytes, body) = response.encode(request);
                bytes.extend(body);
                stream.write_all(&bytes)?;
                Ok(true)
            }
            Outgoing::Half(response) => {
                let (mut bytes, body) = response.encode(request);
                bytes.extend(&body[..body.len() / 2]);
                stream.write_all(&bytes)?;
                Ok(false)
            }
            Outgoing::Slow(response, time) => {
                let (head, body) = response.encode(request);
                stream.write_all(&head)?;
                for piece in body.chunks(body.len() / SLOW_PIECES as usize + 1) {
                    self.pause(time / SLOW_PIECES);
                    stream.write_all(piece)?;
                }
                Ok(true)
            }
            Outgoing::Cut | Outgoing::Hang => Ok(false),
        }
    }

    fn handle(&self, request: &Request, is_api: bool, stream: &TcpStream) -> Outgoing {
        if !is_api {
            return Outgoing::Whole(self.outside(request));
        }
        let action = self.arrive(request);
        if let Some(Action::EffectAfterLeave(time)) = &action {
            wait_for_leave(stream);
            self.pause(*time);
        }
        let outgoing = self.work(request, action);
        if matches!(outgoing, Outgoing::Hang) {
            wait_for_leave(stream);
        }
        // Before the answer leaves: the next request of a client may be here before we go on.
        let mut state = self.lock();
        state.in_work -= 1;
        self.changed.notify_all();
        outgoing
    }

    /// Answers what is not WSAPI: the page for people, and the schema.
    fn outside(&self, request: &Request) -> Response {
        let state = self.lock();
        match request.path.as_str() {
            "/" => Response::html(200, &page::render(&state.world)),
            path if path.starts_with(schema_dump::BASE) => schema_dump::answer(&state.world, path, &base(request)),
            _ => Response::html(404, "<html><body><h1>Not Found</h1></body></html>"),
        }
    }

    fn arrive(&self, request: &Request) -> Option<Action> {
        let mut state = self.lock();
        state.log.push(request.clone());
        state.in_work += 1;
        state.max_concurrent = state.max_concurrent.max(state.in_work);
        self.changed.notify_all();
        fault::take(&mut state.faults, request)
    }

    fn work(&self, request: &Request, action: Option<Action>) -> Outgoing {
        let route = api::route(&request.path);
        let errors = |errors: &[String]| {
            let outcome = Outcome { errors: errors.to_vec(), ..Outcome::default() };
            Outgoing::Whole(Response::json(outcome.envelope(route.envelope()).to_string()))
        };
        match &action {
            Some(Action::Delay(time)) => self.pause(*time),
            Some(Action::Hang) => return Outgoing::Hang,
            Some(Action::CutBefore) => return Outgoing::Cut,
            Some(Action::Garbage) => return Outgoing::Whole(Response::html(200, MAINTENANCE_PAGE)),
            Some(Action::Errors(texts)) => return errors(texts),
            Some(Action::Status { code, headers, body }) => {
                let (headers, body) = (headers.clone(), body.clone());
                return Outgoing::Whole(Response { code: *code, headers, body });
            }
            _ => {}
        }
        let response = self.effect(request, &route, action.as_ref());
        match action {
            Some(Action::HangAfter) => Outgoing::Hang,
            Some(Action::CutAfter | Action::EffectAfterLeave(_)) => Outgoing::Cut,
            Some(Action::CutMidBody) => Outgoing::Half(response),
            Some(Action::SlowBody(time)) => Outgoing::Slow(response, time),
            Some(Action::GarbageAfter) => Outgoing::Whole(Response::html(200, MAINTENANCE_PAGE)),
            Some(Action::ErrorsAfter(texts)) => errors(&texts),
            Some(Action::StatusAfter { code, body }) => Outgoing::Whole(Response { code, headers: Vec::new(), body }),
            _ => Outgoing::Whole(response),
        }
    }

    /// Lets a request take effect, in its turn and in its time.
    fn effect(&self, request: &Request, route: &Route, action: Option<&Action>) -> Response {
        let (caller, settings) = {
            let mut state = self.lock();
            let State { sessions, world, settings, .. } = &mut *state;
            if request.url_length > settings.max_url {
                return Response::html(413, "<html><body>Request URI Too Long</body></html>");
            }
            (sessions.identify(world, request), settings.clone())
        };
        let Some(caller) = caller else {
            return Response::html(401, auth::UNAUTHORIZED_PAGE).with_header("WWW-Authenticate", "Basic realm=\"ALM\"");
        };
        let _turn = turn::take(self, caller.user, settings.per_user_limit);
        let claim = turn::claim(self, request);
        self.pause(settings.latency);
        let (mut response, created) = self.perform(request, route, action, &caller, &claim.busy);
        if created > 0 {
            self.pause(settings.service_time * created);
        }
        if caller.session_is_new {
            let cookie = format!("JSESSIONID={}; Path=/; HttpOnly", caller.session);
            response = response.with_header("Set-Cookie", &cookie);
        }
        response.with_header("Date", &httpdate::fmt_http_date(SystemTime::now() + settings.clock_ahead))
    }

    /// Does what the request asks for; returns how many objects that made as well.
    fn perform(
        &self,
        request: &Request,
        route: &Route,
        action: Option<&Action>,
        caller: &Caller,
        busy: &HashSet<u64>,
    ) -> (Response, u32) {
        let state = &mut *self.lock();
        let method = effective_method(request);
        let failed = |text: &str| {
            let outcome = Outcome::failed(text).envelope(route.envelope());
            (Response::json(outcome.to_string()), 0)
        };
        if let Route::Authorize = route {
            let token = state.sessions.authorize(caller, state.settings.token_lifetime);
            let outcome = Outcome::with("SecurityToken", token).envelope(route.envelope());
            return (Response::json(outcome.to_string()), 0);
        }
        if let Some(Action::ExpireToken) = action {
            state.sessions.expire(caller);
            return failed(auth::INVALID_KEY);
        }
        if method != "GET" && !state.sessions.may_write(caller, &request.query) {
            return failed(auth::INVALID_KEY);
        }
        let mut call = Call {
            world: &mut state.world,
            settings: &state.settings,
            caller,
            dice: &mut state.dice,
            parameters: &request.query,
            base: base(request),
            busy,
            newest: u64::MAX,
            created: 0,
        };
        let response = api::answer(&mut call, method, route, &request.body, action);
        let created = call.created;
        self.changed.notify_all();
        (response, created)
    }
}

/// Returns the method that is meant: long queries are posted.
pub fn effective_method(request: &Request) -> &str {
    match request.query.get("_method") {
        Some(method) if method.eq_ignore_ascii_case("GET") => "GET",
        _ => &request.method,
    }
}

fn base(request: &Request) -> String {
    let host = request.header("Host").unwrap_or("localhost");
    format!("http://{host}{BASE}0")
}

/// Takes path, query and form apart; returns whether this is a request to WSAPI.
fn localize(request: &mut Request) -> bool {
    let target = std::mem::take(&mut request.path);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    request.query = http::decode_form(query);
    let is_form =
        request.header("Content-Type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
    if is_form && request.method == "POST" {
        let form = http::decode_form(&request.body);
        if form.contains_key("_method") {
            request.query.extend(form);
        }
    }
    let local = path.strip_prefix(BASE).and_then(|rest| {
        let (version, local) = rest.split_once('/')?;
        matches!(version, "0" | "x").then(|| format!("/{}", local.to_ascii_lowercase()))
    });
    let is_api = local.is_some();
    request.path = local.unwrap_or_else(|| path.to_owned());
    if is_api && let Some(short) = request.path.strip_suffix(".js") {
        request.path = short.to_owned();
    }
    if request.path == "/batch" {
        let body: Option<serde_json::Value> = serde_json::from_str(&request.body).ok();
        let entries = body.as_ref().and_then(|body| body["Batch"].as_array());
        request.entries = entries.map_or(1, Vec::len);
    }
    is_api
}

/// Returns when the client has closed the connection, or the server has.
fn wait_for_leave(stream: &TcpStream) {
    let mut byte = [0];
    while stream.peek(&mut byte).is_ok_and(|read| read > 0) {
        // The client has sent more; it is not gone.
        std::thread::sleep(Duration::from_millis(20));
    }
}
