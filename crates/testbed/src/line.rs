//! A network of one's own making: a relay on loopback that holds every byte back as a long or narrow line would. In user
//! space, since not every kernel has `netem`; so a delay is never shorter than what was asked for, and a tenth of a
//! millisecond is about as fine as it gets.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that are on the line at once, of at most [`PIECE`] bytes each.
const PIECES: usize = 1024;
const PIECE: usize = 256 << 10;

/// A line to a host. Its threads end with their connections; the listener ends with the process.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
}

impl Line {
    /// A line to `host`: so long a way there and back, and so many bytes a second in each direction.
    pub fn to(host: SocketAddr, round_trip: Duration, bytes_per_second: u64) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(host) else { continue };
                for (from, to) in [(near.try_clone(), far.try_clone()), (far.try_clone(), near.try_clone())] {
                    let (Ok(from), Ok(to)) = (from, to) else { continue };
                    let _ = to.set_nodelay(true);
                    carry(from, to, round_trip / 2, bytes_per_second);
                }
            }
        });
        Ok(Self { address })
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn carry(mut from: TcpStream, to: TcpStream, delay: Duration, bytes_per_second: u64) {
    let (put, taken) = sync_channel::<(Instant, Vec<u8>)>(PIECES);
    thread::spawn(move || deliver(&taken, to));
    thread::spawn(move || {
        let mut chunk = vec![0; PIECE];
        // When the line has taken all that was put on it so far.
        let mut free = Instant::now();
        while let Ok(len @ 1..) = from.read(&mut chunk) {
            free = free.max(Instant::now()) + Duration::from_secs_f64(len as f64 / bytes_per_second as f64);
            if put.send((free + delay, chunk[..len].to_vec())).is_err() {
                break;
            }
        }
    });
}

fn deliver(taken: &Receiver<(Instant, Vec<u8>)>, mut to: TcpStream) {
    while let Ok((due, bytes)) = taken.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_and_arrive_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Line::to(listener.local_addr().unwrap(), Duration::from_millis(20), 10 << 20).unwrap();
        let mut near = TcpStream::connect(line.address()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let echo = thread::spawn(move || {
            let mut all = vec![0; 1 << 20];
            far.read_exact(&mut all).unwrap();
            far.write_all(&all[..1]).unwrap();
            all
        });
        let begun = Instant::now();
        let data: Vec<u8> = (0..1 << 20).map(|at: u32| at as u8).collect();
        near.write_all(&data).unwrap();
        near.read_exact(&mut [0]).unwrap();
        // A mebibyte at ten a second takes 100 ms, and the way there and back 20.
        let elapsed = begun.elapsed();
        assert!(elapsed >= Duration::from_millis(115), "{elapsed:?}");
        assert!(echo.join().unwrap() == data);
    }
}
