//! P10 over HTTP: slow, endless, oversized, compressed and malformed requests are refused in time and within their memory, and nothing of them is
//! stored; the service goes on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{LOG, Service, event};
use std::io::Write;
use std::time::{Duration, Instant};

const LIMIT: usize = 1 << 20;
const ZSTD: (&str, &str) = ("content-encoding", "zstd");
const GZIP: (&str, &str) = ("content-encoding", "gzip");

async fn strict() -> Service {
    Service::with(|engine, server| {
        engine.limits.body_bytes = LIMIT;
        server.request_timeout = Duration::from_millis(1500);
        server.header_timeout = Duration::from_millis(1500);
        server.write_timeout = Duration::from_millis(1500);
    })
    .await
}

/// The service is as it was: nothing stored, no memory held, and it takes the next record.
async fn unharmed(service: &Service) {
    assert_eq!(service.count().await, 0);
    assert_eq!(service.memory().await, 0);
    assert_eq!(service.post(LOG, &[], event(1)).await.status, 201);
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_cuts_off_a_sender_of_a_byte_a_second() {
    let service = strict().await;
    let began = Instant::now();
    let mut connection = service.connect().await;
    connection.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: 500000\r\n\r\n")).await;
    let answer = loop {
        connection.raw("[").await;
        if let Ok(answer) = tokio::time::timeout(Duration::from_millis(500), connection.answer()).await {
            break answer;
        }
    };
    assert_eq!(answer.refusal(), (408, "slow_sender".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(connection.is_closed().await);
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_cuts_off_slow_headers_and_idle_connections() {
    let service = strict().await;
    let mut silent = service.connect().await;
    let mut slow = service.connect().await;
    slow.raw(format!("POST {LOG} HTTP/1.1\r\nhost: te")).await;
    let mut idle = service.connect().await;
    idle.send("GET", "/healthz", &[], b"").await;
    assert_eq!(idle.answer().await.status, 200);
    let began = Instant::now();
    for connection in [&mut silent, &mut slow, &mut idle] {
        while let Some(answer) = connection.try_answer().await {
            assert_eq!(answer.status, 408);
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_refuses_thousands_of_headers_and_huge_ones() {
    let service = strict().await;
    let many: String = (0..5000).map(|number| format!("x-{number}: 1\r\n")).collect();
    let huge = format!("x-huge: {}\r\n", "x".repeat(1 << 20));
    let long = format!("GET /{} HTTP/1.1\r\nhost: test\r\n\r\n", "x".repeat(200_000));
    for request in [format!("GET / HTTP/1.1\r\n{many}\r\n"), format!("GET / HTTP/1.1\r\n{huge}\r\n"), long] {
        let mut connection = service.connect().await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut connection.stream, request.as_bytes()).await;
        // The answer may be lost where the service closes while more is still arriving.
        if let Some(answer) = connection.try_answer().await {
            assert!([414, 431].contains(&answer.status), "{}", answer.status);
        }
    }
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_refuses_what_is_not_http() {
    let service = strict().await;
    for request in
        ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}", "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"]
    {
        let mut connection = service.connect().await;
        connection.raw(request).await;
        if let Some(answer) = connection.try_answer().await {
            assert!((400..500).contains(&answer.status), "{request:?}: {}", answer.status);
        }
    }
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_refuses_bodies_over_the_limit() {
    let service = strict().await;
    let body = vec![b' '; LIMIT + 1];
    let announced = service.post(LOG, &[], &body).await;
    assert_eq!(announced.refusal(), (413, "too_large".to_owned()));

    let mut unsent = service.connect().await;
    unsent.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n", 1_u64 << 50)).await;
    let began = Instant::now();
    assert_eq!(unsent.answer().await.refusal(), (413, "too_large".to_owned()));
    assert!(began.elapsed() < Duration::from_secs(1), "before the body is asked for");

    let mut chunked = service.connect().await;
    chunked.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n")).await;
    for part in body.chunks(10_000) {
        chunked.raw(format!("{:x}\r\n", part.len())).await;
        chunked.raw(part).await;
        chunked.raw("\r\n").await;
    }
    chunked.raw("0\r\n\r\n").await;
    assert_eq!(chunked.answer().await.refusal(), (413, "too_large".to_owned()));

    let fits = format!("{}{}", event(1), " ".repeat(LIMIT - event(1).len()));
    assert_eq!(service.post(LOG, &[], &fits).await.status, 201, "the limit itself is allowed");
    assert_eq!(service.memory().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_stops_unpacking_bombs_at_the_limit() {
    let service = strict().await;
    let plain = vec![b' '; 64 << 20];
    let zeros = zstd::bulk::compress(&plain, 19).unwrap();
    let unpledged = zstd::stream::encode_all(plain.as_slice(), 1).unwrap();
    for (encoding, body) in [(GZIP, gzip(&plain)), (ZSTD, zeros), (ZSTD, unpledged)] {
        let began = Instant::now();
        let answer = service.post(LOG, &[encoding], &body).await;
        assert_eq!(answer.refusal(), (413, "too_large".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let exact = format!("{}{}", " ".repeat(LIMIT - event(1).len()), event(1));
    for (encoding, body) in [(GZIP, gzip(exact.as_bytes())), (ZSTD, zstd::bulk::compress(exact.as_bytes(), 3).unwrap())] {
        assert_eq!(service.post(LOG, &[encoding], &body).await.status, 201, "the limit itself is allowed");
    }
    let over = format!(" {exact}");
    for (encoding, body) in [(GZIP, gzip(over.as_bytes())), (ZSTD, zstd::bulk::compress(over.as_bytes(), 3).unwrap())] {
        assert_eq!(service.post(LOG, &[encoding], &body).await.status, 413, "one byte more is not");
    }
    assert_eq!(service.memory().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_names_what_is_wrong_with_compressed_bodies() {
    let service = strict().await;
    let plain = event(1).repeat(1000);
    let (gz, zst) = (gzip(plain.as_bytes()), zstd::bulk::compress(plain.as_bytes(), 3).unwrap());
    let mut wide = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(plain.as_bytes()).unwrap();
    let wide = wide.finish().unwrap();
    let mut wrong_sum = gz.clone();
    let last = wrong_sum.len() - 5;
    wrong_sum[last] ^= 1;
    for (what, encoding, body) in [
        ("cut gzip", GZIP, gz[..gz.len() - 9].to_vec()),
        ("cut gzip header", GZIP, gz[..5].to_vec()),
        ("gzip with a wrong sum", GZIP, wrong_sum),
        ("garbage after gzip", GZIP, [&gz[..], b"garbage garbage"].concat()),
        ("not gzip", GZIP, event(1).into_bytes()),
        ("no gzip", GZIP, Vec::new()),
        ("cut zstd", ZSTD, zst[..zst.len() - 3].to_vec()),
        ("garbage after zstd", ZSTD, [&zst[..], b"garbage"].concat()),
        ("not zstd", ZSTD, event(1).into_bytes()),
        ("no zstd", ZSTD, Vec::new()),
        ("a wide zstd window", ZSTD, wide),
        ("zstd called gzip", GZIP, zst.clone()),
    ] {
        let answer = service.post(LOG, &[encoding], &body).await;
        assert_eq!(answer.refusal(), (400, "damaged_body".to_owned()), "{what}");
        let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("gzip") || message.contains("Zstandard"), "{message}");
    }
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_refuses_malformed_records() {
    let service = strict().await;
    let deep = format!(
        r#"{{"table_name":"t","primary_key":"1","operation":"INSERT","new_values":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let invalid = b"{\"table_name\":\"\xff\xfe\",\"primary_key\":\"1\",\"operation\":\"INSERT\"}".to_vec();
    let many = format!("{{{}}}", (0..20_000).map(|n| format!("\"f{n}\":1")).collect::<Vec<_>>().join(","));
    for body in [
        deep.into_bytes(),
        invalid,
        b"[".repeat(LIMIT),
        b"{\"a\":".repeat(LIMIT / 5),
        many.into_bytes(),
        b"\0\0\0".to_vec(),
        Vec::from("[{}"),
    ] {
        let answer = service.post(LOG, &[], &body).await;
        assert_eq!(answer.refusal(), (422, "invalid_records".to_owned()));
        assert!(answer.body.len() < 64 << 10, "an answer does not repeat what was sent");
    }
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_stores_nothing_of_a_body_that_ends_early() {
    let service = strict().await;
    let mut connection = service.connect().await;
    connection.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: 5000\r\n\r\n{}\n", event(1))).await;
    drop(connection);
    let mut chunked = service.connect().await;
    chunked
        .raw(format!(
            "POST {LOG} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{}\r\nnonsense\r\n",
            event(1).len(),
            event(1)
        ))
        .await;
    if let Some(answer) = chunked.try_answer().await {
        assert_eq!(answer.status, 400);
    }
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_holds_all_requests_within_one_budget() {
    let service = Service::with(|engine, _| {
        engine.limits.body_bytes = 8 << 20;
        engine.limits.memory_bytes = 10 << 20;
    })
    .await;
    let mut holders = Vec::new();
    for _ in 0..3 {
        let mut holder = service.connect().await;
        holder.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n\r\n", 8 << 20)).await;
        holder.raw(vec![b' '; 4 << 20]).await;
        holders.push(holder);
    }
    let mut refused = 0;
    for holder in &mut holders {
        if let Ok(Some(answer)) = tokio::time::timeout(Duration::from_secs(4), holder.try_answer()).await {
            assert_eq!(answer.refusal(), (503, "busy".to_owned()));
            assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
            refused += 1;
        }
    }
    assert!((1..3).contains(&refused), "{refused} of 3");
    assert!(service.memory().await <= 10 << 20);
    drop(holders);
    let freed = async {
        while service.memory().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed).await.expect("memory is given back");
    unharmed(&service).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_bounds_the_requests_of_one_client() {
    let service = Service::with(|_, server| server.requests_per_client = 2).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut connection = service.connect().await;
        connection.raw(format!("POST {LOG} HTTP/1.1\r\nhost: test\r\ncontent-length: 500\r\n\r\n")).await;
        waiting.push(connection);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = service.get("/healthz").await;
    assert_eq!(answer.refusal(), (429, "too_many_requests".to_owned()));
    assert_eq!(answer.header("retry-after"), Some("1"));
    drop(waiting);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(service.get("/healthz").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_lets_go_of_a_reader_who_takes_nothing() {
    let service = strict().await;
    let body: String = (0..1000).map(|key| event(key) + "\n").collect();
    assert_eq!(service.post(LOG, &[], body).await.status, 201);
    let mut reader = service.connect().await;
    let query =
        serde_json::json!({ "query": "SELECT a.*, b.new_values AS other FROM sys_audit_log a CROSS JOIN sys_audit_log b LIMIT 900000" });
    reader.send("POST", "/api/v1/sql", &[], query.to_string().as_bytes()).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let answer = reader.try_answer().await;
    assert!(answer.is_none_or(|answer| !answer.complete), "the rest was not kept for it");
    assert_eq!(service.get("/healthz").await.status, 200);
}
