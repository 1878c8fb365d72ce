//! A browser in few lines: cookies, redirects and forms, so that consent is given as a person
//! gives it.

use std::collections::BTreeMap;

use url::Url;

use super::http::{self, Response};

/// A browser with its cookies.
#[derive(Clone, Default)]
pub struct Browser {
    jar: Vec<Cookie>,
}

// As in real browsers, cookies do not tell ports apart: gateway and provider share 127.0.0.1.
#[derive(Clone, Debug)]
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// What a browser shows.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is from.
    pub url: Url,
    /// The answer itself.
    pub response: Response,
}

/// A form on a page.
#[derive(Clone, Debug)]
pub struct Form {
    /// Where it goes.
    pub action: Url,
    /// Names and preset values of its fields.
    pub fields: BTreeMap<String, String>,
}

impl Browser {
    /// A browser that was never used.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens `url` and follows no redirect.
    pub async fn open(&mut self, url: &str) -> Page {
        self.visit(Url::parse(url).expect("a URL"), None).await
    }

    /// Opens `url` and follows redirects until one starts with `stop`, which is not visited, or
    /// none comes. The URL of the answer is then where it would go next.
    pub async fn follow_until(&mut self, url: &str, stop: &str) -> Page {
        let page = self.open(url).await;
        self.follow(page, stop).await
    }

    /// Sends the first form on `page`, some fields filled in, and follows as `follow_until`.
    pub async fn submit(&mut self, page: &Page, filled: &[(&str, &str)], stop: &str) -> Page {
        let mut form =
            page.form().unwrap_or_else(|| panic!("no form on {}: {}", page.url, page.response.text()));
        for (name, value) in filled {
            form.fields.insert((*name).to_owned(), (*value).to_owned());
        }
        let page = self.visit(form.action, Some(form.fields.into_iter().collect())).await;
        self.follow(page, stop).await
    }

    /// From `url` on, signs in as `login` and consents at the provider, until it sends the browser
    /// to a URL that starts with `stop`. Returns that URL without visiting it.
    pub async fn consent_until(&mut self, url: &str, login: &str, stop: &str) -> String {
        let mut page = self.follow_until(url, stop).await;
        for _ in 0..4 {
            if page.url.as_str().starts_with(stop) {
                return page.url.into();
            }
            page.response.clone().expect_status(200);
            let filled = [("login", login), ("password", "does not matter")];
            let asks_for_login = page.form().is_some_and(|form| form.fields.contains_key("login"));
            page = self.submit(&page, if asks_for_login { &filled } else { &[] }, stop).await;
        }
        panic!("never sent to {stop}; stopped at {}: {}", page.url, page.response.text());
    }

    /// From `url` on, signs in, consents and comes back to the gateway's callback.
    pub async fn consent(&mut self, url: &str, login: &str, callback: &str) -> Page {
        let callback = self.consent_until(url, login, callback).await;
        self.open(&callback).await
    }

    /// From `url` on, sends every form as `login` would, until a page has none.
    pub async fn consent_to_the_end(&mut self, url: &str, login: &str) -> Page {
        let mut page = self.follow_until(url, "nowhere:").await;
        for _ in 0..8 {
            let Some(form) = page.form() else { return page };
            let filled = [("login", login), ("password", "does not matter")];
            let asks_for_login = form.fields.contains_key("login");
            page = self.submit(&page, if asks_for_login { &filled } else { &[] }, "nowhere:").await;
        }
        panic!("forms without end, at {}: {}", page.url, page.response.text());
    }

    async fn follow(&mut self, mut page: Page, stop: &str) -> Page {
        for _ in 0..12 {
            let Some(next) = page.redirect() else { return page };
            if next.as_str().starts_with(stop) {
                return Page { url: next, ..page };
            }
            page = self.visit(next, None).await;
        }
        panic!("redirects without end, at {}", page.url);
    }

    async fn visit(&mut self, url: Url, form: Option<Vec<(String, String)>>) -> Page {
        let method = if form.is_some() { "POST" } else { "GET" };
        let mut request = http::request(method, url.as_str()).header("Accept", "text/html,*/*;q=0.8");
        if let Some(cookies) = self.cookies_for(&url) {
            request = request.header("Cookie", &cookies);
        }
        if let Some(fields) = form {
            request = request.form(&fields);
        }
        let response = request.send().await;
        self.keep_cookies(&url, &response);
        Page { url, response }
    }

    /// Keeps the cookies of an answer that was got by other means.
    pub fn keep_cookies(&mut self, url: &Url, response: &Response) {
        for line in response.headers.all("set-cookie") {
            self.keep_cookie(url, line);
        }
    }

    /// The `Cookie` header for `url`, if there is one to send.
    pub fn cookies_for(&self, url: &Url) -> Option<String> {
        let fits = |cookie: &&Cookie| {
            let below = url.path().strip_prefix(cookie.path.trim_end_matches('/'));
            Some(cookie.host.as_str()) == url.host_str()
                && below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let pairs: Vec<_> =
            self.jar.iter().filter(fits).map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }

    fn keep_cookie(&mut self, url: &Url, line: &str) {
        let mut parts = line.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let attributes: BTreeMap<String, &str> = parts
            .map(|part| part.split_once('=').unwrap_or((part, "")))
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .collect();
        let host = url.host_str().unwrap_or_default().to_owned();
        let path = attributes.get("path").filter(|path| path.starts_with('/')).unwrap_or(&"/").to_string();
        self.jar.retain(|old| (&old.host, &old.path, old.name.as_str()) != (&host, &path, name));
        let ended = attributes.get("max-age").is_some_and(|age| *age == "0")
            || attributes.get("expires").is_some_and(|date| date.contains(" 1970 "));
        if !ended {
            self.jar.push(Cookie { host, path, name: name.to_owned(), value: value.to_owned() });
        }
    }
}

impl Page {
    /// Where a redirect leads.
    pub fn redirect(&self) -> Option<Url> {
        let moved = matches!(self.response.status, 301 | 302 | 303 | 307 | 308);
        let location = self.response.header("location").filter(|_| moved)?;
        Some(self.url.join(location).expect("a redirect to a URL"))
    }

    /// The first form on the page.
    pub fn form(&self) -> Option<Form> {
        let html = self.response.text();
        let tag = tags(&html, "form").next()?;
        let action = self.url.join(&attribute(tag, "action").unwrap_or_default()).ok()?;
        let fields = tags(&html, "input")
            .filter_map(|input| {
                Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default()))
            })
            .collect();
        Some(Form { action, fields })
    }
}

fn tags<'a>(html: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    html.split('<').skip(1).filter_map(|piece| piece.split('>').next()).filter(move |tag| {
        tag.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
            && !tag[name.len()..].starts_with(|c: char| c.is_ascii_alphanumeric())
    })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split(&format!(" {name}=\"")).nth(1)?.split('"').next()?;
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}
