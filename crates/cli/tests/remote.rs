//! Guests on other machines: tickets, what they are let in with, and what becomes of those who are not.

mod common;

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Daemon, Setup, wait_until};
use pontoon_client::{Endpoint, Options};
use serde_json::Value;

const TOML: &str = "
[listen]
tls = '127.0.0.1:0'
[limits]
handshake_seconds = 2
[[policies]]
name = 'outcasts'
match = { token = 'outcast' }
bridge = false
";

/// Where the daemon listens with TLS.
fn address(daemon: &Daemon) -> String {
    let log = daemon.log();
    let (_, rest) = log.split_once("listening on tls:").expect("it listens");
    rest.split_once(',').unwrap().0.to_owned()
}

fn start() -> Daemon {
    let daemon = Setup::noop().toml(TOML).start();
    wait_until("TLS is there", Duration::from_secs(10), || daemon.log().contains(", certificate "));
    daemon
}

/// What `pontoon token create` prints.
fn ticket(daemon: &Daemon, options: &[&str]) -> String {
    let address = address(daemon);
    let made = daemon.pontoon(&[&["token", "create", "--address", &address], options].concat());
    assert!(made.status.success(), "{made:?}");
    String::from_utf8(made.stdout).unwrap().trim().to_owned()
}

fn options(ticket: &str) -> Options {
    Options::new(ticket.parse().unwrap())
}

fn refusal(ticket: &str) -> String {
    match pontoon_client::connect(options(ticket)) {
        Ok(_) => panic!("it was let in"),
        Err(error) => error.to_string(),
    }
}

fn device(instance: &wgpu::Instance) -> wgpu::Device {
    let adapter = pollster::block_on(instance.request_adapter(&Default::default())).expect("an adapter");
    pollster::block_on(adapter.request_device(&Default::default())).expect("a device").0
}

#[test]
fn one_text_is_all_that_a_guest_needs() {
    let daemon = start();
    let text = ticket(&daemon, &["--tenant", "laptop"]);
    let instance = pontoon_client::connect(options(&text)).unwrap();
    let rows: Value = serde_json::from_slice(&daemon.pontoon(&["ps", "--json"]).stdout).unwrap();
    assert_eq!((&rows[0]["tenant"], &rows[0]["transport"]), (&"laptop".into(), &"tls".into()), "{rows}");
    assert!(rows[0]["who"].as_str().unwrap().starts_with("laptop (from 127.0.0.1:"), "{rows}");
    // A daemon that starts again has the same certificate, and knows its tokens.
    drop(instance);
    let before = address(&daemon);
    let again = ticket(&daemon, &[]);
    assert_eq!(text.split_once('#').unwrap().1, again.split_once('#').unwrap().1);
    assert!(text.contains(&format!("@{before}#")), "{text}");
}

#[test]
fn tokens_that_expired_or_were_taken_back_are_refused_with_the_reason() {
    let daemon = start();
    let brief = ticket(&daemon, &["--expires", "1s"]);
    let taken = ticket(&daemon, &["--tenant", "fired"]);
    drop(pontoon_client::connect(options(&taken)).unwrap());
    let id = taken.strip_prefix("pontoon://").unwrap().split_once('.').unwrap().0;
    assert!(daemon.pontoon(&["token", "rm", id]).status.success());
    let error = refusal(&taken);
    assert!(error.contains("was taken back") && !error.contains(id), "{error}");
    std::thread::sleep(Duration::from_millis(2100));
    assert!(refusal(&brief).contains("has expired"), "{}", refusal(&brief));
    let listed = daemon.pontoon(&["token", "ls"]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("(expired)"), "{listed:?}");
    // A secret that is nearly right.
    let other = ticket(&daemon, &[]);
    let (head, tail) = other.split_once('@').unwrap();
    let last = if head.ends_with('0') { '1' } else { '0' };
    assert!(refusal(&format!("{}{last}@{tail}", &head[..head.len() - 1])).contains("not one of this host's"));
    let outcast = ticket(&daemon, &["--tenant", "outcast"]);
    assert!(refusal(&outcast).contains("policy 'outcasts'"), "{}", refusal(&outcast));
}

#[test]
fn another_host_in_its_place_learns_no_secret() {
    let daemon = start();
    let text = ticket(&daemon, &[]);
    let (rest, fingerprint) = text.split_once('#').unwrap();
    let wrong: String = fingerprint.chars().map(|digit| if digit == 'a' { 'b' } else { 'a' }).collect();
    let error = refusal(&format!("{rest}#{wrong}"));
    assert!(error.contains("another host answers there") && error.contains("new ticket"), "{error}");
    wait_until("the host noticed", Duration::from_secs(5), || daemon.log().contains("no TLS with 127.0.0.1"));
    assert!(!daemon.log().contains("a caller was refused"), "the token was never sent");
}

