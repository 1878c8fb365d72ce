//! Text from the network, made fit for logs and reports.

/// `text` with everything but printable ASCII left out, cut to `max` bytes. Neither control
/// characters nor look-alikes can reach a log or a terminal.
pub fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| (' '..='~').contains(c)).take(max).collect()
}

/// An error code reduced to the characters of RFC 6749 sections 4.1.2.1 and 5.2, at most 64.
pub fn error_code(text: &str) -> String {
    let allowed = |c: &char| matches!(c, ' '..='!' | '#'..='[' | ']'..='~');
    text.trim().chars().filter(allowed).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_ascii_is_left() {
        assert_eq!(printable("a\r\nb\u{1b}[31m\u{202e}c é~", 100), "ab[31mc ~");
        assert_eq!(printable("abcdef", 3), "abc");
    }

    #[test]
    fn an_error_code_has_no_quote_and_no_backslash() {
        assert_eq!(error_code(" invalid_\"gr\\ant\"\n"), "invalid_grant");
        assert_eq!(error_code(&"x".repeat(500)).len(), 64);
    }
}
