//! Just enough HTTP/1.1 for a server on the loopback address.
//!
//! Requests may be pipelined, carry a length or come in chunks; answers keep the connection open
//! unless the client wants otherwise.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

/// Longest line that is read before the connection is given up.
const MAX_LINE: u64 = 4 * 1024 * 1024;
/// Largest body that is read.
const MAX_BODY: usize = 256 * 1024 * 1024;
/// Smaller answers are not worth compressing.
const MIN_GZIP: usize = 1024;

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub method: String,
    /// Without base and query, in lower case, such as `/changeset/create`.
    pub path: String,
    /// The query string, decoded.
    pub query: BTreeMap<String, String>,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Entries of a batch, otherwise 1.
    pub entries: usize,
    pub url_length: usize,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    pub code: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.header("Cookie")?
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    pub fn closes_connection(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    fn accepts_gzip(&self) -> bool {
        self.header("Accept-Encoding").is_some_and(|value| value.contains("gzip"))
    }
}

impl Response {
    pub fn json(body: String) -> Response {
        Response::new(200, "application/json; charset=utf-8", body)
    }

    pub fn html(code: u16, body: &str) -> Response {
        Response::new(code, "text/html; charset=utf-8", body.to_owned())
    }

    fn new(code: u16, content_type: &str, body: String) -> Response {
        Response { code, headers: vec![("Content-Type".to_owned(), content_type.to_owned())], body }
    }

    pub fn with_header(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Returns the head and the body as they go over the wire.
    pub fn encode(&self, request: &Request) -> (Vec<u8>, Vec<u8>) {
        let mut body = self.body.as_bytes().to_vec();
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.code, reason(self.code));
        if body.len() > MIN_GZIP && request.accepts_gzip() {
            body = gzip(&body);
            head += "Content-Encoding: gzip\r\n";
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if request.closes_connection() {
            head += "Connection: close\r\n";
        }
        head += &format!("Content-Length: {}\r\n\r\n", body.len());
        (head.into_bytes(), body)
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory takes every byte");
    encoder.finish().expect("memory takes every byte")
}

fn reason(code: u16) -> &'static str {
    match code {
        200 => "OK",
        302 => "Found",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        524 => "A Timeout Occurred",
        _ => "Other",
    }
}

/// Reads the next request, with the whole target as its path; `None` once the client is done.
pub fn read(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<Option<Request>> {
    let first = loop {
        match read_line(reader)? {
            None => return Ok(None),
            // Some clients end a body with an empty line too many.
            Some(line) if line.is_empty() => {}
            Some(line) => break line,
        }
    };
    let mut parts = first.split(' ');
    let (Some(method), Some(target)) = (parts.next(), parts.next()) else {
        return Err(malformed("request line"));
    };
    let mut request = Request {
        method: method.to_owned(),
        path: target.to_owned(),
        url_length: target.len(),
        entries: 1,
        ..Request::default()
    };
    loop {
        let line = read_line(reader)?.ok_or_else(|| malformed("headers"))?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed("header"))?;
        request.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    if request.header("Expect").is_some() {
        writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_body(reader, &request)?;
    request.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(request))
}

fn read_body(reader: &mut impl BufRead, request: &Request) -> io::Result<Vec<u8>> {
    let is_chunked = request.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"));
    let mut body = Vec::new();
    if !is_chunked {
        let length = request.header("Content-Length").unwrap_or("0");
        let length = length.parse().map_err(|_| malformed("length"))?;
        read_into(reader, length, &mut body)?;
        return Ok(body);
    }
    loop {
        let line = read_line(reader)?.ok_or_else(|| malformed("chunk"))?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).map_err(|_| malformed("chunk"))?;
        read_into(reader, size, &mut body)?;
        if size == 0 {
            // Trailers, if any, end with an empty line.
            while read_line(reader)?.is_some_and(|line| !line.is_empty()) {}
            return Ok(body);
        }
        read_line(reader)?;
    }
}

fn read_into(reader: &mut impl BufRead, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let start = body.len();
    if length > MAX_BODY - start {
        return Err(malformed("length"));
    }
    body.resize(start + length, 0);
    reader.read_exact(&mut body[start..])
}

/// Reads a line without its end; `None` at the end of the stream.
fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Ok(None);
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

/// Decodes a query string or a form into its fields.
pub fn decode_form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

/// Undoes percent encoding, with `+` for a space.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(if bytes[at] == b'+' { b' ' } else { bytes[at] });
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Vec<Request> {
        let mut reader = text.as_bytes();
        let mut requests = Vec::new();
        while let Some(request) = read(&mut reader, &mut Vec::new()).expect("well formed") {
            requests.push(request);
        }
        requests
    }

    #[test]
    fn pipelined_requests_are_told_apart() {
        let requests = read_all(
            "POST /a HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
             PUT /b HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\n\r\n\
             GET /c HTTP/1.1\r\nCookie: a=1; JSESSIONID=x\r\n\r\n",
        );
        let seen: Vec<_> = requests.iter().map(|r| (r.path.as_str(), r.body.as_str())).collect();
        assert_eq!(seen, [("/a", "abc"), ("/b", "abcde"), ("/c", "")]);
        assert_eq!(requests[2].cookie("JSESSIONID"), Some("x"));
    }

    #[test]
    fn forms_are_decoded() {
        let form = decode_form("query=%28Name+%3D%20%22a%2Bb%22)&x&y=%zz%C3%A9&");
        assert_eq!(form["query"], "(Name = \"a+b\")");
        assert_eq!(form["x"], "");
        assert_eq!(form["y"], "%zzé");
    }

    #[test]
    fn large_answers_are_compressed_when_asked_for() {
        let mut request = Request::default();
        let answer = Response::json("x".repeat(5000));
        assert_eq!(answer.encode(&request).1.len(), 5000);
        request.headers.push(("accept-encoding".into(), "gzip".into()));
        assert!(answer.encode(&request).1.len() < 100);
        assert_eq!(Response::json("x".into()).encode(&request).1, b"x");
    }
}
