#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn parse(body: impl ToString) -> Result<TokenResponse, TokenAnswerError> {
    parse_token_answer(
        StatusCode::OK,
        &HeaderMap::new(),
        body.to_string().as_bytes(),
        NOW,
        AnswerFormat::default(),
    )
}

fn with(name: &str, value: Value) -> Result<TokenResponse, TokenAnswerError> {
    let mut body = json!({"access_token": "2YotnFZFEjr1zCsicMWpAA"});
    body[name] = value;
    parse(body)
}

fn why(body: impl ToString) -> String {
    match parse(body) {
        Err(TokenAnswerError::Malformed { why }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_token_response_of_rfc_6749_section_5_1_is_read() {
    let response = parse(
        r#"{
       "access_token":"2YotnFZFEjr1zCsicMWpAA",
       "token_type":"example",
       "expires_in":3600,
       "refresh_token":"tGzv3JOkF0XG5Qx2TlKWIA",
       "example_parameter":"example_value"
     }"#
        .replace("\"example\"", "\"Bearer\""),
    )
    .unwrap();
    assert_eq!(response.access_token.expose(), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!(response.token_type, TokenType::Bearer);
    assert_eq!(response.expires_in, Some(Duration::from_secs(3600)));
    assert_eq!(response.refresh_token.unwrap().expose(), "tGzv3JOkF0XG5Qx2TlKWIA");
    assert_eq!((response.scope, response.id_token), (None, None));
    assert_eq!(response.extra, BTreeMap::from([("example_parameter".into(), json!("example_value"))]));
}

#[test]
fn expires_in_is_read_in_every_form_seen() {
    let seconds = |value: Value| with("expires_in", value).unwrap().expires_in.map(|d| d.as_secs_f64());
    let ten_years = Some(LONGEST_LIFETIME.as_secs_f64());
    for (value, expected) in [
        (json!(60), Some(60.0)),
        (json!("3600"), Some(3600.0)),
        (json!(" 3600 "), Some(3600.0)),
        (json!(3599.99), Some(3599.0)),
        (json!("3599.99"), Some(3599.0)),
        (json!("1e3"), Some(1000.0)),
        (json!(0), Some(0.0)),
        (json!(0.4), Some(0.0)),
        (json!(-1), Some(0.0)),
        (json!("-3600"), Some(0.0)),
        (json!(i64::MIN), Some(0.0)),
        (json!(u64::MAX), ten_years),
        (json!(1e300), ten_years),
        (json!("inf"), ten_years),
        (json!("nan"), None),
        (json!("soon"), None),
        (json!(""), None),
        (Value::Null, None),
        (json!(true), None),
        (json!([3600]), None),
        (json!({"s": 1}), None),
    ] {
        assert_eq!(seconds(value.clone()), expected, "{value}");
    }
    assert_eq!(with("other", json!(1)).unwrap().expires_in, None);
}

#[test]
fn token_type_is_bearer_in_any_case_or_absent() {
    for value in [json!("Bearer"), json!("bearer"), json!("BEARER "), json!(""), Value::Null] {
        assert!(with("token_type", value.clone()).is_ok(), "{value}");
    }
    for value in [json!("mac"), json!("DPoP2"), json!("N_A"), json!("Bearer, mac"), json!(1)] {
        let fault = with("token_type", value.clone()).unwrap_err();
        assert!(matches!(fault, TokenAnswerError::Malformed { .. }), "{value}: {fault}");
    }
}

#[test]
fn a_refresh_token_null_or_empty_is_absent() {
    for value in [Value::Null, json!("")] {
        assert!(with("refresh_token", value).unwrap().refresh_token.is_none());
    }
    for value in [json!(1), json!("a b"), json!("a\n"), json!("é"), json!(["a"])] {
        assert!(with("refresh_token", value.clone()).is_err(), "{value}");
    }
}

#[test]
fn scope_is_read_as_text_or_array_and_otherwise_absent() {
    let scopes = |value: Value| with("scope", value).unwrap().scope.map(|scope| scope.to_string());
    assert_eq!(scopes(json!("mail openid")).as_deref(), Some("mail openid"));
    assert_eq!(scopes(json!("openid  mail ")).as_deref(), Some("mail openid"));
    assert_eq!(scopes(json!(["openid", "mail"])).as_deref(), Some("mail openid"));
    for value in [json!(""), json!(" "), json!("a\"b"), json!("a\nb"), json!([1]), json!(5), Value::Null] {
        assert_eq!(scopes(value.clone()), None, "{value}");
    }
}

#[test]
fn an_id_token_of_a_wrong_form_does_not_cost_the_tokens() {
    assert_eq!(with("id_token", json!("a.b.c")).unwrap().id_token, Some("a.b.c".into()));
    for value in [Value::Null, json!(""), json!(1), json!({})] {
        assert_eq!(with("id_token", value).unwrap().id_token, None);
    }
}

#[test]
fn an_access_token_must_be_visible_ascii() {
    for bad in ["a b", "a\r\nX-Evil: 1", "a\0", "tab\t", "é", " a", "a ", "\u{7f}"] {
        assert!(why(json!({"access_token": bad})).contains("no header can carry"), "{bad:?}");
    }
    assert!(parse(json!({"access_token": "x".repeat(64 * 1024)})).is_ok());
    why(json!({"access_token": "x".repeat(64 * 1024 + 1)}));
}

#[test]
fn an_answer_without_a_token_is_malformed() {
    assert_eq!(why(""), "is empty");
    assert_eq!(why(" \n"), "is empty");
    for body in ["{}", r#"{"access_token":null}"#, r#"{"access_token":""}"#, r#"{"token":"x","errors":[]}"#] {
        assert_eq!(why(body), "has no access_token", "{body}");
    }
    assert_eq!(why(r#"{"access_token":5}"#), "has a member access_token that is not a text");
    assert_eq!(why("[]"), "is not a JSON object");
    assert!(why("<!doctype html>").starts_with("is not JSON"));
    assert!(why(r#"{"access_token":"cut"#).starts_with("is not JSON"));
    assert_eq!(why(r#"{"access_token":"a","access_token":"b"}"#), "names a member twice");
    let deep = format!(r#"{{"access_token":"a","x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(why(deep).starts_with("is nested deeper"));
    let long = json!({"access_token": "a", "x": "y".repeat(MAX_ANSWER)});
    assert!(why(long).starts_with("is longer than"));
}

#[test]
fn an_error_in_a_200_is_an_error() {
    for body in [
        json!({"error": "invalid_grant", "error_description": "gone"}),
        json!({"error": "invalid_grant", "access_token": "a"}),
        json!({"error": {"code": "invalid_grant"}}),
        json!({"errors": [{"code": "invalid_grant"}]}),
        json!({"error_code": "invalid_grant"}),
        json!({"ok": false, "error": "invalid_refresh_token"}),
        json!({"error": "bad_refresh_token"}),
    ] {
        let fault = parse(&body).unwrap_err();
        assert_eq!(fault.meaning(), Some(token_error::CodeMeaning::GrantDead), "{body}");
    }
}

#[test]
fn an_empty_error_beside_a_token_is_none() {
    for error in [Value::Null, json!(""), json!(false), json!(0), json!([]), json!({})] {
        assert!(with("error", error.clone()).is_ok(), "{error}");
    }
    assert!(with("errorCode", json!("0")).is_ok());
    assert!(with("code", json!("SUCCESS")).is_ok());
}

#[test]
fn further_members_are_kept_unless_they_are_secret_or_too_many() {
    let mut body = json!({
        "access_token": "a", "instance_url": "https://x.example", "device_secret": "s3cr3t",
        "oauth_token": "s3cr3t", "Refresh_Token": "s3cr3t", "nothing": null, "issued_token_type": "urn:x",
        "big": "y".repeat(OF_ONE_ANSWER.bytes),
    });
    let extra = parse(&body).unwrap().extra;
    assert_eq!(extra.keys().collect::<Vec<_>>(), ["instance_url", "issued_token_type"]);
    for i in 0..1000 {
        body[format!("member{i}")] = json!(i);
    }
    assert_eq!(parse(&body).unwrap().extra.len(), OF_ONE_ANSWER.members);
}

#[test]
fn what_is_carried_over_is_bounded_and_the_newest_answer_comes_first() {
    let member = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), json!(value))]);
    let mut kept = member("host", "one.example");
    kept = carried_over(&kept, member("region", "eu"));
    assert_eq!(kept.len(), 2);
    kept = carried_over(&kept, member("host", "two.example"));
    assert_eq!((kept.len(), &kept["host"]), (2, &json!("two.example")));
    for i in 0..1000 {
        let name = format!("new{i}");
        kept = carried_over(&kept, member(&name, "x"));
        assert!(kept.contains_key(&name), "{name}");
    }
    assert_eq!(kept.len(), 64);
    let mut big = BTreeMap::new();
    for i in 0..1000 {
        let name = format!("big{i}");
        big = carried_over(&big, member(&name, &"y".repeat(10 * 1024)));
        assert!(big.contains_key(&name), "{name}");
    }
    assert_eq!(big.len(), 3, "32 KiB");
}

#[test]
fn a_byte_order_mark_and_any_success_status_are_tolerated() {
    let body = "\u{feff}{\"access_token\":\"a\"}";
    assert!(parse(body).is_ok());
    let created = parse_token_answer(
        StatusCode::CREATED,
        &HeaderMap::new(),
        body.as_bytes(),
        NOW,
        AnswerFormat::default(),
    );
    assert!(created.is_ok());
    let no_content =
        parse_token_answer(StatusCode::NO_CONTENT, &HeaderMap::new(), b"", NOW, AnswerFormat::default());
    assert!(matches!(no_content, Err(TokenAnswerError::Malformed { .. })));
}

#[test]
fn faults_and_debug_output_repeat_no_token() {
    let body = json!({"access_token": "s3cr3t s3cr3t", "refresh_token": "s3cr3t"});
    let printed = format!("{:?} {}", parse(&body).unwrap_err(), parse(&body).unwrap_err());
    assert!(!printed.contains("s3cr3t"), "{printed}");
    let good = parse(json!({"access_token": "s3cr3t", "refresh_token": "s3cr3t", "id_token": "s3cr3t"}));
    assert!(!format!("{good:?}").contains("s3cr3t"));
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        "[!-~]{1,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("error|code|[a-z]{1,4}", inner, 0..3)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_answer_panics_and_no_control_character_passes(
        status in 100u16..600,
        members in proptest::collection::btree_map(
            "access_token|refresh_token|expires_in|token_type|scope|id_token|error|errors|code|[a-z]{1,5}",
            any_value(),
            0..6,
        ),
        cut in proptest::option::of(0usize..80),
    ) {
        let body = Value::Object(members.into_iter().collect()).to_string();
        let end = cut.map_or(body.len(), |cut| cut.min(body.len()));
        let body = &body.as_bytes()[..end];
        let status = StatusCode::from_u16(status).unwrap();
        let visible = |text: &str| !text.is_empty() && text.bytes().all(|b| (0x21..=0x7e).contains(&b));
        match parse_token_answer(status, &HeaderMap::new(), body, NOW, AnswerFormat::default()) {
            Ok(response) => {
                prop_assert!(status.is_success());
                prop_assert!(visible(response.access_token.expose()));
                prop_assert!(response.refresh_token.is_none_or(|token| visible(token.expose())));
                prop_assert!(response.expires_in.is_none_or(|life| life <= LONGEST_LIFETIME));
            }
            Err(fault) => {
                let printed = fault.to_string();
                prop_assert!(printed.bytes().all(|b| (0x20..=0x7e).contains(&b)), "{}", printed);
            }
        }
    }

    #[test]
    fn no_bytes_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_token_answer(StatusCode::OK, &HeaderMap::new(), &body, NOW, AnswerFormat::default());
        let _ = parse_token_answer(StatusCode::BAD_REQUEST, &HeaderMap::new(), &body, NOW, AnswerFormat::default());
    }
}

#[test]
fn a_servers_own_form_of_answer_is_read() {
    use crate::protocol::answer_format::{MemberPath, ResponseMembers};
    let at = |path| Some(MemberPath::parse(path).unwrap());
    let members = ResponseMembers {
        access_token: at("authed_user.access_token"),
        refresh_token: at("authed_user.refresh_token"),
        scope: at("authed_user.scope"),
        token_type: at("authed_user.token_type"),
        ..ResponseMembers::default()
    };
    let types = ["User".to_owned()];
    let format = AnswerFormat {
        members: Some(&members),
        scope_separator: Some(';'),
        token_types: &types,
        error_meanings: None,
    };
    let read = |body: Value| {
        let body = body.to_string();
        parse_token_answer(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), NOW, format)
    };
    let answer = read(json!({
        "ok": true,
        "access_token": "bot-token",
        "authed_user": {
            "id": "U1", "access_token": "user-token", "refresh_token": "r", "token_type": "user", "scope": "a;b c"
        },
        "team": {"id": "T1", "bot_token": "s3cr3t", "list": [{"client_secret": "s3cr3t", "n": 1}]},
    }))
    .unwrap();
    assert_eq!(answer.access_token.expose(), "user-token");
    assert_eq!(answer.refresh_token.unwrap().expose(), "r");
    assert_eq!(answer.scope.unwrap().to_string(), "a b c");
    // Nothing of what the tokens were wrapped in: what is there is not known to be harmless.
    let kept = json!({"ok": true, "team": {"id": "T1", "list": [{"n": 1}]}});
    let kept: BTreeMap<_, _> = kept.as_object().unwrap().clone().into_iter().collect();
    assert_eq!(answer.extra, kept);
    // The answer to a refresh may be in the usual form.
    assert_eq!(read(json!({"access_token": "plain"})).unwrap().access_token.expose(), "plain");
    assert!(read(json!({"access_token": "plain", "token_type": "bot"})).is_err());
}

#[test]
fn a_form_and_scopes_with_commas_are_read() {
    let form = "access_token=gho_x&scope=repo%2Cgist&token_type=bearer&expires_in=28800";
    let answer = parse(form).unwrap();
    assert_eq!(answer.scope.unwrap().to_string(), "gist repo");
    assert_eq!(answer.expires_in, Some(Duration::from_secs(28800)));
    assert_eq!(with("scope", json!("a,b c")).unwrap().scope.unwrap().to_string(), "a,b c");
    let fault = parse("error=bad_verification_code").unwrap_err();
    assert_eq!(fault.meaning(), Some(super::token_error::CodeMeaning::GrantDead));
    let printed = format!("{:?}", parse("access_token=s3 cr3t&refresh_token=s3cr3t"));
    assert!(!printed.contains("cr3t"), "{printed}");
}
