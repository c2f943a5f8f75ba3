//! First contacts and addresses, with registries of a few lines on this machine's loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A server that gives its answers, one a request and the last one for ever; and how many it gave.
fn server(answers: &[&str]) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let given = Arc::new(AtomicUsize::new(0));
    let counter = given.clone();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let answer = &answers[counter.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)];
            // Who hangs up gets nothing.
            let _ = write!(stream, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
    });
    (address, given)
}

fn connection() -> Connection {
    Connection {
        credentials: Some(Credentials::Password { user: "user".to_owned(), password: "secret".to_owned() }),
        pause: Duration::from_millis(1),
        attempts: 3,
        ..Connection::default()
    }
}

fn connect(answers: &[&str], plain_http: bool) -> (Result<Client, RegistryError>, usize) {
    let (address, given) = server(answers);
    let connected = Client::connect(&address.to_string(), "a", "pull", &Connection { plain_http, ..connection() });
    (connected, given.load(Ordering::Relaxed))
}

#[test]
fn a_first_contact_is_tried_again() {
    let busy = "503 Busy\r\nRetry-After: 0";
    let (connected, given) = connect(&[busy, busy, "200 OK"], true);
    assert!(connected.is_ok() && given == 3, "{connected:?}");
    let (connected, given) = connect(&[busy], true);
    assert!(matches!(connected, Err(RegistryError::Refused { status: 503, .. })), "{connected:?}");
    assert_eq!(given, 3);
    let (connected, given) = connect(&["404 Not Found"], true);
    assert!(matches!(connected, Err(RegistryError::NotFound { .. })), "{connected:?}");
    assert_eq!(given, 1, "what lasts is not tried again");
}

#[test]
fn a_pause_is_told_in_seconds_or_by_a_time() {
    let pause = |value: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", value.parse().unwrap());
        told_pause(&headers)
    };
    assert_eq!(pause("7"), Some(Duration::from_secs(7)));
    assert_eq!(pause("Thu, 01 Jan 1970 00:00:01 GMT"), Some(Duration::ZERO), "it is past");
    assert!(pause("Fri, 01 Jan 2100 00:00:00 GMT").unwrap() > Duration::from_secs(3600));
    assert_eq!(pause("soon"), None);
}

#[test]
fn no_answer_leads_out_of_this_machine_without_tls() {
    // The name is one that does not exist, by RFC 2606, should it be looked up after all.
    for answer in [
        "401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://registry.invalid/token\"",
        "307 Temporary Redirect\r\nLocation: http://registry.invalid/v2/",
    ] {
        let (connected, _) = connect(&[answer], false);
        let error = connected.unwrap_err().to_string();
        assert!(error.contains("us to an address without TLS: http://registry.invalid/"), "{error}");
    }
}

#[test]
fn an_answer_that_leads_elsewhere_is_followed_a_few_times() {
    let (address, _) = server(&["200 OK"]);
    let there = format!("307 Temporary Redirect\r\nLocation: http://{address}/v2/");
    let (connected, given) = connect(&[&there], true);
    assert!(connected.is_ok() && given == 1, "{connected:?}");
    let (connected, given) = connect(&["302 Found\r\nLocation: /v2/"], true);
    assert!(matches!(connected, Err(RegistryError::Malformed { .. })), "{connected:?}");
    assert_eq!(given, 1 + MOST_REDIRECTIONS as usize);
}
