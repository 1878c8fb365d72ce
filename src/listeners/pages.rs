//! The pages that a person sees: self-contained, escaped, without script.

use std::fmt::Write as _;
use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The one style sheet, allowed by its hash. Light and dark, wide and narrow.
const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#f6f7f9;--card:#fff;--text:#1c2430;--soft:#5b6675;--line:#dfe3e8;--good:#14804a;\
--bad:#b42318;--link:#1d5fd1}\
@media(prefers-color-scheme:dark){:root{--bg:#12161c;--card:#1b212a;--text:#e7ebf0;--soft:#9aa6b5;--line:#2d3642;\
--good:#4cc38a;--bad:#ff8a7a;--link:#7fb0ff}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1.25rem;background:var(--bg);\
color:var(--text);font:1rem/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\
main{width:100%;max-width:28rem;background:var(--card);border:1px solid var(--line);border-top:4px solid var(--bad);\
border-radius:.6rem;padding:1.75rem}\
main.good{border-top-color:var(--good)}\
h1{margin:0 0 .75rem;font-size:1.3rem;line-height:1.3}\
p{margin:.6rem 0;overflow-wrap:anywhere}\
a{color:var(--link)}\
footer{margin-top:1.5rem;color:var(--soft);font-size:.85rem}\
.code{font-size:2rem;letter-spacing:.08em;text-align:center;margin:1.2rem 0}\
code{font-family:ui-monospace,SFMono-Regular,Menlo,monospace}";

static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = STANDARD.encode(digest::digest(&digest::SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{hash}'; frame-ancestors 'none'; form-action 'none'; base-uri 'none'"
    )
});

/// One page: what happened, what to do, and the number that finds it in the log.
#[derive(Clone, Debug)]
pub struct Page {
    /// The HTTP status.
    pub status: StatusCode,
    /// What happened, in a few words.
    pub title: &'static str,
    /// What it means and what to do, a paragraph each. Plain text.
    pub paragraphs: Vec<String>,
    /// A checked URL to go on to, and its words.
    pub link: Option<(String, &'static str)>,
    /// What to wait for, if the page changes by itself.
    pub waiting: Option<Waiting>,
    /// The request's reference number.
    pub reference: String,
}

/// What a page shows while a person is busy on another device.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// What the person enters there.
    pub user_code: String,
    /// Seconds until the page looks again.
    pub again_in: u64,
}

impl Page {
    /// The response, with every header that a page with authorization in it needs (RFC 9700
    /// sections 4.2 and 4.16).
    pub fn response(&self) -> HttpResponse {
        HttpResponse::build(self.status)
            .content_type("text/html; charset=utf-8")
            .insert_header((CONTENT_SECURITY_POLICY, POLICY.as_str()))
            .insert_header((REFERRER_POLICY, "no-referrer"))
            .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
            .insert_header((X_FRAME_OPTIONS, "DENY"))
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(self.html())
    }

    fn html(&self) -> String {
        let mut html = String::with_capacity(STYLE.len() + 1024);
        let title = escape(self.title);
        let class = if self.status.is_success() { "good" } else { "bad" };
        let again = self.waiting.as_ref().map(|waiting| waiting.again_in);
        let refresh = again.map(|seconds| format!("<meta http-equiv=\"refresh\" content=\"{seconds}\">"));
        // Writing to a `String` cannot fail.
        let _ = write!(
            html,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">{}\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
             <meta name=\"robots\" content=\"noindex\"><title>{title}</title><style>{STYLE}</style></head>\
             <body><main class=\"{class}\"><h1>{title}</h1>",
            refresh.unwrap_or_default()
        );
        if let Some(waiting) = &self.waiting {
            let _ = write!(html, "<p class=\"code\"><code>{}</code></p>", escape(&waiting.user_code));
        }
        for paragraph in &self.paragraphs {
            let _ = write!(html, "<p>{}</p>", escape(paragraph));
        }
        if let Some((href, words)) = &self.link {
            let _ =
                write!(html, "<p><a href=\"{}\" rel=\"noreferrer\">{}</a></p>", escape(href), escape(words));
        }
        let _ = writeln!(
            html,
            "<footer>Reference <code>{}</code></footer></main></body></html>",
            escape(&self.reference)
        );
        html
    }
}

/// Escapes text for HTML content and for quoted attributes.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    fn page(text: &str) -> Page {
        Page {
            status: StatusCode::BAD_REQUEST,
            title: "Not valid",
            paragraphs: vec![text.to_owned()],
            link: Some((format!("https://a/?q={text}"), "Back")),
            waiting: Some(Waiting { user_code: text.to_owned(), again_in: 5 }),
            reference: text.to_owned(),
        }
    }

    #[test]
    fn hostile_text_never_becomes_markup() {
        let html = page("\"><script>alert('1')</script>&").html();
        assert!(!html.contains("<script"));
        assert_eq!(html.matches("&lt;script&gt;").count(), 4);
        assert!(html.contains("https://a/?q=&quot;&gt;&lt;script"));
    }

    #[test]
    fn the_policy_allows_the_style_sheet_and_nothing_else() {
        let response = page("x").response();
        let policy = response.headers().get(CONTENT_SECURITY_POLICY).unwrap().to_str().unwrap();
        let html = page("x").html();
        let style = html.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
        assert!(policy.contains(&format!("style-src 'sha256-{hash}'")));
        for rule in ["default-src 'none'", "frame-ancestors 'none'", "form-action 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(rule), "{rule}");
        }
        assert!(!html.contains("style=\""), "inline styles would be blocked");
        assert_eq!(response.headers().get(REFERRER_POLICY).unwrap(), "no-referrer");
        assert_eq!(response.headers().get(CACHE_CONTROL).unwrap(), "no-store");
        assert_eq!(response.headers().get(X_CONTENT_TYPE_OPTIONS).unwrap(), "nosniff");
    }
}
