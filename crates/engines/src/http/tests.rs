//! Owns what engines may send, well-formed and not, in pieces of every size.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::*;

/// An engine that answers each request on one connection with the next of these, in pieces of so many bytes.
async fn engine(answers: Vec<Vec<u8>>, piece: usize, keep: bool) -> Connection {
    let (connection, mut stream) = connected().await;
    tokio::spawn(async move {
        for answer in answers {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            for piece in answer.chunks(piece) {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        }
        if keep {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    });
    connection
}

/// A connection and its other end.
async fn connected() -> (Connection, UnixStream) {
    let folder = tempfile();
    let socket = folder.join("engine.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let connection = Connection::open(&socket).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    (connection, stream)
}

fn tempfile() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("pontoon-http-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let folder = std::env::temp_dir().join(name);
    std::fs::create_dir(&folder).unwrap();
    folder
}

async fn exchange(connection: &mut Connection) -> Result<(u16, Vec<u8>), Failure> {
    let status = connection.post("/v1/x", b"{\"a\":1}").await?;
    Ok((status, connection.whole(1 << 20).await?))
}

#[tokio::test]
async fn bodies_of_every_kind_are_read_and_connections_kept_where_they_may_be() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 500 Oh\r\nconnection: Close\r\ncontent-length: 2\r\n\r\nno",
    ];
    for piece in [1, 7, 4096] {
        let answers = answers.iter().map(|answer| answer.to_vec()).collect();
        let mut connection = engine(answers, piece, true).await;
        for (status, body, kept) in
            [(200, "hello", true), (200, "hello", true), (204, "", true), (500, "no", false)]
        {
            let (got, bytes) = exchange(&mut connection).await.unwrap();
            assert_eq!(
                (got, bytes.as_slice(), connection.usable()),
                (status, body.as_bytes(), kept),
                "{piece}"
            );
        }
    }
    let until_closed = b"HTTP/1.0 200 OK\r\n\r\nall there is".to_vec();
    let mut connection = engine(vec![until_closed], 3, false).await;
    assert_eq!(exchange(&mut connection).await.unwrap().1, b"all there is");
    assert!(!connection.usable());
}

#[tokio::test]
async fn a_connection_with_more_than_its_answer_or_less_is_not_used_again() {
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi".to_vec();
    let mut connection = engine(vec![[&answer[..], b"HTTP/1.1 200 OK\r\n"].concat()], 4096, true).await;
    exchange(&mut connection).await.unwrap();
    assert!(!connection.usable(), "something came that nobody asked for");
    let mut connection = engine(vec![answer.clone()], 4096, true).await;
    connection.post("/x", b"").await.unwrap();
    assert!(!connection.usable(), "the body was not read");
    let mut connection = engine(vec![answer], 4096, false).await;
    exchange(&mut connection).await.unwrap();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if !connection.usable() {
            return;
        }
    }
    panic!("the engine has closed it");
}

#[tokio::test]
async fn what_is_no_http_is_said_and_never_waited_for() {
    for (answer, said) in [
        (&b"hello there\r\n\r\n"[..], "no HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "content-length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", "content-length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", "gzip"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", "piece's length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n", "piece's length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n;x\r\n\r\n", "piece's length"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc\r\n", "behind a piece"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", "broke off"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", "broke off"),
        (b"", "broke off"),
    ] {
        let mut connection = engine(vec![answer.to_vec()], 4096, false).await;
        let failure = exchange(&mut connection).await.unwrap_err().to_string();
        assert!(failure.contains(said), "{failure}");
        assert!(!connection.usable());
    }
    let endless = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'y'; 2 * MAX_HEAD]].concat();
    let mut connection = engine(vec![endless], 4096, true).await;
    assert!(exchange(&mut connection).await.unwrap_err().to_string().contains("longer than 16384"));
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n".to_vec();
    let trailers = [chunked, b"a: b\r\n".repeat(MAX_HEAD / 4 + 1)].concat();
    let mut connection = engine(vec![trailers], 4096, true).await;
    assert!(exchange(&mut connection).await.unwrap_err().to_string().contains("behind a piece"));
    let mut connection = engine(vec![b"HTTP/1.1 102 Wait\r\n\r\n".repeat(9)], 4096, true).await;
    assert!(exchange(&mut connection).await.unwrap_err().to_string().contains("more than 8 heads"));
    let mut connection = engine(vec![], 1, true).await;
    assert!(connection.post("/a b", b"").await.is_err());
}

/// An engine that has seen enough of a request says so, and reads no further or closes.
#[tokio::test]
async fn an_answer_before_the_end_of_the_question_is_heard() {
    let body = vec![b' '; 4 << 20];
    for closes in [false, true] {
        let (mut connection, mut theirs) = connected().await;
        let engine = tokio::spawn(async move {
            theirs.read_exact(&mut [0; 1000]).await.unwrap();
            theirs.write_all(b"HTTP/1.1 413 Large\r\ncontent-length: 3\r\n\r\nno!").await.unwrap();
            (!closes).then_some(theirs)
        });
        let asked = tokio::time::timeout(Duration::from_secs(20), connection.post("/x", &body)).await;
        assert_eq!(asked.expect("no answer was waited for in vain").unwrap(), 413);
        assert_eq!(connection.whole(100).await.unwrap(), b"no!");
        assert!(!connection.usable(), "half a question is still under way");
        drop(engine.await.unwrap());
    }
    // One that reads no more and says nothing.
    let (mut connection, theirs) = connected().await;
    let theirs = theirs.into_std().unwrap();
    theirs.shutdown(std::net::Shutdown::Read).unwrap();
    let failure = connection.post("/x", &body).await.unwrap_err();
    assert!(failure.to_string().contains("broke off"), "{failure}");
    assert!(!connection.usable());
}

#[tokio::test]
async fn an_answer_is_no_longer_than_it_may_be() {
    let answer = [b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 2000]].concat();
    let mut connection = engine(vec![answer], 100, true).await;
    connection.post("/x", b"").await.unwrap();
    assert!(connection.whole(1000).await.unwrap_err().to_string().contains("longer than 1000 bytes"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a body is cut into chunks, and the bytes into reads, it comes out whole.
    #[test]
    fn any_pieces_make_the_same_body(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..12),
        reads in 1usize..200,
    ) {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for piece in &pieces {
            answer.extend(format!("{:x}\r\n", piece.len()).bytes());
            answer.extend(piece);
            answer.extend(b"\r\n");
        }
        answer.extend(b"0\r\n\r\n");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = engine(vec![answer], reads, true).await;
            let (_, body) = exchange(&mut connection).await.unwrap();
            assert_eq!(body, pieces.concat());
            assert!(connection.usable());
        });
    }

    /// Whatever an engine sends is an answer or a failure, never a panic.
    #[test]
    fn any_bytes_are_an_answer_or_a_failure(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        prefix in prop::sample::select(vec!["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"]),
    ) {
        let all = [prefix.as_bytes(), &bytes].concat();
        if let Ok(Some((head, length))) = Head::parse(&all) {
            let (mut left, mut at) = (head.left, length);
            for _ in 0..2 * all.len() + 2 {
                match left.next(&all[at..]) {
                    Ok(answer::Next::Data(count) | answer::Next::Skip(count)) => at += count,
                    _ => break,
                }
            }
            prop_assert!(at <= all.len());
        }
    }
}
