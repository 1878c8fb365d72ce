#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures_util::stream;
use http_body_util::BodyExt as _;

use super::*;

static TOKEN_HEADER: HeaderName = http::header::AUTHORIZATION;

fn source(chunks: &[&'static str], length: Option<u64>, max: Option<u64>) -> BodySource {
    let chunks = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    let chunks: Vec<_> = chunks.collect();
    let limits = BodyLimits { length, max, idle: Duration::from_secs(60) };
    BodySource::streaming(Box::pin(stream::iter(chunks)), limits)
}

async fn read(body: RequestBody) -> Result<String, BodyFault> {
    let body = body.collect().await.map_err(|aborted| aborted.fault)?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn no_body_is_empty_and_can_be_sent_at_will() {
    let source = BodySource::empty();
    assert!(source.attempt(&TOKEN_HEADER).is_end_stream() && source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt(&TOKEN_HEADER)).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn empty_chunks_are_no_part_of_a_body() {
    let source = source(&["", "ab", "", "", "cd", ""], None, None);
    let mut body = source.attempt(&TOKEN_HEADER);
    for expected in ["ab", "cd"] {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), expected);
    }
    assert!(body.frame().await.is_none() && source.is_finished());
}

#[tokio::test]
async fn a_small_body_of_known_length_can_be_sent_again_at_any_point() {
    let source = source(&["ab", "cd", "ef"], Some(6), None);
    let mut first = source.attempt(&TOKEN_HEADER);
    assert_eq!(first.size_hint().exact(), Some(6));
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    let second = source.attempt(&TOKEN_HEADER);
    assert_eq!(first.frame().await.unwrap().unwrap_err().fault, BodyFault::GivenUp);
    assert_eq!(read(second).await.as_deref(), Ok("abcdef"));
    assert!(source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt(&TOKEN_HEADER)).await.as_deref(), Ok("abcdef"));
}

#[tokio::test]
async fn a_body_of_unknown_length_can_be_sent_again_while_it_is_small() {
    let source = source(&["ab", "cd"], None, None);
    let mut first = source.attempt(&TOKEN_HEADER);
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    assert_eq!(read(source.attempt(&TOKEN_HEADER)).await.as_deref(), Ok("abcd"));
    assert!(source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt(&TOKEN_HEADER)).await.as_deref(), Ok("abcd"));
}

#[tokio::test]
async fn a_body_that_turns_out_large_is_kept_no_more() {
    let chunk = "x".repeat(usize::try_from(LARGEST_KEPT).unwrap()).leak();
    let source = source(&[chunk, "y"], None, None);
    let mut first = source.attempt(&TOKEN_HEADER);
    first.frame().await.unwrap().unwrap();
    assert!(source.is_replayable());
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
    assert!(!source.is_replayable());
    assert!(first.frame().await.is_none() && source.is_finished());
}

#[tokio::test]
async fn what_comes_after_the_stated_length_is_no_part_of_it() {
    let body = source(&["abc", "defGET / HTTP/1.1"], Some(5), None);
    assert_eq!(read(body.attempt(&TOKEN_HEADER)).await.as_deref(), Ok("abcde"));
    let short = source(&["abc"], Some(5), None);
    assert_eq!(read(short.attempt(&TOKEN_HEADER)).await, Err(BodyFault::BrokenOff));
    assert_eq!(short.fault(), Some(BodyFault::BrokenOff));
    assert!(!short.is_replayable());
}

