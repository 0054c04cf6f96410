//! What goes through, and what is kept for the next request.

use std::{cell::RefCell, rc::Rc, time::Duration};

use http_body_util::BodyExt;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use super::rig::{DEADLINE, Here, Rig, head, hold, origin, polite, run, say, until};
use crate::{exchange::Body, upstream::Availability};

#[test]
fn a_get_reaches_the_origin_and_its_answer_comes_back() {
    run(async {
        let rig = Rig::new().await;
        let seen = Rc::new(RefCell::new(String::new()));
        let heads = seen.clone();
        let endpoint = rig.publish(
            origin(move |mut stream, _| {
                let heads = heads.clone();
                async move {
                    *heads.borrow_mut() = head(&mut stream).await.unwrap();
                    say(
                        &mut stream,
                        "HTTP/1.1 418 Teapot\r\nX-A: b\r\nConnection: X-Hop\r\nX-Hop: 1\r\nContent-Length: 2\r\n\r\nhi",
                    )
                    .await;
                }
            })
            .await,
        );
        let answer = rig.get().await.to_lowercase();
        assert!(answer.starts_with("http/1.1 418") && answer.ends_with("\r\n\r\nhi"), "{answer}");
        assert!(answer.contains("x-a: b\r\n"), "{answer}");
        assert!(!answer.contains("x-hop"), "{answer}");
        let seen = seen.borrow().to_lowercase();
        assert!(seen.starts_with("get /x?y=1 http/1.1\r\n"), "{seen}");
        assert!(
            seen.contains("host: shop.example:8080\r\n") && seen.contains("x-forwarded-for: 127.0.0.1\r\n"),
            "{seen}"
        );
        // The answer gets it from whoever ends the exchange.
        assert!(seen.contains("x-request-id: id-1\r\n"), "{seen}");
        assert!(!seen.contains("connection:") && !seen.contains("transfer-encoding"), "{seen}");
        assert_eq!(endpoint.in_flight(), 0);
    });
}

#[test]
fn connections_are_reused_and_closed_when_the_endpoint_is_withdrawn() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(origin(polite).await);
        for _ in 0..3 {
            assert!(rig.get().await.ends_with("connection  0"));
        }
        assert_eq!(rig.pools.idle(&endpoint), 1);
        assert!(rig.set.withdraw(&endpoint, DEADLINE).await);
        assert_eq!(rig.pools.idle(&endpoint), 0);
        rig.set.set_availability(Availability::Stopped);
        assert!(rig.get().await.contains("miwi-reason: app-stopped"));
    });
}

#[test]
fn bodies_stream_both_ways() {
    run(async {
        let rig = Rig::new().await;
        // Every byte of the request is answered at once: a proxy that buffers either way never gets to the second.
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").await;
                for _ in 0..3 {
                    let byte = stream.read_u8().await.unwrap();
                    stream.write_u8(byte + 1).await.unwrap();
                }
            })
            .await,
        );
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        say(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n").await;
        for byte in *b"ace" {
            client.write_u8(byte).await.unwrap();
            if byte == b'a' {
                assert!(head(&mut client).await.unwrap().starts_with("HTTP/1.1 200"));
            }
            assert_eq!(client.read_u8().await.unwrap(), byte + 1);
        }
    });
}

