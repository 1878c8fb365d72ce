//! Requests, and HTTP/2 servers to send them to.

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method};
use http_body::Frame;

use super::*;
use crate::proxy::body::BodyLimits;
use crate::proxy::response::ResponseBody;

/// What came of a request.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
}

pub(super) fn post(body: RequestBody) -> Result<Request<RequestBody>, HeaderError> {
    let mut request = Request::new(body);
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "/v1/things?x=1".parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("upstream.test"));
    headers.insert("transfer-encoding", HeaderValue::from_static("chunked"));
    headers.insert("cookie", HeaderValue::from_static("a=1; b=2"));
    Ok(request)
}

/// A body of these frames, of unstated length.
pub(super) fn body_of(frames: Vec<Frame<Bytes>>) -> BodySource {
    let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(10) };
    BodySource::streaming(Box::pin(futures_util::stream::iter(frames.into_iter().map(Ok))), limits)
}

pub(super) async fn fetch(
    pool: &Rc<UpstreamPool>,
    exchange: &Exchange<'_>,
) -> Result<Fetched, UpstreamError> {
    let response = pool.send(exchange).await?;
    let (status, headers) = (response.parts.status, response.parts.headers);
    let (body, trailers) = read(response.body).await?;
    Ok(Fetched { status, headers, body, trailers })
}

pub(super) async fn read(mut body: ResponseBody) -> Result<(Vec<u8>, Option<HeaderMap>), UpstreamError> {
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = next(&mut body).await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = Some(frame.into_trailers().unwrap()),
        }
    }
    Ok((bytes, trailers))
}

pub(super) async fn next(body: &mut ResponseBody) -> Option<Result<Frame<Bytes>, UpstreamError>> {
    poll_fn(|cx| body.poll_frame(cx)).await
}

/// Runs a test on one thread. One that waits for what never comes fails.
pub(super) async fn local<T>(test: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(60);
    LocalSet::new().run_until(timeout(limit, test)).await.expect("something that never came")
}

/// Waits until `seen` says so.
pub(super) async fn until(mut seen: impl FnMut() -> bool) {
    while !seen() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What a server does with a request.
pub(super) type Handle = Rc<dyn Fn(Request<RecvStream>, SendResponse<Bytes>) -> LocalBoxFuture<'static, ()>>;

pub(super) fn handle<F>(handle: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + 'static) -> Handle
where
    F: Future<Output = ()> + 'static,
{
    Rc::new(move |request, respond| Box::pin(handle(request, respond)))
}

/// A server of HTTP/2, and of HTTP/1.1 where TLS chooses so.
pub(super) struct Server {
    pub(super) port: u16,
    /// Connections that speak HTTP/2, and those of them that ended.
    pub(super) connections: Rc<Cell<(usize, usize)>>,
}

impl Server {
    /// Over TLS if `protocols` are given; `streams` at once on a connection.
    pub(super) async fn start(protocols: Option<&[&str]>, streams: u32, handle: Handle) -> Self {
        let acceptor = protocols.map(acceptor);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connections = Rc::new(Cell::new((0, 0)));
        let count = connections.clone();
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, handle, count) = (acceptor.clone(), handle.clone(), count.clone());
                tokio::task::spawn_local(async move {
                    let Some(acceptor) = acceptor else { return serve(stream, streams, handle, count).await };
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
                        serve(stream, streams, handle, count).await;
                    } else {
                        answer(stream).await;
                    }
                });
            }
        });
        Self { port, connections }
    }

    /// That answers `ok` to everything.
    pub(super) async fn simple(protocols: Option<&[&str]>) -> Self {
        Self::start(protocols, 100, handle(|_, respond| async { reply(respond, "ok") })).await
    }
}

async fn serve<T>(stream: T, streams: u32, handle: Handle, count: Rc<Cell<(usize, usize)>>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (opened, ended) = count.get();
    count.set((opened + 1, ended));
    let started = h2::server::Builder::new().max_concurrent_streams(streams).handshake(stream).await;
    let mut connection = started.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::task::spawn_local(handle(request, respond));
    }
    let (opened, ended) = count.get();
    count.set((opened, ended + 1));
}

pub(super) fn reply(mut respond: SendResponse<Bytes>, body: &'static str) {
    if let Ok(mut send) = respond.send_response(Response::new(()), false) {
        let _ = send.send_data(Bytes::from_static(body.as_bytes()), true);
    }
}

/// Reads a request's body to its end.
pub(super) async fn take(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((bytes, body.trailers().await?))
}
