#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn joined(upstream: &str, rest: &str, query: Option<&str>) -> Result<String, PathError> {
    let mut out = BytesMut::new();
    append_target(&mut out, upstream, rest, query)?;
    Ok(String::from_utf8(out.to_vec()).unwrap())
}

#[test]
fn dot_segments_are_refused_in_every_spelling() {
    for path in [
        "/..",
        "/.",
        "/a/..",
        "/a/../b",
        "/a/./b",
        "/a/.",
        "/%2e%2e",
        "/%2E%2e/x",
        "/.%2e/x",
        "/%2e./x",
        "/%2e",
        "/a/..;x/b",
        "/a/..;/b",
        "/a/.;x",
        "/%2e%2e;",
        "/%2e%2e%3bx/",
        "/..%2fb",
        "/a/..%2Fb",
        "/x%2f..",
        "/a/%2e%2e/b%2fc;x/..;/d",
        "/..%3fx",
        "/..%23x",
        // for upstreams that decode more than once
        "/%252e%252e/x",
        "/%25%32%65%25%32%65/x",
        "/a%252f../b",
        "/a%252f%252e%252e%252fb",
        "/%25252e%25252e",
        "/..%255cb",
    ] {
        assert_eq!(check_path(path.as_bytes()), Err(PathError::DotSegment), "{path}");
    }
}

#[test]
fn other_tricks_are_refused_each_for_its_reason() {
    use PathError as E;
    let rows: [(&[u8], E); 21] = [
        (b"", E::NotAbsolute),
        (b"*", E::NotAbsolute),
        (b"a/b", E::NotAbsolute),
        (b"example.com:443", E::NotAbsolute),
        (b"//evil/x", E::SecondAuthority),
        (b"//", E::SecondAuthority),
        (b"/\\evil", E::Backslash),
        (b"/a\\..\\b", E::Backslash),
        (b"/a/..%5cb", E::Backslash),
        (b"/a%5Cb", E::Backslash),
        (b"/%00", E::ControlCharacter),
        (b"/a%0d%0ab", E::ControlCharacter),
        (b"/a%1f", E::ControlCharacter),
        (b"/a%7F", E::ControlCharacter),
        (b"/a\x01", E::ControlCharacter),
        (b"/a\x7f", E::ControlCharacter),
        (b"/a b", E::NotEncoded),
        ("/ä".as_bytes(), E::NotEncoded),
        (b"/%zz", E::MalformedEscape),
        (b"/a%2", E::MalformedEscape),
        (b"/a%", E::MalformedEscape),
    ];
    for (path, error) in rows {
        assert_eq!(check_path(path), Err(error), "{}", String::from_utf8_lossy(path));
    }
    let deep = format!("/%{}41", "25".repeat(20));
    assert_eq!(check_path(deep.as_bytes()), Err(E::EncodedTooDeep));
}

#[test]
fn everything_else_passes() {
    for path in [
        "/",
        "/a",
        "/a/",
        "/a//b",
        "/a/b%2Fc",
        "/;v=1",
        "/a;v=1/b",
        "/~me",
        "/...",
        "/..a",
        "/.well-known/x",
        "/a..",
        "/a.b",
        "/%C3%A4",
        "/a%20b",
        "/100%25",
        "/a%252Fb",
        "/@evil",
        "/a:b",
        "/a/%2Fb",
        "/%7B%7D",
        "/a&b=c,d+e!$'()*",
    ] {
        assert_eq!(check_path(path.as_bytes()), Ok(()), "{path}");
    }
    assert_eq!(check_query(b"q=../..&x=%00&y=%zz&z=\\"), Ok(()));
    assert_eq!(check_query(b"q=a b"), Err(PathError::NotEncoded));
    assert_eq!(check_query(b"q=\n"), Err(PathError::ControlCharacter));
}

#[test]
fn joining_keeps_every_byte() {
    assert_eq!(
        joined("/calendar/v3", "/events/a%2Fb", Some("q=1")).unwrap(),
        "/calendar/v3/events/a%2Fb?q=1"
    );
    assert_eq!(joined("/v3", "", None).unwrap(), "/v3");
    assert_eq!(joined("/v3", "/", None).unwrap(), "/v3/");
    assert_eq!(joined("", "", None).unwrap(), "/");
    assert_eq!(joined("", "", Some("")).unwrap(), "/?");
    assert_eq!(joined("", "/x", None).unwrap(), "/x");
    assert_eq!(joined("/v3", "//x", None).unwrap(), "/v3//x");
}

#[test]
fn what_remains_of_a_path_cannot_become_an_authority() {
    for rest in ["//evil/x", "/%2fevil", "/%2Fevil/x", "/%252fevil", "/%25%32%66evil", "/%5cevil", "/\\evil"]
    {
        assert_eq!(joined("", rest, None), Err(PathError::SecondAuthority), "{rest}");
    }
    assert!(joined("", "/a//evil", None).is_ok());
    assert!(joined("", "/%20/x", None).is_ok());
}

fn has_dot_segment(path: &[u8]) -> bool {
    path.split(|b| matches!(b, b'/' | b'\\'))
        .map(|segment| segment.split(|b| *b == b';').next().unwrap())
        .any(|name| name == b"." || name == b"..")
}

fn tricky() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "%25", "2e", "2f", "%252e", ";", ";x", "a", "b",
        "\\", "%00", "~", "é", "%", "%32%65", "%3b", "@", ":", "//",
    ]);
    prop::collection::vec(piece, 0..14).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn an_accepted_path_stays_under_the_upstream_prefix(rest in tricky(), upstream in "(/[a-z]{1,4}){0,2}") {
        if check_path(rest.as_bytes()).is_err() {
            return Ok(());
        }
        let Ok(joined) = joined(&upstream, &rest, None) else { return Ok(()) };
        prop_assert_eq!(&joined, &format!("{upstream}{rest}"));
        prop_assert!(joined.strip_prefix(&upstream).is_some_and(|r| r.is_empty() || r.starts_with('/')));
        let mut bytes = joined.into_bytes();
        for _ in 0..3 {
            prop_assert!(!has_dot_segment(&bytes));
            prop_assert!(!bytes.starts_with(b"//") || upstream.is_empty() && !matches!(rest.as_bytes(), [b'/', b'/', ..]));
            bytes = decode(&bytes);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(path in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = check_path(&path);
        let _ = check_query(&path);
        let _ = begins_like_an_authority(&path);
    }
}
