//! Answers whose end cannot be told for sure (RFC 9112 section 6.3).

use http::header::{CONTENT_LENGTH, HeaderMap, TRANSFER_ENCODING};

/// Refuses what two readers could read as bodies of different lengths.
pub(super) fn check(headers: &HeaderMap) -> Result<(), &'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if headers.contains_key(CONTENT_LENGTH) {
            return Err("its answer has both Content-Length and Transfer-Encoding");
        }
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err("its answer has a Transfer-Encoding other than chunked");
        }
    }
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(first) = lengths.next()
        && (lengths.any(|other| other != first) || !is_length(first.as_bytes()))
    {
        return Err("its answer has no single valid Content-Length");
    }
    Ok(())
}

fn is_length(value: &[u8]) -> bool {
    !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use http::{HeaderName, HeaderValue};

    use super::*;

    fn verdict(lines: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        check(&headers).is_ok()
    }

    #[test]
    fn only_unambiguous_framing_passes() {
        let (length, coding) = ("content-length", "transfer-encoding");
        assert!(verdict(&[]));
        assert!(verdict(&[(length, "5")]));
        assert!(verdict(&[(length, "5"), (length, "5")]));
        assert!(verdict(&[(coding, "Chunked")]));
        assert!(!verdict(&[(length, "5"), (coding, "chunked")]));
        assert!(!verdict(&[(length, "5"), (length, "6")]));
        for wrong in ["", "+5", "-1", "5, 5", "0x5", "99999999999999999999"] {
            assert!(!verdict(&[(length, wrong)]), "{wrong}");
        }
        assert!(!verdict(&[(coding, "gzip, chunked")]));
        assert!(!verdict(&[(coding, "chunked"), (coding, "chunked")]));
        assert!(!verdict(&[(coding, "identity")]));
    }
}
