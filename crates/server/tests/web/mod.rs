//! An OpenID provider and a browser, each a process of its own that ends with the test.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

/// `oidc-provider`, on a free port.
pub struct Provider {
    pub issuer: String,
    process: Child,
}

impl Provider {
    pub fn start(callback: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/provider");
        let installed = folder.join("../../../../target/oidc-provider");
        assert!(installed.join("node_modules/oidc-provider").exists(), "no OpenID provider: `cargo xtask test` installs it");
        // A script from standard input finds its modules where it runs.
        let script = std::fs::File::open(folder.join("provider.mjs")).unwrap();
        let mut command = Command::new("node");
        command.args(["--input-type=module", "-", callback]).current_dir(installed);
        let mut process = command.stdin(script).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("Node.js is there");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let issuer = lines.find(|line| line.starts_with("http://")).expect("the provider started");
        // It has more to say later, and ends if nobody listens.
        std::thread::spawn(move || lines.for_each(drop));
        Self { issuer: issuer.trim().to_owned(), process }
    }

    /// A token for a program.
    pub fn token(&self, client: &str, secret: &str) -> String {
        let encoded: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let pair = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{client}:{encoded}"));
        let request = ureq::post(format!("{}/token", self.issuer)).header("authorization", format!("Basic {pair}"));
        let form = [("grant_type", "client_credentials"), ("resource", "http://muniment.example.org/api"), ("scope", "send")];
        let answer = request.send_form(form).unwrap().body_mut().read_to_string().unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["access_token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Chromium without a window.
pub struct Browser {
    session: String,
    driver: Child,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub fn start() -> Self {
        let mut command = Command::new("chromedriver");
        command.args(["--port=0"]).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut driver = command.spawn().expect("no chromedriver: `cargo xtask test` installs it");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map(Result::unwrap);
        let port = lines
            .find_map(|line| Some(line.rsplit_once("started successfully on port ")?.1.trim_end_matches('.').to_owned()))
            .expect("chromedriver started");
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let home = format!("--user-data-dir={}", profile.path().display());
        let options = json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", home] });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
        let root = format!("http://127.0.0.1:{port}");
        let begun = send("POST", &format!("{root}/session"), Some(&wanted));
        let id = begun["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {begun}"));
        Self { session: format!("{root}/session/{id}"), driver, _profile: profile }
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        send(method, &format!("{}{path}", self.session), body)
    }

    pub fn go(&self, url: &str) {
        self.ask("POST", "/url", Some(&json!({ "url": url })));
    }

    pub fn url(&self) -> String {
        self.ask("GET", "/url", None).as_str().unwrap_or_default().to_owned()
    }

    pub fn wait_for(&self, url: &str) {
        let began = Instant::now();
        while self.url() != url {
            assert!(began.elapsed() < PATIENCE, "at {} instead of {url}: {}", self.url(), self.ask("GET", "/source", None));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The first element of a CSS selector, once it is there.
    fn element(&self, selector: &str) -> String {
        let began = Instant::now();
        loop {
            let found = self.ask("POST", "/element", Some(&json!({ "using": "css selector", "value": selector })));
            if let Some(id) = found.as_object().and_then(|found| found.values().next()).and_then(Value::as_str)
                && found.get("error").is_none()
            {
                return id.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "no {selector} at {}: {}", self.url(), self.ask("GET", "/source", None));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn text(&self, selector: &str) -> String {
        let element = self.element(selector);
        self.ask("GET", &format!("/element/{element}/text"), None).as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element has this text: a page that is being left may still be the one that answers.
    pub fn wait_for_text(&self, selector: &str, text: &str) {
        let began = Instant::now();
        while self.text(selector) != text {
            assert!(began.elapsed() < PATIENCE, "at {}: {}", self.url(), self.ask("GET", "/source", None));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn click(&self, selector: &str) {
        let element = self.element(selector);
        self.ask("POST", &format!("/element/{element}/click"), Some(&json!({})));
    }

    fn type_into(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.ask("POST", &format!("/element/{element}/value"), Some(&json!({ "text": text })));
    }

    pub fn cookie(&self, name: &str) -> Value {
        self.ask("GET", &format!("/cookie/{name}"), None)
    }

    /// Fills the provider's form in, and agrees to what it asks then.
    pub fn log_in(&self, name: &str) {
        self.type_into("input[name=login]", name);
        self.type_into("input[name=password]", "any");
        self.click("button[type=submit]");
        let began = Instant::now();
        while !self.ask("GET", "/source", None).as_str().unwrap_or_default().contains("value=\"consent\"") {
            assert!(began.elapsed() < PATIENCE, "no question for consent at {}", self.url());
            std::thread::sleep(Duration::from_millis(50));
        }
        self.click("button[type=submit]");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = ureq::delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The value that a WebDriver command answers; an error is a value with `error`.
fn send(method: &str, url: &str, body: Option<&Value>) -> Value {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
    let request = ureq::http::Request::builder().method(method).uri(url).header("content-type", "application/json");
    let answer = match body {
        Some(body) => agent.run(request.body(body.to_string()).unwrap()),
        None => agent.run(request.body(()).unwrap()),
    };
    let answer = answer.unwrap().body_mut().read_to_string().unwrap();
    serde_json::from_str::<Value>(&answer).unwrap()["value"].take()
}
