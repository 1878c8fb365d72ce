//! A load at a constant rate, whatever the proxy does: each latency counts from the moment at which its
//! request was due, so that a request that had to wait behind a slow one counts that wait, too
//! (no coordinated omission). One thread, and timers finer than a millisecond: requests that were sent
//! in bursts would wait for each other.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use serde_json::json;

use crate::Fault;

/// Longest answer.
const MAX_ANSWER: usize = 64 * 1024;
/// What comes before the seconds that count.
const WARM_UP: Duration = Duration::from_secs(1);
/// Answers are waited for so long after the last request.
const GRACE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where the proxy listens.
    #[arg(long)]
    address: SocketAddr,
    /// What is asked for.
    #[arg(long)]
    path: String,
    /// The `Authorization` to send.
    #[arg(long)]
    credential: String,
    /// Requests a second, over all connections.
    #[arg(long)]
    rate: f64,
    /// Connections, which take turns; each has one request at a time.
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// Seconds that count; one before them does not.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

struct Connection {
    stream: TcpStream,
    /// When the requests that were due and are not answered were due; the first is under way.
    due: std::collections::VecDeque<Instant>,
    read: Vec<u8>,
    filled: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\r\n",
        arguments.path, arguments.address, arguments.credential
    );
    let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let mut connections = Vec::with_capacity(arguments.connections);
    for number in 0..arguments.connections {
        let stream = TcpStream::connect(arguments.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        epoll::add(&ready, &stream, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
        connections.push(Connection {
            stream,
            due: Default::default(),
            read: vec![0; MAX_ANSWER],
            filled: 0,
        });
    }
    let begin = Instant::now();
    let counted = begin + WARM_UP;
    let end = counted + Duration::from_secs_f64(arguments.seconds);
    let due = |number: u64| begin + Duration::from_secs_f64(number as f64 / arguments.rate);
    let (mut next, mut waiting, mut bad) = (0_u64, 0_usize, 0_u64);
    let mut latencies = Vec::with_capacity((arguments.rate * arguments.seconds) as usize);
    let mut events = Vec::with_capacity(arguments.connections);
    loop {
        let now = Instant::now();
        while due(next) <= now.min(end) {
            let at = (next % arguments.connections as u64) as usize;
            if let Some(connection) = connections.get_mut(at) {
                connection.due.push_back(due(next));
                waiting += 1;
                if connection.due.len() == 1 {
                    connection.send(request.as_bytes())?;
                }
            }
            next += 1;
        }
        if now > end && waiting == 0 {
            break;
        }
        if now > end + GRACE {
            bad += waiting as u64;
            break;
        }
        let until = if now > end { end + GRACE } else { due(next) };
        let pause = Timespec::try_from(until.saturating_duration_since(now))?;
        events.clear();
        epoll::wait(&ready, rustix::buffer::spare_capacity(&mut events), Some(&pause))?;
        for event in &events {
            let Some(connection) = connections.get_mut(event.data.u64() as usize) else { continue };
            let Some(status) = connection.receive()? else { continue };
            waiting -= 1;
            if let Some(due) = connection.due.pop_front() {
                match status {
                    200 if due >= counted => latencies.push(due.elapsed()),
                    200 => {}
                    _ => bad += 1,
                }
            }
            if !connection.due.is_empty() {
                connection.send(request.as_bytes())?;
            }
        }
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * share) as usize).map_or(0, |latency| latency.as_micros() as u64)
    };
    crate::print(&json!({
        "requests_per_s": latencies.len() as f64 / arguments.seconds,
        "requests": next,
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "bad": bad,
    }))
}

impl Connection {
    /// A request is small, and the connection idle: it is taken as a whole.
    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// The status of the answer, once all of it was read.
    fn receive(&mut self) -> io::Result<Option<u16>> {
        let free = self.read.get_mut(self.filled..).filter(|free| !free.is_empty());
        let free = free.ok_or_else(|| io::Error::other("the answer is too long"))?;
        match self.stream.read(free) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => self.filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let so_far = self.read.get(..self.filled).unwrap_or_default();
        let Some(end) = so_far.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let (status, length) = head(so_far.get(..end).unwrap_or_default())?;
        if self.filled < end + 4 + length {
            return Ok(None);
        }
        self.filled = 0;
        Ok(Some(status))
    }
}

/// Status and `Content-Length`.
fn head(bytes: &[u8]) -> io::Result<(u16, usize)> {
    let malformed = || io::Error::other("the answer is malformed");
    let text = std::str::from_utf8(bytes).map_err(|_| malformed())?;
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    let length = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    Ok((status, length.ok_or_else(malformed)?))
}
