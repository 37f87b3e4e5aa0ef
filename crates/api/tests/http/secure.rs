//! Keys, allowances and the listener for other machines.

use std::net::SocketAddr;

use libtest_mimic::Trial;
use pontoon_api::{Allowance, Config, Key, Tls};
use serde_json::Value;

use crate::scene::{Scene, chat, client, trial};

pub fn trials() -> Vec<Trial> {
    vec![
        trial("keys_name_their_callers_and_bound_them", keys),
        trial("keys_can_be_required_of_local_callers", required),
        trial("other_machines_need_tls_and_a_key", remote),
        trial("without_both_nothing_listens_off_loopback", open),
        trial("sockets_have_their_modes_and_replace_only_dead_ones", sockets),
    ]
}

const SECRET: &str = "sk-0123456789abcdef";

fn key(allowance: Option<Allowance>) -> Key {
    Key { tenant: "acme".into(), key: SECRET.into(), allowance }
}

async fn keys() {
    let allowance = Allowance { requests_per_minute: Some(2), ..Allowance::default() };
    let scene = Scene::with(|config| config.keys = vec![key(Some(allowance))]).await;
    let ask =
        || client().post(scene.url("/v1/chat/completions")).bearer_auth(SECRET).json(&chat("hi", 1)).send();
    for _ in 0..2 {
        assert_eq!(ask().await.unwrap().status(), 200);
    }
    let refused = ask().await.unwrap();
    assert_eq!(refused.status(), 429);
    let after: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=30).contains(&after), "{after}");
    let body: Value = refused.json().await.unwrap();
    assert!(body["error"]["message"].as_str().unwrap().contains("2 requests a minute"), "{body}");
    // Others are not bound by it, and keys that nobody gave out mean nothing here.
    let dummy =
        client().post(scene.url("/v1/chat/completions")).bearer_auth("ollama").json(&chat("hi", 1)).send();
    assert_eq!(dummy.await.unwrap().status(), 200);
    let records = scene.get("/engines/requests").await;
    assert_eq!(records[0]["records"][0]["caller"], "acme");
}

async fn required() {
    let scene = Scene::with(|config| {
        config.keys = vec![key(None)];
        config.require_keys = true;
    })
    .await;
    let bare = client().get(scene.url("/v1/models"));
    assert_eq!(bare.send().await.unwrap().status(), 401);
    let wrong =
        client().get(scene.url("/v1/models")).bearer_auth("sk-0123456789abcdeX").send().await.unwrap();
    assert_eq!(wrong.status(), 401);
    assert!(!wrong.text().await.unwrap().contains(SECRET));
    let right = client().get(scene.url("/v1/models")).header("x-api-key", SECRET).send().await.unwrap();
    assert_eq!(right.status(), 200);
    assert_eq!(scene.admin().get("http://p/v1/models").send().await.unwrap().status(), 200);
}

fn certificate(folder: &std::path::Path) -> (Tls, String) {
    std::fs::create_dir_all(folder).unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let tls = Tls { certificate: folder.join("cert.pem"), key: folder.join("key.pem") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    (tls, made.cert.pem())
}

async fn remote() {
    let folder = std::env::temp_dir().join(format!("pa-tls-{}", std::process::id()));
    let (tls, pem) = certificate(&folder);
    let scene = Scene::with(|config| {
        config.remote = Some("127.0.0.1:0".parse().unwrap());
        config.tls = Some(tls);
        config.keys = vec![key(None)];
    })
    .await;
    let address = scene.addresses().iter().find(|address| address.starts_with("https://")).unwrap();
    let address: SocketAddr = address.trim_start_matches("https://").parse().unwrap();
    let trusted = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    let https =
        reqwest::Client::builder().tls_certs_only([trusted]).resolve("localhost", address).build().unwrap();
    let url = |path: &str| format!("https://localhost:{}{path}", address.port());
    assert_eq!(https.get(url("/v1/models")).send().await.unwrap().status(), 401);
    let ask = https.post(url("/v1/chat/completions")).bearer_auth(SECRET).json(&chat("hi", 2));
    assert_eq!(ask.send().await.unwrap().status(), 200);
    let manage = https.get(url("/metrics")).bearer_auth(SECRET).send().await.unwrap();
    assert_eq!(manage.status(), 403);
    let plain = client().get(format!("http://{address}/v1/models")).bearer_auth(SECRET).send().await;
    assert!(plain.is_err(), "no HTTP without TLS");
    std::fs::remove_dir_all(folder).unwrap();
}

async fn open() {
    let check = |change: fn(&mut Config)| {
        let mut config = Config::default();
        change(&mut config);
        config.check().unwrap_err()
    };
    let sentence = check(|config| config.listen = vec!["0.0.0.0:12434".parse().unwrap()]);
    assert!(sentence.contains("0.0.0.0:12434"), "{sentence}");
    let sentence = check(|config| config.remote = Some("0.0.0.0:12434".parse().unwrap()));
    assert!(sentence.contains("http.tls") && sentence.contains("http.keys"), "{sentence}");
}

async fn sockets() {
    use std::os::unix::fs::PermissionsExt;
    let mut scene = Scene::new().await;
    let mode = |path: &str| std::fs::metadata(scene.folder.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a"), mode("a/models.sock"), mode("g/models.sock")), (0o700, 0o600, 0o666));
    let admin = scene.folder.join("a/models.sock");
    // A second server does not take the place of one that runs.
    let folder = scene.folder.clone();
    scene.shutdown(std::time::Duration::from_secs(1)).await;
    assert!(!admin.exists());
    std::fs::write(&admin, "not a socket").unwrap();
    let taken = std::panic::AssertUnwindSafe(Scene::with(move |config| {
        config.admin = Some(folder.join("a/models.sock"))
    }));
    let result = tokio::spawn(async move { taken.0.await.addresses().len() }).await;
    assert!(result.is_err(), "a file that is no socket stays");
    assert_eq!(std::fs::read_to_string(&admin).unwrap(), "not a socket");
}
