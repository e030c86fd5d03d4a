//! Metrics over HTTP, as Prometheus and a hostile client get them.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::{Builder, PASSWORD, PATIENCE, Server, USER, eventually};

/// Starts a server with metrics, and returns it with their address.
fn start(builder: Builder) -> (Server, SocketAddr) {
    let server = builder.flags(["--metrics", "127.0.0.1:0"]).start();
    let address = || {
        let log = server.stderr();
        let (_, rest) = log.split_once(" metrics on http://")?;
        rest.split_once("/metrics")?.0.parse().ok()
    };
    eventually("metrics are served", || address().is_some());
    let address = address().unwrap();
    (server, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends octets, and returns what the server answers until it closes the connection.
fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = connect(address);
    // The server may answer and close before it has read all of a request that is too large.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.take(10 << 20).read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

/// The body of an answer of status 200.
#[track_caller]
fn get(address: SocketAddr, path: &str, fields: &str) -> String {
    let answer = answer(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}

/// promtool's check of something, which is ended if it takes too long.
fn promtool(what: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", "promtool", "check", what]);
    command
}

/// The value of a metric with these labels.
#[track_caller]
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} is not in {text}")).parse().unwrap()
}

/// A session that retrieves and removes a message, a login that fails, and one whose client leaves.
fn make_sessions(server: &Server) {
    server.maildrop().put("1", "Subject: one\r\n\r\n1\r\n");
    let mut client = server.session();
    client.call("RETR 1");
    client.multiline();
    client.call("DELE 1");
    client.quit();
    let mut client = server.pop3();
    client.call("USER nobody");
    client.refused("PASS x");
    client.quit();
    drop(server.pop3());
    eventually("three sessions have ended", || server.stderr().matches(" end: ").count() == 3);
}

#[test]
fn sessions_logins_and_messages_are_counted() {
    let (server, address) = start(Server::builder());
    make_sessions(&server);
    let text = get(address, "/metrics", "");
    for (name, expected) in [
        ("pop3d_sessions_total{protocol=\"pop3\",tls=\"none\",result=\"quit\"}", 2.0),
        ("pop3d_sessions_total{protocol=\"pop3\",tls=\"none\",result=\"hang-up\"}", 1.0),
        ("pop3d_login_attempts_total{mechanism=\"pass\",result=\"ok\"}", 1.0),
        ("pop3d_login_attempts_total{mechanism=\"pass\",result=\"unknown-user\"}", 1.0),
        ("pop3d_login_attempts_total{mechanism=\"apop\",result=\"ok\"}", 0.0),
        ("pop3d_refused_connections_total{reason=\"too-many\"}", 0.0),
        ("pop3d_commands_total", 8.0),
        ("pop3d_connections_total", 3.0),
        ("pop3d_logins_total", 1.0),
        ("pop3d_retrieved_messages_total", 1.0),
        ("pop3d_removed_messages_total", 1.0),
        ("pop3d_login_seconds_count", 1.0),
        ("pop3d_scan_seconds_count", 1.0),
        ("pop3d_retr_first_octet_seconds_count", 1.0),
        ("pop3d_session_seconds_count", 3.0),
        ("pop3d_open_connections{protocol=\"pop3\"}", 0.0),
        ("pop3d_slots", 998.0),
        ("pop3d_slots_used", 0.0),
        ("pop3d_clients_waiting", 0.0),
        (&format!("pop3d_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        assert_eq!(value(&text, name), expected, "{name}");
    }
    assert!(value(&text, "pop3d_sent_octets_total") > 100.0 && value(&text, "pop3d_uptime_seconds") > 0.0);
    assert!(![USER, "nobody", "127.0.0.1"].iter().any(|private| text.contains(private)), "{text}");
    assert_eq!(get(address, "/healthz", ""), "ok\n");
}

#[test]
fn promtool_has_nothing_against_the_metrics() {
    let (server, address) = start(Server::builder());
    make_sessions(&server);
    let text = get(address, "/metrics?a=b", "Accept: text/plain\r\n");
    let mut promtool = promtool("metrics")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is there (scripts/install-test-tools)");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap(); // it reads all of it and ends
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}{text}");

    let open = get(address, "/metrics", "accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE pop3d_sessions counter\n"), "{open}");
}

#[test]
fn requests_that_are_none_are_refused() {
    let (_server, address) = start(Server::builder());
    let status = |request: &[u8]| answer(address, request).lines().next().unwrap_or_default().to_owned();
    let long = [b"GET /metrics HTTP/1.1\r\nA: ", &[b'a'; 20_000][..]].concat();
    let many = format!("GET /metrics HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(100));
    for (request, expected) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "HTTP/1.1 404 Not Found"),
        (b"GET /metricss HTTP/1.0\r\n\r\n", "HTTP/1.1 404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "HTTP/1.1 405 Method Not Allowed"),
        (b"\x16\x03\x01\x00\xff\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (b"nonsense\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        (&long, "HTTP/1.1 431 Request Header Fields Too Large"),
        (many.as_bytes(), "HTTP/1.1 431 Request Header Fields Too Large"),
    ] {
        assert_eq!(status(request), expected, "{}", request.escape_ascii());
    }
    let head = answer(address, b"HEAD /healthz HTTP/1.1\r\n\r\n");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("Content-Length: 3\r\nConnection: close\r\n\r\n")
    );
}

/// Many clients that send nothing, half a request, or an octet now and then, and clients that do not read.
#[test]
fn slow_clients_do_not_keep_others_waiting() {
    let (_server, address) = start(Server::builder());
    let mut slow: Vec<TcpStream> = (0..60).map(|_| connect(address)).collect();
    for (number, stream) in slow.iter_mut().enumerate() {
        let request: &[u8] = match number % 3 {
            0 => b"",
            1 => b"GET /metrics HTTP/1.1\r\nA: ",
            _ => b"GET /metrics HTTP/1.1\r\n\r\n",
        };
        let _ = stream.write_all(request);
    }
    for _ in 0..5 {
        assert!(get(address, "/metrics", "").contains("pop3d_slots 998"));
        for stream in &mut slow {
            let _ = stream.write_all(b"a");
        }
    }
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

fn prometheus(directory: &Path, metrics: SocketAddr, port: u16) -> Running {
    let configuration = directory.join("prometheus.yml");
    let text = format!(
        "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\nscrape_configs:\n  - job_name: pop3d\n    \
         static_configs:\n      - targets: [\"{metrics}\"]\n"
    );
    fs::write(&configuration, text).unwrap();
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", configuration.display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(directory.join("log")).unwrap())
        .spawn();
    Running(child.expect("prometheus is there (scripts/install-test-tools)"))
}

/// What a query gives, if Prometheus answers it with a value.
fn query(port: u16, query: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).ok()?;
    let body: serde_json::Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()?;
    Some(body["data"]["result"][0]["value"][1].as_str()?.to_owned())
}

#[test]
fn a_real_prometheus_gets_the_number_of_sessions() {
    let (server, address) = start(Server::builder());
    make_sessions(&server);
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut prometheus = prometheus(directory.path(), address, port);
    let mut answers = |name: &str, expected: &str| {
        eventually(name, || {
            assert!(
                prometheus.0.try_wait().unwrap().is_none(),
                "{:?}",
                fs::read_to_string(directory.path().join("log"))
            );
            query(port, name).is_some_and(|value| value == expected)
        });
    };
    answers("sum(pop3d_sessions_total)", "3");
    make_sessions_again(&server);
    answers("sum(pop3d_sessions_total)", "5");
    answers("pop3d_connections_total", "5");
    answers("up", "1");
}

fn make_sessions_again(server: &Server) {
    (0..2).for_each(|_| server.session().quit());
}

#[test]
fn a_confined_server_of_an_ordinary_user_has_metrics() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("passed over: only root can become another user");
        return;
    }
    let (server, address) = start(Server::builder().flags(["--run-as", "54321:54321", "--confine"]));
    let mut client = server.pop3();
    client.call("USER nobody");
    client.refused(&format!("PASS {PASSWORD}"));
    client.quit();
    eventually("the failure is counted", || {
        let text = get(address, "/metrics", "");
        value(&text, "pop3d_login_attempts_total{mechanism=\"pass\",result=\"unknown-user\"}") == 1.0
    });
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Server::builder().flags(["--metrics", &address]).refused();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains(&format!("cannot serve metrics on {address}")), "{said}");
}

/// The names of metrics in a text: words that begin with `pop3d_`.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("pop3d_"));
    words.map(str::to_owned).collect()
}

/// The dashboard and the alerts name only metrics that the server has.
#[test]
fn the_dashboard_and_the_alerts_name_what_there_is() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/prometheus");
    let certificate = crate::harness::Certificate::new();
    let (server, address) = start(Server::builder().tls(&certificate));
    make_sessions(&server);
    let exported = names(&get(address, "/metrics", ""));
    let dashboard = fs::read_to_string(scripts.join("dashboard.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() >= 12);
    for text in [dashboard, fs::read_to_string(scripts.join("alerts.yml")).unwrap()] {
        let missing: Vec<_> = names(&text).difference(&exported).cloned().collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
    for (what, file) in [("rules", "alerts.yml"), ("config", "prometheus.yml")] {
        let output = promtool(what).arg(scripts.join(file)).output().unwrap();
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stdout));
    }
}