#[test]
fn chunked_requests_stay_chunked() {
    run(async {
        let rig = Rig::new().await;
        let (heads, mut seen) = mpsc::unbounded_channel();
        rig.publish(
            origin(move |mut stream, _| {
                let heads = heads.clone();
                async move {
                    heads.send(head(&mut stream).await.unwrap()).unwrap();
                    let mut body = Vec::new();
                    while !body.ends_with(b"0\r\n\r\n") {
                        body.push(stream.read_u8().await.unwrap());
                    }
                    say(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
                }
            })
            .await,
        );
        let answer = rig
            .ask("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await;
        assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
        assert!(seen.recv().await.unwrap().contains("transfer-encoding: chunked"));
    });
}

#[test]
fn a_withdrawal_waits_for_what_is_in_flight() {
    run(async {
        let rig = Rig::new().await;
        let go = Rc::new(Notify::new());
        let waiting = go.clone();
        let endpoint = rig.publish(
            origin(move |mut stream, _| {
                let go = waiting.clone();
                async move {
                    head(&mut stream).await.unwrap();
                    go.notified().await;
                    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
                    // The connection must not go back to the pool of a withdrawn endpoint: it is closed.
                    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
                }
            })
            .await,
        );
        let answer = rig.get();
        let withdraw = async {
            until(|| endpoint.in_flight() == 1).await;
            assert!(!rig.set.withdraw(&endpoint, Duration::from_millis(20)).await, "it did not wait");
            go.notify_one();
            assert!(rig.set.withdraw(&endpoint, DEADLINE).await);
        };
        let (answer, ()) = tokio::join!(answer, withdraw);
        assert!(answer.ends_with("done"), "{answer}");
        assert_eq!(rig.pools.idle(&endpoint), 0);
    });
}

#[test]
fn a_client_that_leaves_frees_the_endpoint() {
    run(async {
        let rig = Rig::new().await;
        let (gone, mut noticed) = mpsc::unbounded_channel();
        let endpoint = rig.publish(
            origin(move |mut stream, _| {
                let gone = gone.clone();
                async move {
                    head(&mut stream).await.unwrap();
                    let _ = stream.read(&mut [0]).await;
                    gone.send(()).unwrap();
                }
            })
            .await,
        );
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        say(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until(|| endpoint.in_flight() == 1).await;
        drop(client);
        noticed.recv().await.unwrap();
        until(|| endpoint.in_flight() == 0).await;
    });
}

#[test]
fn events_end_when_their_endpoint_is_withdrawn_and_outlast_the_request_timeout() {
    run(async {
        let rig = Rig::with(hold(8, DEADLINE), |mut it| {
            it.request_timeout = Duration::from_millis(20);
            it
        })
        .await;
        let endpoint = rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n").await;
                // Longer than the request timeout, which is for other bodies.
                tokio::time::sleep(Duration::from_millis(60)).await;
                say(&mut stream, "data: 2\n\n").await;
                let _ = stream.read(&mut [0]).await;
            })
            .await,
        );
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        say(&mut client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("data: 2") {
            seen.push(client.read_u8().await.unwrap());
        }
        assert!(rig.set.withdraw(&endpoint, DEADLINE).await);
        let _ = client.read_to_end(&mut seen).await;
        assert!(!seen.ends_with(b"0\r\n\r\n"), "a stream that is cut must not look whole");
    });
}

#[test]
fn trailers_of_an_answer_come_through() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                assert!(head(&mut stream).await.unwrap().contains("te: trailers"));
                say(&mut stream, "HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n")
                    .await;
            })
            .await,
        );
        let answer = rig.ask("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, te\r\nTE: trailers\r\n\r\n").await;
        assert!(answer.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{answer}");
    });
}

#[test]
fn answers_without_a_body_keep_their_length_and_their_connection() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(
            origin(|mut stream, _| async move {
                while head(&mut stream).await.is_some() {
                    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
                }
            })
            .await,
        );
        for _ in 0..2 {
            let answer = rig.ask("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
            assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
        }
        assert_eq!(rig.pools.idle(&endpoint), 1);
    });
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it_from_us() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                assert!(!head(&mut stream).await.unwrap().contains("expect"));
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
                say(&mut stream, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
            })
            .await,
        );
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        say(&mut client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n").await;
        assert!(head(&mut client).await.unwrap().starts_with("HTTP/1.1 100"));
        say(&mut client, "x").await;
        assert!(head(&mut client).await.unwrap().starts_with("HTTP/1.1 201"));
    });
}

#[test]
fn an_http2_request_is_an_ordinary_one_to_an_http1_origin() {
    run(async {
        let rig = Rig::new().await;
        let (heads, mut seen) = mpsc::unbounded_channel();
        rig.publish(
            origin(move |mut stream, number| {
                let heads = heads.clone();
                async move {
                    heads.send(head(&mut stream).await.unwrap()).unwrap();
                    say(&mut stream, "HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
                    polite(stream, number).await;
                }
            })
            .await,
        );
        let stream = TokioIo::new(TcpStream::connect(rig.address).await.unwrap());
        let (mut client, connection) = http2::handshake(Here, stream).await.unwrap();
        tokio::task::spawn_local(connection);
        let request = http::Request::get("http://a.example/p?q").header("cookie", "a=1").header("cookie", "b=2");
        let answer = client.send_request(request.body(Body::Empty).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(!answer.headers().contains_key("keep-alive"));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hi");
        let seen = seen.recv().await.unwrap();
        assert!(seen.starts_with("GET /p?q HTTP/1.1\r\n") && seen.contains("cookie: a=1; b=2\r\n"), "{seen}");
        assert!(seen.contains("host: shop.example:8080\r\n") && seen.contains("via: 2 miwid\r\n"), "{seen}");
    });
}
