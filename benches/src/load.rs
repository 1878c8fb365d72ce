//! A load at a constant rate, whatever the proxy does: each latency counts from the moment at which its
//! request was due, so that a request that had to wait behind a slow one counts that wait, too
//! (no coordinated omission).

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::Fault;

/// Longest head of an answer.
const MAX_HEAD: usize = 16 * 1024;
/// An answer that takes longer is an error.
const DEADLINE: Duration = Duration::from_secs(10);

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
    /// Connections; each has a thread of its own and one request at a time.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Seconds that count; one before them does not.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

const WARM_UP: f64 = 1.0;

pub(crate) fn run(arguments: &Arguments) -> Result<(), Fault> {
    let begin = Instant::now() + Duration::from_millis(50);
    let runs: Vec<io::Result<Run>> = thread::scope(|scope| {
        let threads = (0..arguments.connections).map(|number| scope.spawn(move || one(arguments, number, begin)));
        let threads: Vec<_> = threads.collect();
        let failed = || io::Error::other("a thread of the load panicked");
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(failed()))).collect()
    });
    let (mut latencies, mut bad) = (Vec::new(), 0);
    for run in runs {
        let run = run?;
        latencies.extend(run.latencies);
        bad += run.bad;
    }
    latencies.sort_unstable();
    let at = |share: f64| {
        let last = latencies.len().saturating_sub(1);
        latencies.get((last as f64 * share) as usize).map_or(0, |latency| latency.as_micros() as u64)
    };
    crate::print(&json!({
        "requests_per_s": latencies.len() as f64 / arguments.seconds,
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
        "bad": bad,
    }))
}

#[derive(Default)]
struct Run {
    latencies: Vec<Duration>,
    bad: u64,
}

fn one(arguments: &Arguments, number: u32, begin: Instant) -> io::Result<Run> {
    let mut connection = Connection::open(arguments.address)?;
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: {}\r\nAuthorization: {}\r\n\r\n",
        arguments.path, arguments.address, arguments.credential
    );
    let interval = f64::from(arguments.connections) / arguments.rate;
    let mut run = Run::default();
    // The connections take turns.
    let mut due = f64::from(number) / arguments.rate;
    while due < WARM_UP + arguments.seconds {
        let at = begin + Duration::from_secs_f64(due);
        thread::sleep(at.saturating_duration_since(Instant::now()));
        match connection.ask(request.as_bytes()) {
            Ok(200) if due >= WARM_UP => run.latencies.push(at.elapsed()),
            Ok(200) => {}
            Ok(_) => run.bad += 1,
            Err(_) => {
                run.bad += 1;
                connection = Connection::open(arguments.address)?;
            }
        }
        due += interval;
    }
    Ok(run)
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        Ok(Self { stream, read: vec![0; MAX_HEAD] })
    }

    /// The status of the answer, once all of it was read.
    fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request)?;
        let mut filled = 0;
        loop {
            let free = self.read.get_mut(filled..).filter(|free| !free.is_empty());
            let read = self.stream.read(free.ok_or_else(|| io::Error::other("the head is too long"))?)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
            let so_far = self.read.get(..filled).unwrap_or_default();
            if let Some(end) = so_far.windows(4).position(|window| window == b"\r\n\r\n") {
                let (status, length) = head(so_far.get(..end).unwrap_or_default())?;
                let mut missing = (end + 4 + length).saturating_sub(filled);
                while missing > 0 {
                    let part = missing.min(self.read.len());
                    self.stream.read_exact(self.read.get_mut(..part).unwrap_or_default())?;
                    missing -= part;
                }
                return Ok(status);
            }
        }
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