#[tokio::test]
async fn a_body_over_the_limit_fails_where_it_passes_it() {
    let source = source(&["abc", "def"], None, Some(5));
    let mut body = source.attempt(&TOKEN_HEADER);
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(body.frame().await.unwrap().unwrap_err().fault, BodyFault::TooLarge { limit: 5 });
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn giving_up_an_old_attempt_leaves_the_new_one_alone() {
    let source = source(&["ab"], Some(2), None);
    drop(source.attempt(&TOKEN_HEADER));
    let old = source.current_attempt();
    let new = source.attempt(&TOKEN_HEADER);
    source.give_up(old);
    assert_eq!(read(new).await.as_deref(), Ok("ab"));
    source.give_up(source.current_attempt());
}

#[tokio::test(start_paused = true)]
async fn a_body_must_make_progress_in_every_window() {
    let idle = Duration::from_secs(60);
    let limits = BodyLimits { length: None, max: None, idle };
    let drip = |size: usize| {
        let chunks = stream::unfold(0, move |n| async move {
            sleep(Duration::from_secs(10)).await;
            (n < 30).then(|| (Ok(Frame::data(Bytes::from(vec![b'x'; size]))), n + 1))
        });
        BodySource::streaming(Box::pin(chunks), limits)
    };
    assert_eq!(read(drip(1).attempt(&TOKEN_HEADER)).await, Err(BodyFault::Stalled { after: idle }));
    assert_eq!(read(drip(1024).attempt(&TOKEN_HEADER)).await.unwrap().len(), 30 * 1024);
    let silent = BodySource::streaming(Box::pin(stream::pending()), limits);
    let begun = Instant::now();
    assert_eq!(read(silent.attempt(&TOKEN_HEADER)).await, Err(BodyFault::Stalled { after: idle }));
    assert_eq!(begun.elapsed(), idle);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_its_time_is_not_the_callers_fault() {
    let idle = Duration::from_secs(60);
    let chunks = stream::unfold(0, |n| async move {
        sleep(Duration::from_secs(1)).await;
        (n < 5).then(|| (Ok(Frame::data(Bytes::from_static(b"x"))), n + 1))
    });
    let limits = BodyLimits { length: None, max: None, idle };
    let mut body = BodySource::streaming(Box::pin(chunks), limits).attempt(&TOKEN_HEADER);
    for _ in 0..5 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        sleep(Duration::from_secs(100)).await;
    }
    assert!(body.frame().await.is_none());
}

fn trailers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &'static str)| {
        (HeaderName::from_static(name), http::HeaderValue::from_static(value))
    };
    lines.iter().map(line).collect()
}

#[tokio::test]
async fn trailers_come_last_in_every_attempt_without_what_may_not_pass() {
    let sent =
        trailers(&[("x-checksum", "1"), ("authorization", "Bearer forged"), ("x-own-token", "forged")]);
    let frames = [Frame::data(Bytes::from_static(b"ab")), Frame::trailers(sent)];
    let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(60) };
    let body = BodySource::streaming(Box::pin(stream::iter(frames.map(Ok))), limits);
    let own = HeaderName::from_static("x-own-token");
    for _ in 0..2 {
        let mut attempt = body.attempt(&own);
        assert_eq!(attempt.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
        assert!(!attempt.is_end_stream());
        let last = attempt.frame().await.unwrap().unwrap().into_trailers().unwrap();
        assert_eq!(last, trailers(&[("x-checksum", "1")]));
        assert!(attempt.is_end_stream() && attempt.frame().await.is_none() && body.is_finished());
    }
    // Nothing is left of these.
    let frames = [Ok(Frame::trailers(trailers(&[("content-length", "5")])))];
    let body = BodySource::streaming(Box::pin(stream::iter(frames)), limits);
    assert!(body.attempt(&own).frame().await.is_none());
}

#[tokio::test]
async fn trailers_before_the_stated_length_are_a_body_that_broke_off() {
    let frames = [Frame::data(Bytes::from_static(b"ab")), Frame::trailers(HeaderMap::new())];
    let limits = BodyLimits { length: Some(3), max: None, idle: Duration::from_secs(60) };
    let body = BodySource::streaming(Box::pin(stream::iter(frames.map(Ok))), limits);
    assert_eq!(read(body.attempt(&TOKEN_HEADER)).await, Err(BodyFault::BrokenOff));
}

#[tokio::test]
async fn giving_up_is_noticed_while_nothing_comes() {
    let limits = BodyLimits { length: None, max: None, idle: Duration::from_secs(60) };
    let source = BodySource::streaming(Box::pin(stream::pending()), limits);
    let mut body = source.attempt(&TOKEN_HEADER);
    let waiting = async { body.frame().await.unwrap().unwrap_err().fault };
    let giving_up = async { source.give_up(source.current_attempt()) };
    assert_eq!(tokio::join!(waiting, giving_up).0, BodyFault::GivenUp);
}
