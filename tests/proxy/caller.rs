//! A caller that says just what it is told, and judges how an answer ended.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No test waits longer for bytes.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How an answer's body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its length, by the last chunk, or because there is none.
    Clean,
    /// With the connection, as HTTP/1.0 does it.
    Close,
    /// It broke off.
    BrokenOff,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub end: End,
}

impl Answer {
    /// The one value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let value = values.next();
        assert!(values.next().is_none(), "{name} is repeated: {:?}", self.headers);
        value
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The code, if it is a problem of the gateway's.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        assert_eq!(problem["status"].as_u64().unwrap_or_default(), u64::from(self.status), "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert!(!problem["request_id"].as_str().unwrap().is_empty());
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// A connection to the gateway.
pub struct Caller {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// `Authorization` of a caller whose password is its name.
pub fn basic(name: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{name}:{name}")))
}

impl Caller {
    pub async fn connect(gateway: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(gateway).await.unwrap(), buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.unwrap();
    }

    /// As [`Self::send`], where the gateway may have closed the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Sends a request with a body-less head of `billing`'s and reads the answer.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "").await
    }

    /// Sends a head of `billing`'s with further header lines, and reads the answer.
    pub async fn request(&mut self, method: &str, path: &str, lines: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: gw.test\r\n{}{lines}\r\n", basic("billing"));
        self.send(head).await;
        self.answer_to(method).await
    }

    pub async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        timeout(PATIENCE, self.read_answer(method)).await.expect("an answer in time")
    }

    /// A head as it stands, without the empty line.
    pub async fn head(&mut self) -> String {
        let mut head = String::new();
        loop {
            let line = timeout(PATIENCE, self.line()).await.expect("a head in time").expect("a whole head");
            if line.is_empty() {
                return head;
            }
            head.push_str(&line);
            head.push_str("\r\n");
        }
    }

    /// The next `length` bytes, whatever they are.
    pub async fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        timeout(PATIENCE, self.take(length, &mut bytes)).await.expect("bytes in time");
        bytes
    }

    /// Everything until the gateway closes the connection.
    pub async fn until_closed(&mut self) -> String {
        timeout(PATIENCE, async { while self.more().await {} }).await.expect("an end in time");
        String::from_utf8_lossy(&self.buffer).into_owned()
    }

    /// Whether the gateway closed the connection.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0u8; 1];
        matches!(timeout(PATIENCE, self.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }

    async fn more(&mut self) -> bool {
        let mut chunk = [0u8; 16 * 1024];
        let read = self.stream.read(&mut chunk).await.unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..read]);
        read > 0
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn take(&mut self, length: usize, body: &mut Vec<u8>) -> bool {
        while self.buffer.len() < length {
            if !self.more().await {
                body.append(&mut self.buffer);
                return false;
            }
        }
        body.extend(self.buffer.drain(..length));
        true
    }

    async fn read_answer(&mut self, method: &str) -> Answer {
        let status_line = self.line().await.expect("a status line");
        let status: u16 = status_line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line().await.expect("a whole head");
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').unwrap();
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut answer = Answer { status, headers, body: Vec::new(), end: End::Clean };
        if status == 100 || method == "HEAD" || status == 204 || status == 304 {
            return answer;
        }
        let length = answer.header("content-length").map(|value| value.parse::<usize>().unwrap());
        let chunked = answer.header("transfer-encoding").is_some();
        assert!(!(chunked && length.is_some()), "ambiguous framing: {:?}", answer.headers);
        answer.end = match length {
            Some(length) if self.take(length, &mut answer.body).await => End::Clean,
            Some(_) => End::BrokenOff,
            None if chunked => self.chunks(&mut answer.body).await,
            None => {
                while self.more().await {}
                answer.body.append(&mut self.buffer);
                End::Close
            }
        };
        answer
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> End {
        loop {
            let Some(size) = self.line().await else { return End::BrokenOff };
            let size = usize::from_str_radix(&size, 16).unwrap();
            if size == 0 {
                return if self.line().await.is_some() { End::Clean } else { End::BrokenOff };
            }
            if !self.take(size, body).await || self.line().await.is_none() {
                return End::BrokenOff;
            }
        }
    }
}
