//! Origins that speak HTTP/2: shared connections, refusals, the end of a connection.

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use futures_util::future::join_all;
use h2::server::{Connection, SendResponse};
use http::{Request, Response};
use tokio::{net::TcpStream, sync::Notify};

use super::rig::{Rig, origin, run, until};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

type Call = (Request<h2::RecvStream>, SendResponse<Bytes>);

async fn accept(connection: &mut Connection<TcpStream, Bytes>) -> Option<Call> {
    connection.accept().await?.ok()
}

fn answer(mut respond: SendResponse<Bytes>, text: &'static str) {
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(text.as_bytes()), true).unwrap();
}

#[test]
fn a_refused_request_is_sent_again_with_its_body() {
    run(async {
        let rig = Rig::multiplexed().await;
        rig.publish(
            origin(|stream, number| async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some((mut request, mut respond)) = accept(&mut connection).await {
                    // The first connection says that it has not looked at the request, after it got the body.
                    if number == 0 {
                        respond.send_reset(h2::Reason::REFUSED_STREAM);
                        continue;
                    }
                    tokio::task::spawn_local(async move {
                        let body = request.body_mut().data().await.unwrap().unwrap();
                        assert_eq!(&body[..], b"hi");
                        answer(respond, "done");
                    });
                }
            })
            .await,
        );
        let got = rig.ask(POST).await;
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("done\r\n0\r\n\r\n"), "{got}");
    });
}

#[test]
fn an_origin_that_refuses_everything_is_an_error_and_no_endless_loop() {
    run(async {
        let rig = Rig::multiplexed().await;
        rig.publish(
            origin(|stream, _| async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some((_, mut respond)) = accept(&mut connection).await {
                    respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
            })
            .await,
        );
        let got = rig.ask(POST).await;
        assert!(got.starts_with("HTTP/1.1 502") && got.contains("miwi-reason: reset"), "{got}");
    });
}

#[test]
fn a_connection_that_says_goodbye_costs_no_request() {
    run(async {
        let rig = Rig::multiplexed().await;
        rig.publish(
            origin(|stream, _| async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some((_, respond)) = accept(&mut connection).await {
                    answer(respond, "ok");
                    connection.graceful_shutdown();
                }
            })
            .await,
        );
        for _ in 0..20 {
            assert!(rig.ask(POST).await.starts_with("HTTP/1.1 200"));
        }
    });
}

#[test]
fn a_full_connection_gets_company_and_no_more_than_needed() {
    run(async {
        let rig = Rig::multiplexed().await;
        let (connections, waiting, go) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Notify::new()));
        let (opened, held, gone) = (connections.clone(), waiting.clone(), go.clone());
        let endpoint = rig.publish(
            origin(move |stream, _| {
                let (opened, held, gone) = (opened.clone(), held.clone(), gone.clone());
                async move {
                    opened.set(opened.get() + 1);
                    let mut builder = h2::server::Builder::new();
                    let mut connection = builder.max_concurrent_streams(2).handshake(stream).await.unwrap();
                    while let Some((request, respond)) = accept(&mut connection).await {
                        if request.uri().path() == "/first" {
                            answer(respond, "ok");
                            continue;
                        }
                        let (held, gone) = (held.clone(), gone.clone());
                        tokio::task::spawn_local(async move {
                            held.set(held.get() + 1);
                            gone.notified().await;
                            answer(respond, "ok");
                        });
                    }
                }
            })
            .await,
        );
        // By its answer the origin's settings are known.
        assert!(rig.ask("GET /first HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.contains("ok"));
        let release = async {
            until(|| waiting.get() == 6).await;
            assert_eq!((connections.get(), endpoint.in_flight()), (3, 6));
            go.notify_waiters();
        };
        let (answers, ()) = tokio::join!(join_all((0..6).map(|_| rig.get())), release);
        assert!(answers.iter().all(|it| it.contains("ok")), "{answers:?}");
        assert_eq!(rig.pools.idle(&endpoint), 3);
    });
}

#[test]
fn a_client_that_leaves_cancels_its_stream_and_the_connection_goes_on() {
    run(async {
        let rig = Rig::multiplexed().await;
        let reset = Rc::new(Cell::new(None));
        let (seen, count) = (reset.clone(), Rc::new(Cell::new(0)));
        let connections = count.clone();
        rig.publish(
            origin(move |stream, _| {
                let seen = seen.clone();
                count.set(count.get() + 1);
                async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some((request, mut respond)) = accept(&mut connection).await {
                        if request.uri().path() == "/quick" {
                            answer(respond, "ok");
                            continue;
                        }
                        let seen = seen.clone();
                        tokio::task::spawn_local(async move {
                            seen.set(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.ok());
                        });
                    }
                }
            })
            .await,
        );
        let endpoint = rig.set.endpoints().remove(0);
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        super::rig::say(&mut client, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until(|| endpoint.in_flight() == 1 && rig.pools.idle(&endpoint) == 1).await;
        drop(client);
        until(|| reset.get() == Some(h2::Reason::CANCEL)).await;
        assert!(rig.ask("GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.contains("ok"));
        assert_eq!(connections.get(), 1);
    });
}
