//! A TCP proxy before a server that breaks connections where a test says so, or lets them fall silent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// Where and how a connection breaks.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// The way whose bytes are counted, over all connections.
    pub way: Way,
    /// So many bytes still pass.
    pub after: u64,
    /// The client loses its connection at once; what it had sent still reaches the server after this time, unless the
    /// server has closed the connection by then.
    pub late: Option<Duration>,
}

#[derive(Default)]
struct Shared {
    /// Bytes passed since the last [`Proxy::arm`].
    up: AtomicU64,
    down: AtomicU64,
    cut: Mutex<Option<Cut>>,
    cuts: AtomicUsize,
    /// Connections made so far.
    made: AtomicUsize,
    /// Connections with smaller numbers are open, and nothing passes on them any more.
    silent_below: watch::Sender<usize>,
}

/// A running proxy; it ends with its owner.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// Before the server on that loopback port.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(serve(listener, SocketAddr::from(([127, 0, 0, 1], server)), shared.clone()));
        Self { port, shared, task }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Counts from 0, and breaks the connection that reaches the place of the cut. One cut at a time.
    pub fn arm(&self, cut: Option<Cut>) {
        self.shared.up.store(0, Ordering::SeqCst);
        self.shared.down.store(0, Ordering::SeqCst);
        *self.shared.cut.lock().expect("no panic under the lock") = cut;
    }

    /// Bytes passed since [`Proxy::arm`].
    pub fn passed(&self, way: Way) -> u64 {
        self.shared.counter(way).load(Ordering::SeqCst)
    }

    /// All connections that there are, and those that come until [`Proxy::admit`], fall silent for good: they stay open, and
    /// what is sent on them is held back both ways. So it is where a cable is pulled.
    pub fn stall(&self) {
        self.shared.silent_below.send_replace(usize::MAX);
    }

    /// Connections that are made from now on work.
    pub fn admit(&self) {
        self.shared.silent_below.send_replace(self.shared.made.load(Ordering::SeqCst));
    }

    /// Connections broken so far.
    pub fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn counter(&self, way: Way) -> &AtomicU64 {
        match way {
            Way::Up => &self.up,
            Way::Down => &self.down,
        }
    }

    /// How many of `count` bytes may pass, and the cut that comes behind them.
    fn pass(&self, way: Way, count: usize) -> (usize, Option<Cut>) {
        let mut armed = self.cut.lock().expect("no panic under the lock");
        let before = self.counter(way).fetch_add(count as u64, Ordering::SeqCst);
        match *armed {
            Some(cut) if cut.way == way && before + count as u64 >= cut.after => {
                *armed = None;
                self.cuts.fetch_add(1, Ordering::SeqCst);
                let passes = cut.after.saturating_sub(before);
                (usize::try_from(passes).expect("less than what was read"), Some(cut))
            }
            _ => (count, None),
        }
    }
}

async fn serve(listener: TcpListener, server: SocketAddr, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.made.fetch_add(1, Ordering::SeqCst);
        let shared = shared.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else { return };
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (client_in, client_out) = client.into_split();
            let (server_in, server_out) = server.into_split();
            let broken = Arc::new(Notify::new());
            let up = tokio::spawn(pump(client_in, server_out, Way::Up, number, shared.clone(), broken.clone()));
            let down = tokio::spawn(pump(server_in, client_out, Way::Down, number, shared, broken));
            let _ = tokio::join!(up, down);
        });
    }
}

/// Passes bytes on until either side ends or is broken. When it returns, its ends are closed.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    number: usize,
    shared: Arc<Shared>,
    broken: Arc<Notify>,
) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = broken.notified() => return,
        };
        if *shared.silent_below.borrow() > number {
            // Not even that the other side closed it is told; both ends are closed with the runtime of the test.
            return std::future::pending().await;
        }
        let Ok(count @ 1..) = read else { break };
        let (passes, cut) = shared.pass(way, count);
        if to.write_all(&buffer[..passes]).await.is_err() {
            break;
        }
        if let Some(cut) = cut {
            broken.notify_one();
            if let (Some(late), Way::Up) = (cut.late, way) {
                let mut rest = buffer[passes..count].to_vec();
                drop(from);
                tokio::time::sleep(late).await;
                rest.shrink_to_fit();
                let _ = to.write_all(&rest).await;
                let _ = to.flush().await;
            }
            return;
        }
    }
    broken.notify_one();
}
