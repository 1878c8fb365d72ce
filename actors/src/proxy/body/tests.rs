#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use futures_util::stream;
use http_body_util::BodyExt as _;

use super::*;

fn source(chunks: &[&'static str], length: Option<u64>, max: Option<u64>) -> BodySource {
    let chunks: Vec<_> = chunks.iter().map(|chunk| Ok(Bytes::from_static(chunk.as_bytes()))).collect();
    let limits = BodyLimits { length, max, idle: Duration::from_secs(60) };
    BodySource::streaming(Box::pin(stream::iter(chunks)), limits)
}

async fn read(body: RequestBody) -> Result<String, BodyFault> {
    Ok(String::from_utf8(body.collect().await?.to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn no_body_is_empty_and_can_be_sent_at_will() {
    let source = BodySource::empty();
    assert!(source.attempt().is_end_stream() && source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt()).await.as_deref(), Ok(""));
}

#[tokio::test]
async fn a_small_body_of_known_length_can_be_sent_again_at_any_point() {
    let source = source(&["ab", "cd", "ef"], Some(6), None);
    let mut first = source.attempt();
    assert_eq!(first.size_hint().exact(), Some(6));
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    let second = source.attempt();
    assert_eq!(first.frame().await.unwrap().unwrap_err(), BodyFault::GivenUp);
    assert_eq!(read(second).await.as_deref(), Ok("abcdef"));
    assert!(source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt()).await.as_deref(), Ok("abcdef"));
}

#[tokio::test]
async fn a_body_of_unknown_length_can_be_sent_again_while_it_is_small() {
    let source = source(&["ab", "cd"], None, None);
    let mut first = source.attempt();
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    assert_eq!(read(source.attempt()).await.as_deref(), Ok("abcd"));
    assert!(source.is_finished() && source.is_replayable());
    assert_eq!(read(source.attempt()).await.as_deref(), Ok("abcd"));
}

#[tokio::test]
async fn a_body_that_turns_out_large_is_kept_no_more() {
    let chunk = "x".repeat(usize::try_from(LARGEST_KEPT).unwrap()).leak();
    let source = source(&[chunk, "y"], None, None);
    let mut first = source.attempt();
    first.frame().await.unwrap().unwrap();
    assert!(source.is_replayable());
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "y");
    assert!(!source.is_replayable());
    assert!(first.frame().await.is_none() && source.is_finished());
}

#[tokio::test]
async fn what_comes_after_the_stated_length_is_no_part_of_it() {
    let body = source(&["abc", "defGET / HTTP/1.1"], Some(5), None);
    assert_eq!(read(body.attempt()).await.as_deref(), Ok("abcde"));
    let short = source(&["abc"], Some(5), None);
    assert_eq!(read(short.attempt()).await, Err(BodyFault::BrokenOff));
    assert_eq!(short.fault(), Some(BodyFault::BrokenOff));
    assert!(!short.is_replayable());
}

#[tokio::test]
async fn a_body_over_the_limit_fails_where_it_passes_it() {
    let source = source(&["abc", "def"], None, Some(5));
    let mut body = source.attempt();
    assert!(body.frame().await.unwrap().is_ok());
    assert_eq!(body.frame().await.unwrap().unwrap_err(), BodyFault::TooLarge { limit: 5 });
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn giving_up_an_old_attempt_leaves_the_new_one_alone() {
    let source = source(&["ab"], Some(2), None);
    drop(source.attempt());
    let old = source.current_attempt();
    let new = source.attempt();
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
            (n < 30).then(|| (Ok(Bytes::from(vec![b'x'; size])), n + 1))
        });
        BodySource::streaming(Box::pin(chunks), limits)
    };
    assert_eq!(read(drip(1).attempt()).await, Err(BodyFault::Stalled { after: idle }));
    assert_eq!(read(drip(1024).attempt()).await.unwrap().len(), 30 * 1024);
    let silent = BodySource::streaming(Box::pin(stream::pending()), limits);
    let begun = Instant::now();
    assert_eq!(read(silent.attempt()).await, Err(BodyFault::Stalled { after: idle }));
    assert_eq!(begun.elapsed(), idle);
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_takes_its_time_is_not_the_callers_fault() {
    let idle = Duration::from_secs(60);
    let chunks = stream::unfold(0, |n| async move {
        sleep(Duration::from_secs(1)).await;
        (n < 5).then(|| (Ok(Bytes::from_static(b"x")), n + 1))
    });
    let limits = BodyLimits { length: None, max: None, idle };
    let mut body = BodySource::streaming(Box::pin(chunks), limits).attempt();
    for _ in 0..5 {
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "x");
        sleep(Duration::from_secs(100)).await;
    }
    assert!(body.frame().await.is_none());
}
