//! Every path form of `docs/http.md`, and that hostile paths lead nowhere.

use proptest::prelude::*;

use super::*;

fn at(method: &str, path: &str) -> Result<Route, NoRoute> {
    find(&method.parse().unwrap(), path)
}

#[test]
fn openai_paths_have_all_their_prefixes() {
    for prefix in [
        "/v1",
        "/engines/v1",
        "/engines/llama.cpp/v1",
        "/engines/vllm/v1",
        "//engines//v1",
        "/exp/vDD4.40/engines/v1",
    ] {
        for (path, endpoint) in [
            ("chat/completions", Endpoint::ChatCompletions),
            ("completions", Endpoint::Completions),
            ("embeddings", Endpoint::Embeddings),
            ("rerank", Endpoint::Rerank),
            ("responses", Endpoint::Responses),
            ("messages", Endpoint::Messages),
            ("messages/count_tokens", Endpoint::CountTokens),
        ] {
            let full = format!("{prefix}/{path}");
            assert_eq!(at("POST", &full), Ok(Route::Infer(endpoint)), "{full}");
            assert_eq!(at("GET", &full), Err(NoRoute::Method("POST")), "{full}");
        }
        assert_eq!(at("GET", &format!("{prefix}/models")), Ok(Route::Cards(Dialect::OpenAi, None)));
    }
    for path in ["/rerank", "/engines/rerank", "/engines/llama.cpp/rerank", "/v1/rerank"] {
        assert_eq!(at("POST", path), Ok(Route::Infer(Endpoint::Rerank)), "{path}");
    }
    for path in ["/score", "/engines/score", "/engines/vllm/score"] {
        assert_eq!(at("POST", path), Ok(Route::Infer(Endpoint::Score)), "{path}");
    }
    for path in ["/responses/resp_1", "/v1/responses/resp_1", "/engines/v1/responses/resp_1"] {
        assert_eq!(at("GET", path), Ok(Route::Response(Stored::Get, "resp_1".into())));
        assert_eq!(at("DELETE", path), Ok(Route::Response(Stored::Delete, "resp_1".into())));
    }
}

#[test]
fn names_with_slashes_and_colons_survive() {
    let name = "hf.co/org/Model-GGUF:Q4_K_M";
    assert_eq!(at("GET", &format!("/models/{name}")), Ok(Route::Models(Models::Inspect(name.into()))));
    assert_eq!(at("POST", &format!("/models/{name}/tag")), Ok(Route::Models(Models::Tag(name.into()))));
    assert_eq!(at("POST", &format!("/models/{name}/push")), Ok(Route::Models(Models::Push(name.into()))));
    assert_eq!(at("GET", &format!("/models/{name}/export")), Ok(Route::Models(Models::Export(name.into()))));
    assert_eq!(at("DELETE", &format!("/models/{name}")), Ok(Route::Models(Models::Delete(name.into()))));
    assert_eq!(at("DELETE", "/models/purge"), Ok(Route::Models(Models::Purge)));
    assert_eq!(
        at("GET", "/models/ai%2Fsmollm2%3Alatest"),
        Ok(Route::Models(Models::Inspect("ai/smollm2:latest".into())))
    );
    let card = Route::Cards(Dialect::OpenAi, Some(name.into()));
    assert_eq!(at("GET", &format!("/engines/llama.cpp/v1/models/{name}")), Ok(card));
}

#[test]
fn what_manages_is_marked() {
    for (method, path) in [
        ("POST", "/models/create"),
        ("POST", "/models/load"),
        ("GET", "/models/m/export"),
        ("DELETE", "/models/m"),
        ("DELETE", "/models/purge"),
        ("POST", "/models/m/tag"),
        ("POST", "/models/m/push"),
        ("POST", "/models/m/repackage"),
        ("GET", "/engines/df"),
        ("POST", "/engines/unload"),
        ("POST", "/engines/_configure"),
        ("GET", "/engines/_configure"),
        ("POST", "/engines/llama.cpp/_configure"),
        ("GET", "/metrics"),
        ("GET", "/logs"),
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("GET", "/pontoon/v1/ps"),
        ("POST", "/pontoon/v1/prune"),
        ("POST", "/engines/install-backend"),
    ] {
        assert!(at(method, path).unwrap().manages(), "{method} {path}");
    }
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("GET", "/models"),
        ("GET", "/v1/models"),
        ("GET", "/api/tags"),
        ("POST", "/api/chat"),
        ("GET", "/engines/requests"),
        ("GET", "/"),
        ("GET", "/version"),
    ] {
        assert!(!at(method, path).unwrap().manages(), "{method} {path}");
    }
}

#[test]
fn escapes_do_not_climb() {
    for path in ["/models/../logs", "/models/%2e%2e/logs", "/models/%zz", "/models/%00", "/models/a%0ab"] {
        assert_eq!(at("GET", path), Err(NoRoute::Malformed), "{path}");
    }
}

proptest! {
    #[test]
    fn no_path_panics(method in "GET|POST|DELETE|HEAD|PUT|OPTIONS", path in "/[ -~]{0,60}") {
        let _ = at(&method, &path);
    }

    #[test]
    fn a_name_comes_back_as_it_was_sent(name in "[a-z0-9]{1,8}(/[a-z0-9._-]{1,8}){0,3}(:[a-z0-9]{1,6})?") {
        prop_assume!(!name.split('/').any(|part| part.chars().all(|c| c == '.') || ["export", "purge", "create", "load", "tag", "push", "repackage"].contains(&part)));
        prop_assert_eq!(at("GET", &format!("/models/{name}")), Ok(Route::Models(Models::Inspect(name.clone()))));
        prop_assert_eq!(at("DELETE", &format!("/models/{name}")), Ok(Route::Models(Models::Delete(name))));
    }
}
