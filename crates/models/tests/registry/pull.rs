//! Pulling from a real registry, whole and in pieces.

use std::{
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use pontoon_models::{Error, Event, Policy, Progress, Role, Store, registry::Client};

use super::{
    assert_same, client, name, options, packaged,
    proxy::{self, Plan},
    scratch,
    server::{Registry, ready},
};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn there_and_back() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 3 << 20, "me/model");
    let remote = registry.name("me/model:1");
    let pushed = client().push(&store, "me/model", &name(&remote), Progress::none()).await.unwrap();
    assert_eq!(pushed, model.digest);

    let other = Store::open(there.path()).unwrap();
    let (progress, mut events) = Progress::channel();
    let pulled = client().pull(&other, &name(&remote), progress).await.unwrap();
    assert_same(&pulled, &model);
    let (empty, wanted) = (scratch(), name(&remote));
    let elsewhere = Store::open(empty.path()).unwrap();
    let seen = client().remote_model(&elsewhere, &wanted).await.unwrap();
    assert_eq!((seen.digest, &seen.config, &seen.names), (model.digest, &model.config, &vec![wanted]));
    assert!(elsewhere.list().unwrap().is_empty(), "only looked at");
    assert!(pulled.has_license());
    assert_eq!(other.bundle(&pulled).unwrap().weights.len(), 2);

    let mut done = std::collections::BTreeMap::new();
    let mut last = None;
    while let Some(event) = events.recv().await {
        if let Event::Progress { layer, total, .. } = &event {
            assert_eq!(*total, model.manifest.layers.iter().map(|layer| layer.size).sum::<u64>());
            done.insert(layer.id.clone(), (layer.current, layer.size));
        }
        last = Some(event);
    }
    assert_eq!(done.len(), model.manifest.layers.len());
    assert!(done.values().all(|(current, size)| current == size), "{done:?}");
    assert!(matches!(last, Some(Event::Success(_))));
    // Again: nothing is fetched twice.
    client().pull(&other, &name(&remote), Progress::none()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_continued() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 8 << 20, "me/model");
    client().push(&store, "me/model", &name(&registry.name("me/model:1")), Progress::none()).await.unwrap();

    let plan = Arc::new(Plan::default());
    *plan.cuts_down.lock().unwrap() = vec![MIB, 2 * MIB, MIB / 2, 3 * MIB];
    let port = proxy::start(registry.port, plan.clone()).await;
    let other = Store::open(there.path()).unwrap();
    let remote = name(&format!("127.0.0.1:{port}/me/model:1"));
    let pulled = client().pull(&other, &remote, Progress::none()).await.unwrap();
    assert_same(&pulled, &model);
    assert!(plan.cut.load(Ordering::SeqCst) >= 3, "too few cuts to prove anything");
    let ranges = plan.ranges.lock().unwrap().clone();
    assert!(ranges.iter().any(|range| !range.contains("bytes=0-")), "{ranges:?}");
    // Continued, not begun anew: hardly more came through than the model has.
    let carried = plan.down.load(Ordering::SeqCst);
    assert!(carried < model.size() + 2 * MIB, "{carried} bytes for a model of {}", model.size());
}

