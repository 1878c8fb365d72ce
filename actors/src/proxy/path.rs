//! The path policy: what may be asked for, and how it is joined to the upstream's prefix.
//!
//! A path is judged and forwarded as the same bytes; nothing is normalised. What an upstream might
//! read as another path than the one that was matched is refused: dot segments in any spelling and
//! at any depth of encoding, control characters, backslashes, and whatever could be taken for a
//! second authority. Everything else passes byte for byte (`%2F` in a name, `;v=1`, `~`).

use bytes::{BufMut, BytesMut};
use thiserror::Error;

/// Why a request target was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PathError {
    /// Only origin-form targets are served (RFC 9112 section 3.2.1).
    #[error("the request target must be a path that begins with a slash")]
    NotAbsolute,
    /// Two slashes at the start, or an absolute-form target with another authority than `Host`.
    #[error("the request target names, or could be taken to name, another authority")]
    SecondAuthority,
    /// A dot segment, in whatever spelling (RFC 3986 section 3.3).
    #[error("the path has a dot segment")]
    DotSegment,
    /// A control character, raw or encoded.
    #[error("the path or query has a control character")]
    ControlCharacter,
    /// A backslash, raw or encoded: some servers read it as a slash.
    #[error("the path has a backslash")]
    Backslash,
    /// A raw space or a byte outside ASCII (RFC 3986 section 2).
    #[error("the path or query has a character that must be percent-encoded")]
    NotEncoded,
    /// `%` without two hexadecimal digits (RFC 3986 section 2.1).
    #[error("the path has a malformed percent-encoding")]
    MalformedEscape,
    /// Encoded over and over: nobody means it well.
    #[error("the path is percent-encoded too many times over")]
    EncodedTooDeep,
}

/// How often an upstream is thought to decode a path at most.
const MAX_DECODINGS: usize = 5;

/// Checks a path as it stood in the request line, without its query.
pub fn check_path(path: &[u8]) -> Result<(), PathError> {
    match path {
        [b'/', b'/', ..] => return Err(PathError::SecondAuthority),
        [b'/', ..] => {}
        _ => return Err(PathError::NotAbsolute),
    }
    let mut segment = Segment::default();
    let mut encoded_percent = false;
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        let byte = match first {
            0..=0x1f | 0x7f => return Err(PathError::ControlCharacter),
            b' ' | 0x80.. => return Err(PathError::NotEncoded),
            b'%' => {
                let (byte, after) = escape(tail).ok_or(PathError::MalformedEscape)?;
                rest = after;
                encoded_percent |= byte == b'%';
                byte
            }
            byte => {
                rest = tail;
                *byte
            }
        };
        match byte {
            0..=0x1f | 0x7f => return Err(PathError::ControlCharacter),
            b'\\' => return Err(PathError::Backslash),
            _ => segment.push(byte)?,
        }
    }
    segment.end()?;
    if encoded_percent { check_deeper(decode(path)) } else { Ok(()) }
}

/// Checks a query as it stood in the request line: it is data, so only what cannot stand in a
/// request line at all is refused.
pub fn check_query(query: &[u8]) -> Result<(), PathError> {
    for byte in query {
        match byte {
            0..=0x1f | 0x7f => return Err(PathError::ControlCharacter),
            b' ' | 0x80.. => return Err(PathError::NotEncoded),
            _ => {}
        }
    }
    Ok(())
}

/// Appends the upstream's request target to `out`: its prefix, the rest of a checked path, and the
/// query. `upstream_path` has no trailing slash; `rest` is empty or begins with one.
pub fn append_target(
    out: &mut BytesMut,
    upstream_path: &str,
    rest: &str,
    query: Option<&str>,
) -> Result<(), PathError> {
    if upstream_path.is_empty() && begins_like_an_authority(rest.as_bytes()) {
        return Err(PathError::SecondAuthority);
    }
    out.put_slice(upstream_path.as_bytes());
    out.put_slice(rest.as_bytes());
    if upstream_path.is_empty() && rest.is_empty() {
        out.put_u8(b'/');
    }
    if let Some(query) = query {
        out.put_u8(b'?');
        out.put_slice(query.as_bytes());
    }
    Ok(())
}

/// Whether a path with no prefix before it begins with two slashes, at any depth of encoding.
fn begins_like_an_authority(path: &[u8]) -> bool {
    let separators = |path: &[u8]| matches!(path, [b'/' | b'\\', b'/' | b'\\', ..]);
    if separators(path) {
        return true;
    }
    if !matches!(path, [b'/', b'%', ..]) {
        return false;
    }
    let mut path = decode(path);
    for _ in 0..MAX_DECODINGS {
        if separators(&path) {
            return true;
        }
        path = decode(&path);
    }
    false
}

/// Looks for dot segments in what an upstream sees that decodes more than once.
fn check_deeper(mut path: Vec<u8>) -> Result<(), PathError> {
    for _ in 0..MAX_DECODINGS {
        let next = decode(&path);
        let mut segment = Segment::default();
        for byte in &next {
            segment.push(*byte)?;
        }
        segment.end()?;
        if next.len() == path.len() {
            return Ok(());
        }
        path = next;
    }
    Err(PathError::EncodedTooDeep)
}

/// Decodes once; what is no escape stays as it is.
fn decode(path: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, tail @ ..] = rest {
        match (first, escape(tail)) {
            (b'%', Some((byte, after))) => {
                decoded.push(byte);
                rest = after;
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// The byte that two hexadecimal digits stand for, and what follows them.
fn escape(digits: &[u8]) -> Option<(u8, &[u8])> {
    let [high, low, rest @ ..] = digits else { return None };
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|v| u8::try_from(v).ok());
    Some((value(high)? << 4 | value(low)?, rest))
}

/// Reads decoded bytes and finds segments that are dots only, up to a `;` or what may end a path.
#[derive(Default)]
enum Segment {
    #[default]
    Empty,
    OneDot,
    TwoDots,
    Name,
}

impl Segment {
    fn push(&mut self, byte: u8) -> Result<(), PathError> {
        *self = match (byte, &*self) {
            (b'/' | b'\\', _) => {
                self.end()?;
                Self::Empty
            }
            (b';' | b'?' | b'#', _) => {
                self.end()?;
                Self::Name
            }
            (b'.', Self::Empty) => Self::OneDot,
            (b'.', Self::OneDot) => Self::TwoDots,
            _ => Self::Name,
        };
        Ok(())
    }

    fn end(&self) -> Result<(), PathError> {
        match self {
            Self::OneDot | Self::TwoDots => Err(PathError::DotSegment),
            Self::Empty | Self::Name => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
