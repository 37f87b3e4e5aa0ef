//! `pontoon token`.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use pontoon_daemon::tokens::{Issued, Tokens};
use pontoon_daemon::{Config, identity, paths};
use pontoon_transport::Ticket;

use crate::config::ConfigFile;
use crate::table;

/// Let other machines in
///
/// `create` prints one line that holds all that a guest on another machine needs: this host's address, the fingerprint
/// of its certificate, and a secret. The guest sets PONTOON_HOST to it. The daemon must listen: `tls = "0.0.0.0:7301"`
/// under [listen] in pontoon.toml.
///
/// Example, on the host and then on the guest:
///   pontoon token create --tenant laptop --expires 30d
///   PONTOON_HOST='pontoon://…' ./train
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Make a token and print what the guest sets PONTOON_HOST to; it cannot be shown again
    Create {
        /// Whom the token stands for, in `pontoon ps`, for limits and policies; guests of one tenant share what the host
        /// keeps of their uploads [default: one of its own, token:ID]
        #[arg(long)]
        tenant: Option<String>,
        /// How long it holds: 90s, 45m, 12h, 30d [default: until it is taken back]
        #[arg(long, value_name = "TIME")]
        expires: Option<humantime::Duration>,
        /// Address by which guests reach this host, HOST:PORT [default: listen.tls, with this host's own address]
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// List the tokens, without their secrets
    #[command(alias = "list")]
    Ls {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take a token back; sessions that it began go on
    Rm {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
}

pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let config = arguments.config.read()?;
    let tokens = Tokens::in_folder(&paths::data_folder());
    match arguments.verb {
        Verb::Create { tenant, expires, address, json } => {
            let address = address.map_or_else(|| own_address(&config), Ok)?;
            let expires = expires.map(Into::into);
            create(&config, &tokens, tenant.as_deref(), expires, address, json)?;
        }
        Verb::Ls { json } => list(&tokens, json)?,
        Verb::Rm { id } => {
            // A whole ticket is taken too.
            let id = id.strip_prefix(Ticket::SCHEME).unwrap_or(&id);
            let id = id.split_once('.').map_or(id, |(id, _)| id);
            tokens.remove(id).map_err(|error| error.to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn create(
    config: &Config,
    tokens: &Tokens,
    tenant: Option<&str>,
    expires: Option<Duration>,
    address: String,
    json: bool,
) -> Result<(), String> {
    check_address(&address)?;
    let identity =
        identity::of_host(&config.listen, &paths::data_folder()).map_err(|error| error.to_string())?;
    let (issued, secret) =
        tokens.create(tenant, expires, SystemTime::now()).map_err(|error| error.to_string())?;
    let ticket = Ticket { address, secret, fingerprint: identity.fingerprint() };
    if json {
        return crate::print_json(&serde_json::json!({
            "id": issued.id, "tenant": issued.tenant, "expires": issued.expires, "host": ticket.text(),
        }));
    }
    println!("{}", ticket.text());
    Ok(())
}

/// Refuses what no guest can reach, or what would tear a ticket apart.
fn check_address(address: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("the address '{address}' {why}: name one with --address HOST:PORT"));
    let Some((host, port)) = address.rsplit_once(':') else { return wrong("is no HOST:PORT") };
    if !port.parse::<u16>().is_ok_and(|port| port > 0) || host.is_empty() {
        return wrong("is no HOST:PORT");
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let ip: Option<IpAddr> = bracketed.unwrap_or(host).parse().ok();
    match (ip, bracketed) {
        (Some(ip), _) if ip.is_unspecified() => wrong("is every address of this host and none to dial"),
        (Some(IpAddr::V6(_)), None) => wrong("needs brackets around its IPv6 address"),
        (Some(ip), _) => {
            if ip.is_loopback() {
                eprintln!("{address} is this host for itself: guests on other machines need another address");
            }
            Ok(())
        }
        (None, None) if host.chars().all(plain) => Ok(()),
        _ => wrong("holds what no host's name has"),
    }
}

/// Where guests reach the daemon's TLS listener.
fn own_address(config: &Config) -> Result<String, String> {
    let listen = config.listen.tls.as_deref().ok_or(
        "the daemon does not listen for other machines: set `tls = \"0.0.0.0:7301\"` under [listen] in pontoon.toml, or name an address with --address",
    )?;
    let Ok(socket) = listen.parse::<SocketAddr>() else { return Ok(listen.to_owned()) };
    if !socket.ip().is_unspecified() {
        return Ok(listen.to_owned());
    }
    // Nothing is sent: the system only says which of its addresses it would send from.
    let (ours, theirs) = match socket.ip() {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let found = UdpSocket::bind(ours).and_then(|socket| {
        socket.connect(theirs)?;
        socket.local_addr()
    });
    let found = found.map_err(|error| {
        format!("this host's address cannot be found out ({error}): name it with --address HOST:PORT")
    })?;
    let address = SocketAddr::new(found.ip(), socket.port()).to_string();
    eprintln!("guests will reach this host at {address}; --address names another way");
    Ok(address)
}

fn list(tokens: &Tokens, json: bool) -> Result<(), String> {
    let now = SystemTime::now();
    let tokens = tokens.list().map_err(|error| error.to_string())?;
    if json {
        let rows: Vec<_> = tokens
            .iter()
            .map(|token| {
                serde_json::json!({
                    "id": token.id, "tenant": token.tenant, "created": token.created, "expires": token.expires,
                    "expired": token.expired(now),
                })
            })
            .collect();
        return crate::print_json(&rows);
    }
    // Later years have no such form; such a token was not made here.
    let time = |seconds: u64| {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.min(253_402_300_799));
        humantime::format_rfc3339_seconds(time).to_string()
    };
    let row = |token: &Issued| {
        let end = token.expires.map_or_else(|| "never".to_owned(), time);
        let end = if token.expired(now) { format!("{end} (expired)") } else { end };
        vec![token.id.clone(), token.tenant.clone(), time(token.created), end]
    };
    table::print(&["ID", "TENANT", "CREATED", "EXPIRES"], &tokens.iter().map(row).collect::<Vec<_>>());
    Ok(())
}