/// The child that is killed in the middle of a pull.
#[tokio::test(flavor = "multi_thread")]
async fn pulls_until_killed() {
    let Ok(role) = std::env::var("PONTOON_PULL_CHILD") else { return };
    let (remote, root) = role.split_once(' ').unwrap();
    let store = Store::open(root).unwrap();
    let _ = client().pull(&store, &name(remote), Progress::none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_pull_is_continued_by_another_process() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 8 << 20, "me/model");
    client().push(&store, "me/model", &name(&registry.name("me/model:1")), Progress::none()).await.unwrap();
    let plan = Arc::new(Plan::default());
    plan.stall_after.store(3 * MIB, Ordering::SeqCst);
    let port = proxy::start(registry.port, plan.clone()).await;
    let remote = format!("127.0.0.1:{port}/me/model:1");

    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["pull::pulls_until_killed", "--exact"])
        .env("PONTOON_PULL_CHILD", format!("{remote} {}", there.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while plan.down.load(Ordering::SeqCst) <= 3 * MIB {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    child.kill().unwrap();
    child.wait().unwrap();

    let other = Store::open(there.path()).unwrap();
    assert!(other.list().unwrap().is_empty());
    assert!(other.df().unwrap().partial_bytes > MIB, "{:?}", other.df().unwrap());
    plan.stall_after.store(0, Ordering::SeqCst);
    plan.down.store(0, Ordering::SeqCst);
    let pulled = client().pull(&other, &name(&remote), Progress::none()).await.unwrap();
    assert_same(&pulled, &model);
    let carried = plan.down.load(Ordering::SeqCst);
    assert!(carried < model.size() - MIB, "{carried} bytes came anew of {}", model.size());
    assert_eq!(other.df().unwrap().partial, 0);
}

/// A power cut can leave a partial download whose bytes are not what was written.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_partial_download_is_fetched_anew() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 2 << 20, "me/model");
    let remote = name(&registry.name("me/model:1"));
    client().push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    let other = Store::open(there.path()).unwrap();
    let weights = model.files_of(Role::Weights).next().unwrap();
    let partial = there.path().join("partial").join(weights.descriptor.digest.hex());
    std::fs::write(partial, vec![0; 500_000]).unwrap();
    assert_same(&client().pull(&other, &remote, Progress::none()).await.unwrap(), &model);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pulls_at_once_fetch_each_blob_once() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 6 << 20, "me/model");
    client().push(&store, "me/model", &name(&registry.name("me/model:1")), Progress::none()).await.unwrap();
    let plan = Arc::new(Plan::default());
    let port = proxy::start(registry.port, plan.clone()).await;
    let remote = name(&format!("127.0.0.1:{port}/me/model:1"));
    let (one, two) = (Store::open(there.path()).unwrap(), Store::open(there.path()).unwrap());
    let (first, second) = (client(), client());
    let (a, b) = tokio::join!(
        first.pull(&one, &remote, Progress::none()),
        second.pull(&two, &remote, Progress::none())
    );
    assert_same(&a.unwrap(), &model);
    assert_same(&b.unwrap(), &model);
    let carried = plan.down.load(Ordering::SeqCst);
    assert!(carried < model.size() + MIB, "{carried} bytes for a model of {}", model.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_first_and_may_fail() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 1 << 20, "me/model");
    client().push(&store, "me/model", &name(&registry.name("me/model:1")), Progress::none()).await.unwrap();
    // The first mirror is not there, the second has it; the registry itself does not exist at all.
    let mut options = options();
    options.retries = 0;
    let mirrors = vec!["127.0.0.1:1".to_owned(), format!("http://127.0.0.1:{}", registry.port)];
    options.mirrors.insert("models.invalid".to_owned(), mirrors);
    let other = Store::open(there.path()).unwrap();
    let pulled = Client::new(options)
        .unwrap()
        .pull(&other, &name("models.invalid/me/model:1"), Progress::none())
        .await;
    let pulled = pulled.unwrap();
    assert_same(&pulled, &model);
    assert_eq!(pulled.display_name(), "models.invalid/me/model:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_is_asked_before_anything_large_comes() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 4 << 20, "me/model");
    let plan = Arc::new(Plan::default());
    let port = proxy::start(registry.port, plan.clone()).await;
    let remote = name(&format!("127.0.0.1:{port}/me/model:1"));
    client().push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    plan.down.store(0, Ordering::SeqCst);
    let other = Store::open(there.path()).unwrap();
    let policies = [
        Policy { registries: vec!["docker.io".into()], ..Policy::default() },
        Policy { digests: vec![pontoon_models::Digest::of(b"another")], ..Policy::default() },
        Policy { naming: true, ..Policy::default() },
    ];
    for policy in policies {
        let client = Client::new(pontoon_models::registry::Options { policy, ..options() }).unwrap();
        let error = client.pull(&other, &remote, Progress::none()).await.unwrap_err();
        assert!(matches!(error, Error::Policy(_)), "{error}");
    }
    assert!(plan.down.load(Ordering::SeqCst) < MIB);
    let allowed = Policy { digests: vec![model.digest], license_required: true, ..Policy::default() };
    let client = Client::new(pontoon_models::registry::Options { policy: allowed, ..options() }).unwrap();
    client.pull(&other, &remote, Progress::none()).await.unwrap();
}