#[test]
fn who_dawdles_at_the_door_keeps_nobody_else_out() {
    let daemon = start();
    let text = ticket(&daemon, &[]);
    let address = address(&daemon);
    // Silent ones, and ones that send a byte at a time: far more than there are places.
    let mut idle: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    for socket in &mut idle {
        let _ = socket.write_all(&[0x16]);
    }
    // Callers from elsewhere are not concerned.
    let begun = Instant::now();
    drop(pontoon_client::connect(daemon.options()).unwrap());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // From the same address somebody gets in once the dawdlers' time is up, though they go on.
    wait_until("a ticket is let in", Duration::from_secs(20), || {
        for socket in &mut idle {
            let _ = socket.write_all(&[3]);
        }
        pontoon_client::connect(options(&text)).is_ok()
    });
}

#[test]
fn a_handshake_that_is_played_again_leads_nowhere() {
    use std::io::Read;
    use std::net::TcpListener;
    let daemon = start();
    let text = ticket(&daemon, &[]);
    // A wire-tap between guest and host that keeps what the guest says.
    let tap = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, tapped) = (address(&daemon), tap.local_addr().unwrap());
    let recording = std::thread::spawn(move || {
        let (guest, _) = tap.accept().unwrap();
        let host = TcpStream::connect(host).unwrap();
        let (mut back, mut guest_out) = (host.try_clone().unwrap(), guest.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back, &mut guest_out));
        let (mut said, mut chunk) = (Vec::new(), [0; 4096]);
        while let Ok(len @ 1..) = (&guest).read(&mut chunk) {
            said.extend_from_slice(&chunk[..len]);
            (&host).write_all(&chunk[..len]).unwrap();
        }
        said
    });
    let Endpoint::Tls(mut way) = text.parse().unwrap() else { panic!("a ticket") };
    way.address = tapped.to_string();
    drop(device(&pontoon_client::connect(Options::new(Endpoint::Tls(way.clone()))).unwrap()));
    let said = recording.join().unwrap();
    assert!(said.len() > 300, "{}", said.len());
    assert!(
        !said.windows(way.secret.len()).any(|window| window == way.secret.as_bytes()),
        "no secret in clear"
    );
    let sessions = || daemon.log().matches(" over tls").count();
    let before = sessions();
    let mut replay = TcpStream::connect(address(&daemon)).unwrap();
    let _ = replay.write_all(&said);
    wait_until("the host hangs up", Duration::from_secs(10), || daemon.log().contains("no TLS with"));
    assert_eq!(sessions(), before, "a replay begins no session");
}

#[test]
fn losing_the_connection_is_device_lost_with_the_reason_and_the_next_device_comes_at_once() {
    use std::net::TcpListener;
    let daemon = start();
    let text = ticket(&daemon, &[]);
    let relay = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, near) = (address(&daemon), relay.local_addr().unwrap());
    let carrying = std::thread::spawn(move || {
        let (guest, _) = relay.accept().unwrap();
        let host = TcpStream::connect(host).unwrap();
        for (mut from, mut to) in [
            (guest.try_clone().unwrap(), host.try_clone().unwrap()),
            (host.try_clone().unwrap(), guest.try_clone().unwrap()),
        ] {
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
        }
        (guest, host)
    });
    let Endpoint::Tls(mut way) = text.parse().unwrap() else { panic!("a ticket") };
    way.address = near.to_string();
    let instance = pontoon_client::connect(Options::new(Endpoint::Tls(way))).unwrap();
    let device = device(&instance);
    let (tell, told) = std::sync::mpsc::channel();
    device.set_device_lost_callback(move |_, message| {
        let _ = tell.send(message);
    });
    let (guest, _host) = carrying.join().unwrap();
    guest.shutdown(std::net::Shutdown::Both).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let reason = loop {
        let _ = device.poll(wgpu::PollType::Poll);
        match told.try_recv() {
            Ok(reason) => break reason,
            Err(_) => assert!(Instant::now() < deadline, "the loss is not noticed"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(reason.contains("connection"), "{reason}");
    let begun = Instant::now();
    let fresh = pontoon_client::connect(options(&text)).unwrap();
    drop(self::device(&fresh));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn a_ticket_needs_a_listener_and_a_sensible_address() {
    let daemon = Setup::noop().start();
    let output = daemon.pontoon(&["token", "create"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("does not listen for other machines"), "{error}");
    let output = daemon.pontoon(&["token", "create", "--address", "here"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("'here' is no HOST:PORT"), "{output:?}");
    let output = daemon.pontoon(&["token", "rm", "00000000"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("no token '00000000'"), "{output:?}");
}
