#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Blocking calls to the demo's servers, off the thread that serves them.
async fn call(
    method: &'static str,
    url: String,
    token: Option<String>,
    body: Option<&'static str>,
) -> (u16, String) {
    actix_rt::task::spawn_blocking(move || {
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.unwrap_or_default()).unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .timeout_global(Some(std::time::Duration::from_secs(10)))
            .build()
            .into();
        let mut answer = agent.run(request).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    })
    .await
    .unwrap()
}

#[actix_web::test]
async fn the_gateway_accepts_the_configuration_and_the_folder_goes_away() {
    let demo = Demo::start(None).await.unwrap();
    let folder = demo.config_path().parent().unwrap().to_owned();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(demo.config_path())), (0o700, 0o600));

    let config = demo.load_config().unwrap();
    assert_eq!(config.profiles.len(), 2);
    assert_eq!(config.routing.iter().count(), 2);
    assert!(demo.guide().contains(&config.listeners.proxy.to_string()));
    assert!(!demo.guide().contains(&demo.environment["DEMO_CLIENT_SECRET"]));

    demo.stop().await;
    drop(demo);
    assert!(!folder.exists());
}

#[actix_web::test]
async fn the_calendar_serves_whoever_the_sandbox_knows() {
    let demo = Demo::start(None).await.unwrap();
    let set = |name: &str| demo.environment[name].clone();
    let issuer = set("CLAVIGER_PROVIDERS__SANDBOX__ISSUER");
    let events = format!("{}/events", set("CLAVIGER_ROUTES__CALENDAR__UPSTREAM"));
    let secret = set("DEMO_ROBOT_SECRET");

    assert_eq!(call("GET", events.clone(), None, None).await.0, 401);
    assert_eq!(call("GET", events.clone(), Some("guess".into()), None).await.0, 401);

    let form = format!(
        "grant_type=client_credentials&client_id=claviger-robot&client_secret={secret}&scope=calendar.read"
    );
    let url = format!("{issuer}/token");
    let tokens = actix_rt::task::spawn_blocking(move || {
        ureq::post(&url)
            .header("content-type", "application/x-www-form-urlencoded")
            .send(form)
            .unwrap()
            .body_mut()
            .read_to_string()
            .unwrap()
    })
    .await
    .unwrap();
    let tokens: serde_json::Value = serde_json::from_str(&tokens).unwrap();
    let token = tokens["access_token"].as_str().unwrap().to_owned();

    let (status, body) = call("GET", events.clone(), Some(token.clone()), None).await;
    assert_eq!(status, 200);
    assert!(body.contains("Nightly backup"), "{body}");
    let (status, body) = call("POST", events, Some(token), Some(r#"{"summary":"Tea"}"#)).await;
    assert_eq!(status, 403, "calendar.write was not granted: {body}");
    demo.stop().await;
}
