//! A proxy that cuts connections: after so many bytes towards the client or the server it drops the
//! connection without a word, or stops sending.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What happens to connections, and what has happened.
#[derive(Default)]
pub(crate) struct Plan {
    /// Cut a connection once it has carried so many bytes to the client; one entry for each cut.
    pub(crate) cuts_down: Mutex<Vec<u64>>,
    /// The same for bytes to the server.
    pub(crate) cuts_up: Mutex<Vec<u64>>,
    /// All bytes to clients.
    pub(crate) down: AtomicU64,
    pub(crate) cut: AtomicUsize,
    /// The heads of requests that ask for a range.
    pub(crate) ranges: Mutex<Vec<String>>,
    /// Send no more than so many bytes to the client, then keep it waiting.
    pub(crate) stall_after: AtomicU64,
}

/// Starts a proxy before a port; tells its own.
pub(crate) async fn start(to: u16, plan: Arc<Plan>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let plan = plan.clone();
            tokio::spawn(async move {
                let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                serve(client, server, &plan).await;
            });
        }
    });
    port
}

async fn serve(client: TcpStream, server: TcpStream, plan: &Plan) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = carry(client_read, server_write, plan, false) => {}
        () = carry(server_read, client_write, plan, true) => {}
    }
}

async fn carry(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, plan: &Plan, down: bool) {
    let cuts = if down { &plan.cuts_down } else { &plan.cuts_up };
    let (mut carried, mut piece) = (0u64, vec![0; 16 << 10]);
    loop {
        let Ok(count @ 1..) = from.read(&mut piece).await else { return };
        carried += count as u64;
        if down {
            let all = plan.down.fetch_add(count as u64, Ordering::SeqCst) + count as u64;
            let stall = plan.stall_after.load(Ordering::SeqCst);
            while stall > 0 && all > stall && plan.stall_after.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        } else {
            note_range(&piece[..count], plan);
        }
        if due(cuts, carried) {
            plan.cut.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(&piece[..count]).await.is_err() {
            return;
        }
    }
}

fn due(cuts: &Mutex<Vec<u64>>, carried: u64) -> bool {
    let mut cuts = cuts.lock().unwrap();
    let at = cuts.iter().position(|cut| carried > *cut);
    at.map(|at| cuts.remove(at)).is_some()
}

fn note_range(head: &[u8], plan: &Plan) {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let range = text.lines().find(|line| line.starts_with("range:") || line.starts_with("content-range:"));
    plan.ranges.lock().unwrap().extend(range.map(str::to_owned));
}
