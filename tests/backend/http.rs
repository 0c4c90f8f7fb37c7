//! The transport that all clients share, against a service with every fault.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use secretfs::backend::http::{Answer, Connection, Http, Method, Request};
use secretfs::backend::{BackendError, Deadline};

use crate::service::{Reply, Service};

/// Long enough for a busy machine, and far shorter than anything that hangs.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(300);

fn client(service: &Service) -> Http {
    Http::new(&Connection { ca: Some(service.authority()), ..Connection::default() }).unwrap()
}

fn get(service: &Service, time: Duration) -> Result<Answer, BackendError> {
    let url = service.url("/v1/thing?x=1");
    client(service).send(&Request { url: &url, ..Request::default() }, Deadline::within(time))
}

#[test]
fn a_request_arrives_as_it_was_made_and_the_answer_comes_back_whole() {
    let service = Service::start(|asked| {
        let body = asked.body.iter().rev().copied().collect();
        let date = ("Date", "Sat, 28 Nov 2026 22:00:00 GMT".to_owned());
        Reply::Answer { status: 201, headers: vec![date], body }
    });
    let http = client(&service);
    let body = b"canary-7f3a".repeat(10_000);
    let url = service.url("/v1/thing?x=1");
    for method in [Method::Post, Method::Put, Method::Patch] {
        let headers: [(&str, &[u8]); 1] = [("X-Token", b"example")];
        let request = Request { method, url: &url, headers: &headers, body: Some(&body) };
        let answer = http.send(&request, Deadline::within(LONG)).unwrap();
        let reversed: Vec<u8> = body.iter().rev().copied().collect();
        assert_eq!((answer.status, answer.body.expose()), (201, reversed.as_slice()));
        assert_eq!(answer.date().unwrap().to_string(), "2026-11-28T22:00:00Z");
        assert_eq!(format!("{answer:?}"), "Answer(201)");
    }
    let asked = service.asked();
    assert_eq!(asked[0].headers["x-token"], "example");
    assert_eq!((asked[0].path.as_str(), asked[0].method.as_str()), ("/v1/thing?x=1", "POST"));
    assert_eq!(service.connections(), 1, "one connection serves one request after the other");
}

#[test]
fn a_service_that_is_down_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    drop(listener);
    let service = Service::that_answers(Reply::Silence);
    let request = Request { url: &url, ..Request::default() };
    let failed = client(&service).send(&request, Deadline::within(LONG)).unwrap_err();
    assert!(matches!(failed, BackendError::Unreachable(_)), "{failed:?}");
}

#[test]
fn a_service_with_another_certificate_gets_no_request() {
    let (service, other) =
        (Service::that_answers(Reply::Silence), Service::that_answers(Reply::Silence));
    let url = service.url("/");
    let request = Request { url: &url, ..Request::default() };
    let failed = client(&other).send(&request, Deadline::within(LONG)).unwrap_err();
    assert!(
        matches!(&failed, BackendError::Unreachable(why) if why.contains("certificate")),
        "{failed:?}"
    );
    assert!(service.asked().is_empty());
    // The right authority, and a name that the certificate does not have.
    let url = url.replace("127.0.0.1", "127.0.0.2");
    let request = Request { url: &url, ..Request::default() };
    let failed = client(&service).send(&request, Deadline::within(LONG)).unwrap_err();
    assert!(matches!(failed, BackendError::Unreachable(_)), "{failed:?}");
}

#[test]
fn silence_and_a_byte_now_and_then_both_end_at_the_deadline() {
    for reply in [Reply::Silence, Reply::Trickle] {
        let service = Service::that_answers(reply.clone());
        let start = Instant::now();
        let failed = get(&service, SHORT).unwrap_err();
        assert_eq!(failed, BackendError::TimedOut, "{reply:?}");
        assert!(start.elapsed() < LONG, "{reply:?}");
    }
}

#[test]
fn who_takes_no_connection_costs_no_more_than_the_deadline() {
    // It listens, and TLS never begins.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let service = Service::that_answers(Reply::Silence);
    let request = Request { url: &url, ..Request::default() };
    let failed = client(&service).send(&request, Deadline::within(SHORT)).unwrap_err();
    assert_eq!(failed, BackendError::TimedOut);
}

#[test]
fn an_answer_that_is_cut_off_endless_or_no_http_is_a_failure() {
    let cut = Reply::CutOff { status: 200, body: b"canary-7f3a".to_vec() };
    for reply in [cut, Reply::Endless, Reply::Nonsense] {
        let service = Service::that_answers(reply.clone());
        let failed = get(&service, LONG).unwrap_err();
        let passes = matches!(failed, BackendError::Failed(_) | BackendError::Unreachable(_));
        assert!(passes && !format!("{failed:?}").contains("canary"), "{reply:?}: {failed:?}");
    }
}

#[test]
fn an_answer_that_ends_with_the_connection_is_not_taken_for_whole() {
    // Without a length: where it ends is where the connection does, and anybody can end a connection.
    let service = Service::start(|_| Reply::Raw(b"HTTP/1.1 200 OK\r\n\r\ncanary-7f".to_vec()));
    let failed = get(&service, LONG).unwrap_err();
    assert!(matches!(failed, BackendError::Failed(_)), "{failed:?}");
}

#[test]
fn who_asks_to_be_left_alone_is() {
    for (reply, wait) in [
        (Reply::status(429, &[("Retry-After", "7")]), Some(Duration::from_secs(7))),
        (Reply::status(429, &[]), None),
        (Reply::status(503, &[("Retry-After", "1")]), Some(Duration::from_secs(1))),
    ] {
        let service = Service::that_answers(reply);
        let failed = get(&service, LONG).unwrap_err();
        assert_eq!(failed, BackendError::Throttled { retry_after: wait });
    }
}

#[test]
fn a_failure_is_for_the_client_to_understand() {
    for status in [400, 403, 404, 500, 503] {
        let service = Service::that_answers(Reply::json(status, &serde_json::json!({"e": 1})));
        let answer = get(&service, LONG).unwrap();
        assert_eq!((answer.status, answer.body.expose()), (status, &br#"{"e":1}"#[..]));
    }
}

#[test]
fn a_redirect_is_not_followed_wherever_it_leads() {
    let other = Service::that_answers(Reply::json(200, &serde_json::json!({})));
    for target in [other.url("/"), "/v1/elsewhere".to_owned()] {
        let service = Service::that_answers(Reply::status(307, &[("Location", &target)]));
        let failed = get(&service, LONG).unwrap_err();
        assert!(matches!(failed, BackendError::Failed(_)), "{failed:?}");
        assert_eq!(service.asked().len(), 1);
    }
    assert!(other.asked().is_empty());
}

#[test]
fn a_proxy_is_used_only_where_the_configuration_names_one() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let named = format!("http://{}", proxy.local_addr().unwrap());
    let service = Service::that_answers(Reply::json(200, &serde_json::json!({})));
    let connection =
        Connection { ca: Some(service.authority()), proxy: Some(named), ..Connection::default() };
    let url = service.url("/");
    let asked = std::thread::spawn(move || {
        let (stream, _) = proxy.accept().unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    });
    let request = Request { url: &url, ..Request::default() };
    let failed = Http::new(&connection).unwrap().send(&request, Deadline::within(LONG));
    assert!(failed.is_err() && service.asked().is_empty());
    assert!(asked.join().unwrap().starts_with("CONNECT 127.0.0.1:"));
}
