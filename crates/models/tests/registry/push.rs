//! Pushing to a real registry: with a password, through a bad line, without sending twice.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, atomic::Ordering},
};

use pontoon_models::{
    Error, Progress, Store,
    registry::{Client, Credentials, Login, Options},
    store::{NewArtifact, NewLayer},
};

use super::{
    assert_same, client, name, options, packaged,
    proxy::{self, Plan},
    scratch,
    server::{PASSWORD, Registry, USER, ready},
};

fn with(credentials: Credentials) -> Client {
    Client::new(Options { credentials, ..options() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_wanted_and_given() {
    let Some(registry) = ready(Registry::closed()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 1 << 20, "me/model");
    let remote = name(&registry.name("me/model:1"));
    let error = client().push(&store, "me/model", &remote, Progress::none()).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("docker login"), "{error}");

    let wrong = Login::Password { user: USER.into(), password: "guess".into() };
    let mut credentials = Credentials::none();
    credentials.logins.insert(remote.registry().to_owned(), wrong);
    let error = with(credentials).pull(&store, &remote, Progress::none()).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");

    // As `docker login` leaves it: base64 of `me:secret`.
    let config = here.path().join("config.json");
    fs::write(&config, format!(r#"{{"auths":{{"{}":{{"auth":"bWU6c2VjcmV0"}}}}}}"#, remote.registry()))
        .unwrap();
    let logged_in = with(Credentials { logins: BTreeMap::new(), docker_config: Some(config) });
    logged_in.push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    let other = Store::open(there.path()).unwrap();
    assert_same(&logged_in.pull(&other, &remote, Progress::none()).await.unwrap(), &model);
}

/// A credential helper is a program on `PATH`; the child has one there.
#[tokio::test(flavor = "multi_thread")]
async fn a_credential_helper_is_asked() {
    if let Ok(role) = std::env::var("PONTOON_HELPER_CHILD") {
        let (remote, folder) = role.split_once(' ').unwrap();
        let store = Store::open(format!("{folder}/store")).unwrap();
        let config = Some(format!("{folder}/config.json").into());
        let client = with(Credentials { logins: BTreeMap::new(), docker_config: config });
        client.push(&store, "me/model", &name(remote), Progress::none()).await.unwrap();
        return;
    }
    let Some(registry) = ready(Registry::closed()) else { return };
    let here = scratch();
    packaged(&here, 1 << 18, "me/model");
    let remote = registry.name("me/model:1");
    let folder = here.path().display();
    let helper = here.path().join("docker-credential-test");
    let answer = format!(r#"{{"ServerURL":"x","Username":"{USER}","Secret":"{PASSWORD}"}}"#);
    fs::write(
        &helper,
        format!(
            "#!/bin/sh\nread server\n[ \"$1\" = get ] && echo '{answer}' && echo $server >> {folder}/asked\n"
        ),
    )
    .unwrap();
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(here.path().join("config.json"), r#"{"credsStore":"test"}"#).unwrap();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap());
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["push::a_credential_helper_is_asked", "--exact"])
        .env("PONTOON_HELPER_CHILD", format!("{remote} {folder}"))
        .env("PATH", path)
        .status()
        .unwrap();
    assert!(status.success());
    assert!(fs::read_to_string(here.path().join("asked")).unwrap().contains("127.0.0.1:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_goes_on_and_nothing_is_sent_twice() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 6 << 20, "me/model");
    let plan = Arc::new(Plan::default());
    *plan.cuts_up.lock().unwrap() = vec![1 << 20, 2 << 20];
    let port = proxy::start(registry.port, plan.clone()).await;
    let remote = name(&format!("127.0.0.1:{port}/me/model:1"));
    client().push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    assert_eq!(plan.cut.load(Ordering::SeqCst), 2);
    let other = Store::open(there.path()).unwrap();
    assert_same(&client().pull(&other, &remote, Progress::none()).await.unwrap(), &model);

    // All blobs are there: a cut in the first upload would be noticed.
    *plan.cuts_up.lock().unwrap() = vec![100_000];
    store.tag("me/model", &name("me/model:2")).unwrap();
    client().push(&store, "me/model:2", &remote.with_tag("2"), Progress::none()).await.unwrap();
    assert_eq!(plan.cut.load(Ordering::SeqCst), 2);
    // And a sibling repository lends them.
    store.tag("me/model", &remote).unwrap();
    let sibling = name(&format!("127.0.0.1:{port}/me/sibling:1"));
    client().push(&store, "me/model", &sibling, Progress::none()).await.unwrap();
    assert_eq!(plan.cut.load(Ordering::SeqCst), 2, "blobs were uploaded though the registry has them");
    assert_eq!(client().remote_model(&store, &sibling).await.unwrap().digest, model.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_artifacts_travel_too() {
    let Some(registry) = ready(Registry::open()) else { return };
    let (here, there) = (scratch(), scratch());
    let store = Store::open(here.path().join("store")).unwrap();
    let file = here.path().join("llama-server");
    fs::write(&file, vec![7; 300_000]).unwrap();
    let kind = "application/vnd.pontoon.engine.v1";
    let layer =
        NewLayer { media_type: "application/octet-stream".into(), path: file, annotations: BTreeMap::new() };
    let new = NewArtifact { artifact_type: kind.into(), layers: vec![layer], ..NewArtifact::default() };
    let pack = store.add_artifact(&new, &name("engines/llama:1")).unwrap();
    let remote = name(&registry.name("engines/llama:1"));
    client().push(&store, "engines/llama:1", &remote, Progress::none()).await.unwrap();
    let other = Store::open(there.path()).unwrap();
    let error = client().pull(&other, &remote, Progress::none()).await.unwrap_err();
    assert!(matches!(error, Error::WrongKind { .. }), "{error}");
    let pulled = client().pull_artifact(&other, &remote, Progress::none()).await.unwrap();
    assert_eq!((pulled.digest, pulled.kind.as_str()), (pack.digest, kind));
    assert_eq!(fs::read(&pulled.files[0].1).unwrap(), vec![7; 300_000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_an_authority_of_its_own() {
    let Some(registry) = ready(Registry::tls()) else { return };
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 1 << 20, "me/model");
    let remote = name(&registry.tls_name("me/model:1"));

    let impatient = Options { retries: 0, ..options() };
    let stranger = Client::new(impatient.clone()).unwrap();
    let refused = stranger.push(&store, "me/model", &remote, Progress::none()).await.unwrap_err();
    assert!(matches!(refused, Error::Network { .. }), "{refused}");
    assert!(refused.to_string().contains("certificate"), "{refused}");

    let trusting = Options { certificates: vec![registry.certificate()], ..impatient.clone() };
    let friend = Client::new(trusting).unwrap();
    friend.push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    let other = Store::open(there.path()).unwrap();
    assert_same(&friend.pull(&other, &remote, Progress::none()).await.unwrap(), &model);

    let empty = there.path().join("empty.pem");
    fs::write(&empty, "no certificate").unwrap();
    let Err(error) = Client::new(Options { certificates: vec![empty], ..impatient }) else { panic!() };
    assert!(error.to_string().contains("empty.pem"), "{error}");
}
