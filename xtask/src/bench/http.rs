//! A small HTTP/1.1 client over one kept-alive connection: enough to load a server on this machine and read its answers.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::error::{Context, Error, Result};

const PATIENCE: Duration = Duration::from_secs(120);

/// Where a server is, and the key that it asks for.
#[derive(Clone, Debug)]
pub struct Door {
    pub address: SocketAddr,
    pub key: Option<String>,
}

/// One connection.
pub struct Client {
    door: Door,
    stream: BufReader<TcpStream>,
    head: Vec<u8>,
}

/// What the server answered.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Answer {
    /// The body, unless the status says that something went wrong.
    pub fn ok(self, what: &str) -> Result<Vec<u8>> {
        if (200..300).contains(&self.status) {
            return Ok(self.body);
        }
        let said = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]).into_owned();
        Err(Error::new(format!("{what}: status {}: {said}", self.status)))
    }
}

impl Client {
    /// Connects.
    pub fn connect(door: &Door) -> Result<Self> {
        let address = door.address;
        let connect = || {
            let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok::<_, std::io::Error>(stream)
        };
        let stream = connect().context(|| format!("cannot connect to {address}"))?;
        Ok(Self { door: door.clone(), stream: BufReader::with_capacity(64 << 10, stream), head: Vec::new() })
    }

    /// Sends a GET request.
    pub fn get(&mut self, path: &str, accept: &str) -> Result<Answer> {
        self.send("GET", path, accept, None)
    }

    /// Sends a POST request with a body of the given content type.
    pub fn post(&mut self, path: &str, accept: &str, content_type: &str, body: &[u8]) -> Result<Answer> {
        self.send("POST", path, accept, Some((content_type, body)))
    }

    fn send(&mut self, method: &str, path: &str, accept: &str, content: Option<(&str, &[u8])>) -> Result<Answer> {
        let what = || format!("{method} {path}");
        self.head.clear();
        let head = &mut self.head;
        write!(head, "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n", self.door.address).context(what)?;
        if let Some(key) = &self.door.key {
            write!(head, "Authorization: Bearer {key}\r\n").context(what)?;
        }
        if let Some((content_type, body)) = content {
            write!(head, "Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len()).context(what)?;
        }
        head.extend_from_slice(b"\r\n");
        let body = content.map_or(&[][..], |(_, body)| body);
        // A small body travels in the packet of its head.
        let separate = body.len() > 16 << 10;
        if !separate {
            head.extend_from_slice(body);
        }
        let stream = self.stream.get_mut();
        stream.write_all(head).context(what)?;
        if separate {
            stream.write_all(body).context(what)?;
        }
        read_answer(&mut self.stream).context(what)
    }
}

fn read_answer(stream: &mut impl BufRead) -> Result<Answer> {
    let status_line = read_line(stream)?;
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| Error::new(format!("not an HTTP status line: `{status_line}`")))?;
    let mut length = None;
    let mut chunked = false;
    loop {
        let line = read_line(stream)?;
        let Some((name, value)) = line.split_once(':') else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse::<usize>().ok(),
            "transfer-encoding" => chunked = value.trim().eq_ignore_ascii_case("chunked"),
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let line = read_line(stream)?;
            let size = usize::from_str_radix(line.trim(), 16).context(|| format!("not a chunk size: `{line}`"))?;
            take(stream, size, &mut body)?;
            read_line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        let length = length.ok_or_else(|| Error::new("an answer without a length"))?;
        take(stream, length, &mut body)?;
    }
    Ok(Answer { status, body })
}

fn read_line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    let read = stream.read_line(&mut line).context(|| "cannot read an answer")?;
    if read == 0 {
        return Err(Error::new("the server closed the connection"));
    }
    Ok(line.trim_end().to_owned())
}

fn take(stream: &mut impl BufRead, size: usize, body: &mut Vec<u8>) -> Result<()> {
    let start = body.len();
    body.resize(start + size, 0);
    stream.read_exact(&mut body[start..]).context(|| "cannot read an answer's body")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn check(text: &str, status: u16, body: &str) {
        let answer = read_answer(&mut text.as_bytes()).unwrap();
        assert_eq!((answer.status, String::from_utf8(answer.body).unwrap().as_str()), (status, body));
    }

    #[test]
    fn answers() {
        check("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nokrest", 201, "ok");
        check("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, "abc");
        check("HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", 503, "");
        for broken in ["", "nonsense\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab"] {
            assert!(read_answer(&mut broken.as_bytes()).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(Answer { status: 503, body: b"busy".to_vec() }.ok("x").is_err());
        assert_eq!(Answer { status: 201, body: b"ok".to_vec() }.ok("x").unwrap(), b"ok");
    }
}
