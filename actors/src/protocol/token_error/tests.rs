#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use http::HeaderValue;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(784_111_777); // Sun, 06 Nov 1994 08:49:37 GMT

fn of_status(status: u16, body: &str) -> TokenAnswerError {
    TokenAnswerError::of_status(status, &HeaderMap::new(), body.as_bytes(), NOW)
}

fn code_and_meaning(status: u16, body: &str) -> (String, Option<CodeMeaning>) {
    let fault = of_status(status, body);
    match &fault {
        TokenAnswerError::Refused { code, .. } => (code.clone(), fault.meaning()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_error_response_of_rfc_6749_section_5_2_is_read() {
    let body = r#"{"error":"invalid_request","error_description":"missing \"code\""}"#;
    let expected = TokenAnswerError::Refused {
        code: "invalid_request".into(),
        description: Some("missing \"code\"".into()),
        status: 400,
        own: None,
    };
    assert_eq!(of_status(400, body), expected);
}

#[test]
fn a_dead_grant_is_recognised_in_every_envelope() {
    let envelopes = [
        json!({"error": "invalid_grant"}),
        json!({"error": " invalid_grant\n"}),
        json!({"error": {"code": "invalid_grant", "message": "revoked"}}),
        json!({"error": {"type": "OAuthException", "code": "invalid_grant"}}),
        json!({"error": {"error": "invalid_grant"}}),
        json!({"error": {"code": 400, "type": "invalid_grant"}}),
        json!({"error": "Bad Request", "error_code": "invalid_grant"}),
        json!({"errors": ["invalid_grant"]}),
        json!({"errors": [{"code": "E1"}, {"code": "invalid_grant"}]}),
        json!({"errors": [{"error": "invalid_grant"}]}),
        json!({"errors": [{"errorCode": "invalid_grant"}]}),
        json!({"error_code": "invalid_grant"}),
        json!({"errorCode": "invalid_grant"}),
        json!({"fault": {"code": "invalid_grant"}}),
        json!({"code": "invalid_grant", "message": "x"}),
    ];
    for envelope in envelopes {
        for status in [400, 401, 403] {
            let (code, meaning) = code_and_meaning(status, &envelope.to_string());
            assert_eq!(
                (code.as_str(), meaning),
                ("invalid_grant", Some(CodeMeaning::GrantDead)),
                "{envelope}"
            );
        }
    }
}

#[test]
fn nothing_but_the_whole_code_ends_a_grant() {
    for body in [
        json!({"error": "invalid_grants"}),
        json!({"error": "INVALID_GRANT"}),
        json!({"error": "invalid_request", "error_description": "invalid_grant"}),
        json!({"message": "invalid_grant"}),
        json!({"other": {"code": "invalid_grant"}}),
        json!({"error": [["invalid_grant"]]}),
        json!("invalid_grant"),
    ] {
        let (_, meaning) = code_and_meaning(400, &body.to_string());
        assert_eq!(meaning, Some(CodeMeaning::RequestRefused), "{body}");
    }
    assert_eq!(code_and_meaning(400, "invalid_grant").1, Some(CodeMeaning::RequestRefused));
    // What may be anything, even a secret, is not repeated.
    assert_eq!(code_and_meaning(400, r#"{"code":"SplxlOBeZQQYbYS6WxSbIA"}"#).0, "");
    // A body that can be read in two ways is not believed.
    let twice = r#"{"error":"invalid_client","error":"invalid_grant"}"#;
    assert_eq!(code_and_meaning(400, twice), (String::new(), Some(CodeMeaning::RequestRefused)));
}

#[test]
fn every_known_code_means_what_the_table_says() {
    for (name, meaning) in CODES {
        let found = code_and_meaning(400, &json!({ "error": name }).to_string());
        assert_eq!(found, (name.to_owned(), Some(meaning)));
    }
}

#[test]
fn without_a_code_the_status_decides() {
    for body in ["", "<html>Unauthorized</html>", "{}", "[]", r#"{"error":null}"#] {
        assert_eq!(code_and_meaning(401, body), (String::new(), Some(CodeMeaning::ClientRefused)));
        for status in [400, 403, 404, 405, 418] {
            assert_eq!(code_and_meaning(status, body).1, Some(CodeMeaning::RequestRefused));
        }
    }
}

#[test]
fn the_status_decides_before_the_body() {
    let body = r#"{"error":"invalid_grant"}"#;
    for status in [500, 502, 503, 504, 599, 408, 425] {
        assert_eq!(of_status(status, body), TokenAnswerError::ServerError { status, retry_after: None });
    }
    assert_eq!(of_status(429, body), TokenAnswerError::Throttled { retry_after: None });
    for status in [301, 302, 303, 307, 308, 304] {
        assert_eq!(of_status(status, body), TokenAnswerError::Redirected { status });
    }
    assert!(matches!(of_status(101, body), TokenAnswerError::Malformed { .. }));
}

#[test]
fn words_of_the_server_are_made_printable_and_cut() {
    let body = json!({
        "error": "evil\"\\\r\n\u{7f}\u{202e}",
        "error_description": format!("\u{1b}[2J\r\nlevel=info{}", "x".repeat(1000)),
    });
    let TokenAnswerError::Refused { code, description, .. } = of_status(400, &body.to_string()) else {
        panic!("not refused")
    };
    let description = description.unwrap();
    assert_eq!(code, "evil");
    assert_eq!(description.len(), 200);
    assert!(description.starts_with("[2Jlevel=info"), "{description}");
    let printed =
        of_status(400, r#"{"error":"invalid_client","error_description":"no such client"}"#).to_string();
    assert_eq!(printed, "refused with status 400: invalid_client: no such client");
}

#[test]
fn secrets_that_a_server_repeats_are_left_out() {
    let secret = "tGzv3JOkF0XG5Qx2TlKWIA";
    let body = json!({
        "error": secret,
        "error_description": format!("{} {secret}", "the refresh token is expired:".repeat(6)),
    });
    let fault = of_status(400, &body.to_string()).without([secret, "abc"]);
    let expected =
        TokenAnswerError::Refused { code: String::new(), description: None, status: 400, own: None };
    assert_eq!(fault, expected);
    let body = r#"{"error":"invalid_grant","error_description":"token expired"}"#;
    assert_eq!(of_status(400, body).without([secret]), of_status(400, body));
    // A known code stays, whatever was sent.
    let fault = of_status(400, body).without(["invalid_grant"]);
    assert_eq!(fault.meaning(), Some(CodeMeaning::GrantDead));
}

#[test]
fn retry_after_is_read_as_seconds_or_date() {
    let of = |text: &str| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        retry_after(&headers, NOW)
    };
    assert_eq!(of("120"), Some(Duration::from_secs(120)));
    assert_eq!(of("Sun, 06 Nov 1994 08:50:37 GMT"), Some(Duration::from_secs(60)));
    assert_eq!(of("Sunday, 06-Nov-94 08:50:37 GMT"), Some(Duration::from_secs(60)));
    assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
    assert_eq!(of("99999999999999999999999"), Some(LONGEST_RETRY_AFTER));
    assert_eq!(of("Fri, 31 Dec 9999 23:59:59 GMT"), Some(LONGEST_RETRY_AFTER));
    for unreadable in ["", "-1", "1.5", "soon", "Thu, 99 Foo 2099 00:00:00 GMT"] {
        assert_eq!(of(unreadable), None, "{unreadable}");
    }
    assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
}

#[test]
fn a_refusal_is_one_whatever_its_body() {
    for (status, body) in
        [(403, ""), (403, "<html>forbidden</html>"), (400, "forbidden"), (403, "{}"), (404, "[]")]
    {
        let fault = of_status(status, body);
        assert_eq!(fault.meaning(), Some(CodeMeaning::RequestRefused), "{status} {body}: {fault}");
    }
    assert_eq!(of_status(401, "").meaning(), Some(CodeMeaning::ClientRefused));
    let form = of_status(400, "error=invalid_grant&error_description=used+up");
    assert_eq!(form.to_string(), "refused with status 400: invalid_grant: used up");
    assert_eq!(form.meaning(), Some(CodeMeaning::GrantDead));
}

#[test]
fn a_servers_own_codes_mean_what_was_said() {
    use crate::protocol::answer_format::{MemberPath, ResponseMembers};
    let at = |path| Some(MemberPath::parse(path).unwrap());
    let members =
        ResponseMembers { error: at("meta.code"), error_description: at("meta.text"), ..Default::default() };
    let meanings = std::collections::BTreeMap::from([
        ("token_revoked".to_owned(), CodeMeaning::GrantDead),
        ("190".to_owned(), CodeMeaning::GrantDead),
        ("invalid_request".to_owned(), CodeMeaning::ServerUnwell),
    ]);
    let format =
        AnswerFormat { members: Some(&members), error_meanings: Some(&meanings), ..AnswerFormat::default() };
    let read = |body: &str| {
        TokenAnswerError::of_answer(400, &HeaderMap::new(), body.as_bytes(), Timestamp::from_secs(0), format)
    };
    for (body, meaning) in [
        (r#"{"error":"token_revoked"}"#, CodeMeaning::GrantDead),
        (r#"{"meta":{"code":190}}"#, CodeMeaning::GrantDead),
        (r#"{"error":"x","meta":{"code":"token_revoked"}}"#, CodeMeaning::GrantDead),
        (r#"{"error":"token_revoked","meta":{"code":"other"}}"#, CodeMeaning::GrantDead),
        (r#"{"error":"invalid_request"}"#, CodeMeaning::ServerUnwell),
        (r#"{"error":"invalid_client"}"#, CodeMeaning::ClientRefused),
        (r#"{"code":"token_revoked"}"#, CodeMeaning::GrantDead),
    ] {
        assert_eq!(read(body).meaning(), Some(meaning), "{body}");
    }
    let fault = read(r#"{"meta":{"code":"own","text":"in words"}}"#);
    assert_eq!(fault.to_string(), "refused with status 400: own: in words");
    // A known code of the server's own stays, whatever was sent.
    let fault = read(r#"{"error":"token_revoked"}"#).without(["token_revoked"]);
    assert_eq!(fault.meaning(), Some(CodeMeaning::GrantDead));
}
