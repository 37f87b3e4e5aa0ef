//! Registries that refuse, are busy, lie, or send us elsewhere.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use pontoon_models::{
    Digest, Error, Progress, Store,
    registry::{Client, Credentials, Login, Options},
};

use super::{
    client,
    fake::{Answer, Fake, Request},
    name, options, packaged, scratch,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

async fn pull_from(fake: &Fake) -> Error {
    let folder = scratch();
    let store = Store::open(folder.path()).unwrap();
    let remote = name(&format!("127.0.0.1:{}/me/model:1", fake.port));
    client().pull(&store, &remote, Progress::none()).await.unwrap_err()
}

#[tokio::test]
async fn each_refusal_is_an_error_of_its_own() {
    let absent =
        Fake::start(|_| Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#)).await;
    let error = pull_from(&absent).await;
    assert!(
        matches!(error, Error::RemoteNotFound { .. }) && error.to_string().contains("me/model (1)"),
        "{error}"
    );

    let denied =
        Fake::start(|_| Answer::new(403, r#"{"errors":[{"code":"DENIED","message":"not yours"}]}"#)).await;
    let error = pull_from(&denied).await;
    assert!(
        matches!(error, Error::Unauthorized { .. }) && error.to_string().contains("not yours"),
        "{error}"
    );

    let mute = Fake::start(|_| Answer::new(401, "")).await;
    assert!(matches!(pull_from(&mute).await, Error::Unauthorized { .. }));

    let strange = Fake::start(|_| Answer::new(200, "<html>")).await;
    let error = pull_from(&strange).await;
    assert!(matches!(error, Error::Remote { status: 200, .. }), "{error}");
    assert!(error.to_string().contains("proxy"), "{error}");

    let long = Fake::start(|_| Answer::new(200, vec![b' '; 5 << 20])).await;
    assert!(matches!(pull_from(&long).await, Error::Malformed { .. }));

    let nobody = client()
        .pull(&Store::open(scratch().path()).unwrap(), &name("127.0.0.1:1/me/x"), Progress::none())
        .await;
    assert!(matches!(nobody.unwrap_err(), Error::Network { .. }));
}

#[tokio::test]
async fn patience_has_its_limits() {
    let busy = Fake::start(|_| Answer::new(429, "").with("retry-after", "3600")).await;
    let begin = Instant::now();
    let error = pull_from(&busy).await;
    assert!(
        matches!(error, Error::RateLimited { retry_after, .. } if retry_after == Duration::from_secs(3600)),
        "{error}"
    );
    assert!(begin.elapsed() < Duration::from_secs(5) && busy.requests().len() == 1);

    let ill = Fake::start(|_| Answer::new(503, "")).await;
    assert!(matches!(pull_from(&ill).await, Error::Remote { status: 503, .. }));
    assert_eq!(ill.requests().len(), 4, "once and three times again");

    // Asked to wait one second, we wait one second and are served.
    let asked = AtomicUsize::new(0);
    let soon = Fake::start(move |_| match asked.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::new(429, "").with("retry-after", "1"),
        _ => Answer::new(404, ""),
    });
    let soon = soon.await;
    let begin = Instant::now();
    assert!(matches!(pull_from(&soon).await, Error::RemoteNotFound { .. }));
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

/// Serves a store as a registry would; `change` may spoil an answer.
fn serve(
    store: Store,
    change: impl Fn(&Request, Answer) -> Answer + Send + Sync + 'static,
) -> impl Fn(&Request) -> Answer + Send + Sync {
    let digest = store.list().unwrap()[0].digest;
    move |request| {
        let what = request.path.rsplit('/').next().unwrap_or_default();
        let wanted = what.parse::<Digest>().unwrap_or(digest);
        let Some(path) = store.blob(&wanted) else { return Answer::new(404, "") };
        let bytes = std::fs::read(path).unwrap();
        let answer = match request.path.contains("/manifests/") {
            true => Answer::new(200, bytes).with("content-type", MANIFEST),
            false => Answer::part_of(&bytes, request),
        };
        change(request, answer)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_sends_other_bytes_is_found_out() {
    let here = scratch();
    let (store, model) = packaged(&here, 400_000, "me/model");
    let liar = Fake::start(serve(store.clone(), |_, mut answer| {
        if answer.body.len() > 100_000 {
            answer.body[50_000] ^= 1;
        }
        answer
    }));
    let error = pull_from(&liar.await).await;
    assert!(matches!(error, Error::Digest { .. }), "{error}");

    // Longer than announced: cut off, not written.
    let babbler = Fake::start(serve(store.clone(), |_, mut answer| {
        if answer.body.len() > 100_000 {
            answer.body.extend([0; 50_000]);
        }
        answer
    }));
    let error = pull_from(&babbler.await).await;
    assert!(matches!(error, Error::Malformed { .. }), "{error}");

    // A manifest with a digest that was asked for, and is another.
    let folder = scratch();
    let swapped = Fake::start(serve(store, |_, answer| answer)).await;
    let remote = name(&format!("127.0.0.1:{}/me/model@{}", swapped.port, model.manifest.layers[0].digest));
    let other = Store::open(folder.path()).unwrap();
    assert!(client().pull(&other, &remote, Progress::none()).await.is_err());
}

/// A server without ranges: what was there is fetched again, and is right.
#[tokio::test(flavor = "multi_thread")]
async fn a_registry_without_ranges_serves_too() {
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 400_000, "me/model");
    let blobs = store.clone();
    let simple = Fake::start(serve(store, move |request, answer| match answer.status {
        206 => Answer::new(
            200,
            std::fs::read(blobs.blob(&request.path.rsplit('/').next().unwrap().parse().unwrap()).unwrap())
                .unwrap(),
        ),
        _ => answer,
    }));
    let simple = simple.await;
    let other = Store::open(there.path()).unwrap();
    let layer = model.manifest.layers.iter().max_by_key(|layer| layer.size).unwrap();
    let whole = std::fs::read(
        model.files.iter().find(|file| file.descriptor.digest == layer.digest).unwrap().path.clone(),
    )
    .unwrap();
    std::fs::write(there.path().join("partial").join(layer.digest.hex()), &whole[..70_000]).unwrap();
    let remote = name(&format!("127.0.0.1:{}/me/model:1", simple.port));
    super::assert_same(&client().pull(&other, &remote, Progress::none()).await.unwrap(), &model);
    assert!(simple.requests().iter().any(|request| request.headers.contains_key("range")));
}

/// Docker's registry: a token server, and blobs on another host that must not see our token.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_used_and_kept_from_others() {
    let (here, there) = (scratch(), scratch());
    let (store, model) = packaged(&here, 400_000, "me/model");
    let cdn = Arc::new(Fake::start(serve(store.clone(), |_, answer| answer)).await);
    let tokens = Fake::start(|request| match request.headers.get("authorization").map(String::as_str) {
        Some("Basic bWU6c2VjcmV0") => Answer::new(200, r#"{"token":"T1"}"#),
        _ => Answer::new(401, ""),
    });
    let tokens = tokens.await;
    let (cdn_port, token_port) = (cdn.port, tokens.port);
    let registry = Fake::start(serve(store, move |request, answer| {
        match request.headers.get("authorization").map(String::as_str) {
            Some("Bearer T1") if request.path.contains("/blobs/") => {
                Answer::new(307, "").with("location", format!("http://localhost:{cdn_port}{}", request.path))
            }
            Some("Bearer T1") => answer,
            _ => {
                let challenge = format!(
                    r#"Bearer realm="http://127.0.0.1:{token_port}/token?a=b",service="reg",scope="repository:me/model:pull""#
                );
                Answer::new(401, "").with("www-authenticate", challenge)
            }
        }
    }));
    let registry = registry.await;
    let remote = name(&format!("127.0.0.1:{}/me/model:1", registry.port));
    let mut credentials = Credentials::none();
    let login = Login::Password { user: "me".into(), password: "secret".into() };
    credentials.logins.insert(remote.registry().to_owned(), login);
    let client = Client::new(Options { credentials, ..options() }).unwrap();
    let other = Store::open(there.path()).unwrap();
    super::assert_same(&client.pull(&other, &remote, Progress::none()).await.unwrap(), &model);
    let asked = tokens.requests();
    assert!(
        asked[0].path.starts_with("/token?a=b&service=reg&scope=repository%3Ame%2Fmodel%3Apull"),
        "{}",
        asked[0].path
    );
    assert_eq!(asked.len(), 1, "one token serves all requests");
    assert!(cdn.requests().len() >= 4);
    assert!(cdn.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}
