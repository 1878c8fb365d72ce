//! HTTP/1.1 in few lines, for both ends. Not a library's client or server, because the tests need
//! every header as it was on the wire, and control over each byte.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use url::Url;

/// No exchange of a test lasts longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Header fields in the order of the wire.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first field of this name, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All fields of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// A message head and its whole body.
#[derive(Clone, Debug, Default)]
pub struct Message {
    /// The request or status line.
    pub start: String,
    /// Its fields.
    pub headers: Headers,
    /// Its body, without transfer coding.
    pub body: Vec<u8>,
}

impl Message {
    /// The request's method.
    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// The request's target.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The request's path, without the query.
    pub fn path(&self) -> &str {
        self.target().split('?').next().unwrap_or_default()
    }

    /// The request's query as pairs.
    pub fn query(&self) -> BTreeMap<String, String> {
        form(self.target().split_once('?').map_or("", |(_, query)| query))
    }

    /// The request's body as a form.
    pub fn form(&self) -> BTreeMap<String, String> {
        form(&String::from_utf8_lossy(&self.body))
    }
}

fn form(text: &str) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Its fields.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

impl Response {
    /// The first field of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}), status {}: {}", self.status, self.text()))
    }

    /// Fails the test, showing the answer, unless its status is `expected`.
    #[track_caller]
    pub fn expect_status(self, expected: u16) -> Self {
        assert_eq!(self.status, expected, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Fails the test unless it is a problem of the gateway's own (RFC 9457) with this code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> serde_json::Value {
        let answer = self.expect_status(status);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{}", answer.text());
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        for member in ["type", "title", "detail", "request_id"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {problem}");
        }
        problem
    }
}

/// A request being put together.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    url: Url,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// The value of an `Authorization` field with HTTP Basic credentials.
pub fn basic(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

/// Starts a request.
pub fn request(method: &str, url: &str) -> Request {
    let url = Url::parse(url).unwrap_or_else(|e| panic!("{url}: {e}"));
    Request { method: method.to_owned(), url, headers: Vec::new(), body: Vec::new() }
}

/// Starts a GET request.
pub fn get(url: &str) -> Request {
    request("GET", url)
}

impl Request {
    /// Adds a field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds HTTP Basic credentials.
    #[must_use]
    pub fn basic(self, username: &str, password: &str) -> Self {
        self.header("Authorization", &basic(username, password))
    }

    /// Adds a bearer token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, media_type: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", media_type)
    }

    /// Sets a JSON body.
    #[must_use]
    pub fn json(self, value: &serde_json::Value) -> Self {
        self.body("application/json", value.to_string())
    }

    /// Sets a form body.
    #[must_use]
    pub fn form(self, fields: &[(String, String)]) -> Self {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.body("application/x-www-form-urlencoded", body)
    }

    /// Sends it on a connection of its own and reads the whole answer.
    pub async fn try_send(self) -> io::Result<Response> {
        tokio::time::timeout(PATIENCE, self.exchange()).await.map_err(io::Error::other)?
    }

    /// As [`Request::try_send`]; no answer fails the test.
    pub async fn send(self) -> Response {
        let what = format!("{} {}", self.method, self.url);
        self.try_send().await.unwrap_or_else(|e| panic!("{what}: {e}"))
    }

    async fn exchange(self) -> io::Result<Response> {
        let authority = format!(
            "{}:{}",
            self.url.host_str().unwrap_or_default(),
            self.url.port_or_known_default().unwrap_or_default()
        );
        let mut stream = BufReader::new(TcpStream::connect(&authority).await?);
        stream.write_all(&self.head(&authority)).await?;
        stream.write_all(&self.body).await?;
        stream.flush().await?;
        loop {
            let message = read_message(&mut stream, Side::Client { head: self.method == "HEAD" })
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let status = message.target().parse().map_err(io::Error::other)?;
            if status >= 200 {
                return Ok(Response { status, headers: message.headers, body: message.body });
            }
        }
    }

    fn head(&self, authority: &str) -> Vec<u8> {
        let target = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let mut head = format!("{} {target} HTTP/1.1\r\n", self.method);
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {authority}\r\n"));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("Connection: close\r\n\r\n");
        head.into_bytes()
    }
}

/// Sends `bytes` as they are and returns what comes back until the peer closes or is silent for a
/// second.
pub async fn raw(address: std::net::SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.expect("somebody listens");
    let mut answer = Vec::new();
    // A peer that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut block = [0; 8192];
    while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut block)).await {
        if length == 0 {
            break;
        }
        answer.extend_from_slice(&block[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whose message is read: it decides when there is a body.
#[derive(Clone, Copy)]
pub enum Side {
    /// We are the server and read a request.
    Server,
    /// We are the client and read an answer.
    Client {
        /// To a HEAD request.
        head: bool,
    },
}

/// Reads one message, or `None` if the peer closed before it began.
pub async fn read_message<R: AsyncBufRead + Unpin>(
    reader: &mut R,
    side: Side,
) -> io::Result<Option<Message>> {
    let mut message = Message { start: read_line(reader).await?, ..Message::default() };
    if message.start.is_empty() {
        return Ok(None);
    }
    loop {
        let line = read_line(reader).await?;
        let Some((name, value)) = line.split_once(':') else { break };
        message.headers.0.push((name.to_owned(), value.trim().to_owned()));
    }
    let status = message.target().parse::<u16>().unwrap_or_default();
    let bodiless = match side {
        Side::Server => false,
        Side::Client { head } => head || status < 200 || matches!(status, 204 | 304),
    };
    let chunked = message.headers.get("transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let length = message.headers.get("content-length").and_then(|value| value.parse::<usize>().ok());
    if bodiless {
    } else if chunked {
        message.body = read_chunks(reader).await?;
    } else if let Some(length) = length {
        message.body = vec![0; length];
        reader.read_exact(&mut message.body).await?;
    } else if matches!(side, Side::Client { .. }) {
        reader.read_to_end(&mut message.body).await?;
    }
    Ok(Some(message))
}

async fn read_line<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<String> {
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line).await?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

async fn read_chunks<R: AsyncBufRead + Unpin>(reader: &mut R) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(reader).await?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        if size == 0 {
            while !read_line(reader).await?.is_empty() {}
            return Ok(body);
        }
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..]).await?;
        read_line(reader).await?;
    }
}

/// The bytes of an answer with a length.
pub fn response_bytes(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Test\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
