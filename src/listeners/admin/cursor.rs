//! Where the next page of a list begins: opaque to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_actors::protocol::identifiers::{ConnectionId, MAX_NAME, ProfileId, Subject};
use thiserror::Error;

/// The cursor is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("cursor is not one that an earlier answer gave as next_cursor")]
pub struct CursorError;

/// Names have no control character, so this never occurs in one.
const SEPARATOR: char = '\u{0}';

/// The cursor of the page that comes after `last`.
pub fn encode(last: &ConnectionId) -> String {
    URL_SAFE_NO_PAD.encode(format!("{}{SEPARATOR}{}", last.profile, last.subject))
}

/// The connection that `cursor` stands for.
pub fn decode(cursor: &str) -> Result<ConnectionId, CursorError> {
    if cursor.len() > 2 * (2 * MAX_NAME + 1) {
        return Err(CursorError);
    }
    let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| CursorError)?;
    let text = String::from_utf8(bytes).map_err(|_| CursorError)?;
    let (profile, subject) = text.split_once(SEPARATOR).ok_or(CursorError)?;
    Ok(ConnectionId {
        profile: ProfileId::new(profile).map_err(|_| CursorError)?,
        subject: Subject::new(subject).map_err(|_| CursorError)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_encoded_decodes(profile in "[^\\p{Cc}]{1,60}", subject in "[^\\p{Cc}]{1,60}") {
            let id = ConnectionId {
                profile: ProfileId::new(&profile).unwrap(),
                subject: Subject::new(&subject).unwrap(),
            };
            prop_assert_eq!(decode(&encode(&id)), Ok(id));
        }

        #[test]
        fn nothing_makes_it_panic(cursor in ".{0,80}") {
            let _ = decode(&cursor);
        }
    }

    #[test]
    fn what_we_never_gave_is_refused() {
        for bytes in ["", "calendar", "calendar\0", "\0alice", "a\0b\0c"] {
            assert_eq!(decode(&URL_SAFE_NO_PAD.encode(bytes)), Err(CursorError), "{bytes:?}");
        }
        assert_eq!(decode("???"), Err(CursorError));
        assert_eq!(decode(&"A".repeat(100_000)), Err(CursorError));
    }

    #[test]
    fn the_longest_names_fit() {
        let name = "x".repeat(MAX_NAME);
        let id =
            ConnectionId { profile: ProfileId::new(&name).unwrap(), subject: Subject::new(&name).unwrap() };
        assert_eq!(decode(&encode(&id)), Ok(id));
    }
}
