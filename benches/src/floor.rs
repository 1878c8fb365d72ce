//! The floor: hyper at both ends, each caller's connection with one of its own to the upstream. It
//! checks one credential, injects one token and does nothing else: what a proxy in Rust costs at least.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONNECTION, HOST, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use subtle::ConstantTimeEq as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};

use crate::Fault;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to listen.
    #[arg(long)]
    bind: SocketAddr,
    /// Where to send requests.
    #[arg(long)]
    upstream: SocketAddr,
    /// What is taken away from a path.
    #[arg(long)]
    prefix: String,
    /// The callers' `Authorization`.
    #[arg(long)]
    credential: String,
    /// The `Authorization` that the upstream gets.
    #[arg(long)]
    token: HeaderValue,
}

struct Floor {
    arguments: Arguments,
    host: HeaderValue,
}

type Upstream = RefCell<Option<SendRequest<Incoming>>>;
type Answer = Response<Either<Incoming, Empty<Bytes>>>;

pub(crate) fn run(arguments: Arguments) -> Result<(), Fault> {
    let host = HeaderValue::from_str(&arguments.upstream.to_string())?;
    let floor = Rc::new(Floor { arguments, host });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind(floor.arguments.bind).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let floor = floor.clone();
            spawn_local(async move {
                let upstream = Rc::new(Upstream::default());
                let service = service_fn(move |request| serve(floor.clone(), upstream.clone(), request));
                // A caller that goes away is no news.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

async fn serve(
    floor: Rc<Floor>,
    upstream: Rc<Upstream>,
    mut request: Request<Incoming>,
) -> Result<Answer, Fault> {
    let sent = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    if !bool::from(sent.ct_eq(floor.arguments.credential.as_bytes())) {
        let mut refused = Response::new(Either::Right(Empty::new()));
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return Ok(refused);
    }
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let target = target.strip_prefix(&floor.arguments.prefix).unwrap_or(target);
    *request.uri_mut() = target.parse::<Uri>()?;
    let headers = request.headers_mut();
    headers.remove(CONNECTION);
    headers.insert(HOST, floor.host.clone());
    headers.insert(AUTHORIZATION, floor.arguments.token.clone());
    let ready = upstream.borrow_mut().take().filter(|sender| !sender.is_closed());
    let mut sender = match ready {
        Some(sender) => sender,
        None => connect(floor.arguments.upstream).await?,
    };
    sender.ready().await?;
    let mut response = sender.send_request(request).await?;
    upstream.replace(Some(sender));
    response.headers_mut().remove(CONNECTION);
    Ok(response.map(Either::Left))
}

async fn connect(upstream: SocketAddr) -> Result<SendRequest<Incoming>, Fault> {
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    spawn_local(connection);
    Ok(sender)
}
