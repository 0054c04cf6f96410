//! Origins that refuse, reset, hang or talk nonsense.

use std::{cell::Cell, rc::Rc, time::Duration};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
};

use super::rig::{DEADLINE, Rig, head, hold, nobody, origin, polite, run, say, until};
use crate::upstream::Address;

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_refused_connect_is_502_and_another_endpoint_is_tried_first() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(nobody());
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("miwi-reason: connect-refused"), "{answer}");
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                let mut body = [0; 2];
                stream.read_exact(&mut body).await.unwrap();
                assert_eq!(&body, b"hi");
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            })
            .await,
        );
        for _ in 0..4 {
            // Nothing of it was sent, so even a POST goes to the other one, with its body.
            assert!(rig.ask(POST).await.starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn a_reset_get_is_tried_once_more_and_a_post_never() {
    for (request, attempts) in [("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 2), (POST, 1)] {
        run(async {
            let rig = Rig::new().await;
            let count = Rc::new(Cell::new(0));
            for _ in 0..3 {
                let count = count.clone();
                rig.publish(
                    origin(move |mut stream, _| {
                        let count = count.clone();
                        async move {
                            head(&mut stream).await.unwrap();
                            count.set(count.get() + 1);
                        }
                    })
                    .await,
                );
            }
            let answer = rig.ask(request).await;
            assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("miwi-reason: reset"), "{answer}");
            assert_eq!(count.get(), attempts, "{request}");
        });
    }
}

#[test]
fn a_connection_that_dies_while_idle_costs_a_get_nothing() {
    run(async {
        let rig = Rig::new().await;
        // Every connection takes its second request and closes instead of answering.
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                head(&mut stream).await;
            })
            .await,
        );
        for _ in 0..5 {
            assert!(rig.get().await.ends_with("ok"));
        }
    });
}

#[test]
fn garbage_is_a_bad_response() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "SSH-2.0-OpenSSH_9\r\n\r\n").await;
            })
            .await,
        );
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("miwi-reason: bad-response"), "{answer}");
    });
}

#[test]
fn an_origin_that_hangs_is_a_head_timeout_and_frees_the_endpoint() {
    run(async {
        let rig = Rig::with(hold(8, DEADLINE), |mut it| {
            it.request_timeout = Duration::from_millis(30);
            it
        })
        .await;
        let endpoint = rig.publish(
            origin(|mut stream, _| async move {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            })
            .await,
        );
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("miwi-reason: head-timeout"), "{answer}");
        assert_eq!(endpoint.in_flight(), 0);
    });
}

#[test]
fn a_body_over_the_bound_is_413() {
    run(async {
        let rig = Rig::new().await;
        rig.publish(
            origin(|mut stream, _| async move {
                let _ = stream.read_to_end(&mut Vec::new()).await;
            })
            .await,
        );
        let chunk = "x".repeat(1024 * 1024 + 1);
        let length = format!("{:x}", chunk.len());
        let answer = rig
            .ask(&format!(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length}\r\n{chunk}\r\n0\r\n\r\n"
            ))
            .await;
        assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("miwi-reason: limit-body"), "{answer}");
    });
}

#[test]
fn a_body_that_breaks_off_is_not_passed_on_as_whole() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(
            origin(|mut stream, _| async move {
                head(&mut stream).await.unwrap();
                say(&mut stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
            })
            .await,
        );
        let answer = rig.get().await;
        assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
        assert_eq!((rig.pools.idle(&endpoint), endpoint.in_flight()), (0, 0));
    });
}

#[test]
fn unhealthy_endpoints_of_an_app_serve_when_there_is_nothing_better() {
    run(async {
        let rig = Rig::new().await;
        let endpoint = rig.publish(origin(polite).await);
        endpoint.set_healthy(false);
        assert!(rig.get().await.starts_with("HTTP/1.1 200"));
        endpoint.set_drained(true);
        let answer = rig.get().await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("miwi-reason: no-endpoint"), "{answer}");
    });
}

#[test]
fn a_full_backlog_of_a_unix_socket_is_busy_and_not_broken() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(1).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let rig = Rig::new().await;
        rig.set.publish(Address::Unix(path), "app-0".to_owned(), true);
        let listener = UnixListener::from_std(socket.into()).unwrap();
        let accept = async {
            until(|| rig.set.endpoints()[0].in_flight() == 1).await;
            // The connections that filled the backlog say nothing; the first that does is the forwarded request.
            drop(waiting);
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                if stream.read(&mut [0; 4096]).await.is_ok_and(|it| it > 0) {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
                    return;
                }
            }
        };
        let (answer, ()) = tokio::join!(rig.get(), accept);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    });
}
