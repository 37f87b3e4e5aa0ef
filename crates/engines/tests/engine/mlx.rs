//! mlx-lm behind the same contract: a tiny model of random weights, made here.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use libtest_mimic::{Failed, Trial};
use pontoon_engines::instance::post;
use pontoon_engines::{Mode, Refusal, Runner, Settings, Usage, Which};
use pontoon_models::{Policy, Progress, Reference, package::Builder};
use serde_json::{Value, json};

use crate::scene::{Scene, block_on, chat, gone, mlx_python, request, required, turn};

pub fn trials() -> Vec<Trial> {
    let here = mlx_python().is_some();
    let run = move || {
        if !here {
            return Err(Failed::from("PONTOON_MLX_PYTHON names no interpreter that has mlx-lm"));
        }
        block_on(answers(Scene::empty("mlx")));
        Ok(())
    };
    vec![Trial::test("mlx_lm_answers_behind_the_same_contract", run).with_ignored_flag(!here && !required())]
}

const TINY: &str = "test/tiny:mlx";

async fn answers(scene: Scene) {
    let folder = scene.folder.join("tiny");
    make_model(&folder);
    let name = Reference::parse(TINY).unwrap();
    Builder::safetensors(&folder).build(&scene.store, &name, &Policy::default(), &Progress::none()).unwrap();
    let mut options = scene.options();
    options.defaults = Settings { parallel: Some(2), ..Settings::default() };
    let runner = Runner::start(options).await.unwrap();
    let lease = turn(&runner, TINY).await;
    println!("{} ready in {:?}", lease.at.engine, lease.load);
    let answer = chat(&lease, "hello", 8).await;
    assert_eq!(answer["usage"]["completion_tokens"], json!(8), "{answer}");
    assert!(answer["choices"][0]["message"]["content"].is_string(), "{answer}");

    // Whatever model a request names, it gets this one, and this one stays.
    let stolen =
        json!({ "model": "/etc", "messages": [{ "role": "user", "content": "x" }], "max_tokens": 2 });
    let other =
        post(&lease.at.socket, "/v1/chat/completions", &stolen, Duration::from_secs(60)).await.unwrap();
    assert_eq!(other.status, 200, "{}", String::from_utf8_lossy(&other.body));

    let streamed = json!({ "model": lease.at.engine_model, "messages": [{ "role": "user", "content": "hello" }],
                           "max_tokens": 5, "stream": true });
    let stream =
        post(&lease.at.socket, "/v1/chat/completions", &streamed, Duration::from_secs(60)).await.unwrap();
    let text = String::from_utf8_lossy(&stream.body).into_owned();
    assert!(text.matches("data: ").count() >= 2 && text.contains("[DONE]"), "{text}");

    let running = runner.ps().await.remove(0);
    let pid = running.pid.unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(running.memory.host > 20 << 20, "{}", running.memory);
    let mut wish = request(TINY, "tester");
    wish.mode = Mode::Embedding;
    assert_eq!(runner.acquire(wish).await.unwrap_err().kind, Refusal::WrongMode);
    lease.finish(Usage { prompt_tokens: 1, completion_tokens: 8 });
    runner.unload(Which::All).await.unwrap();
    gone(&runner).await;
}

const HIDDEN: usize = 32;
const INNER: usize = 64;
const LAYERS: usize = 2;

/// A llama of two layers that knows bytes.
fn make_model(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let vocabulary = vocabulary();
    let size = vocabulary.as_object().unwrap().len();
    let config = json!({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS, "intermediate_size": INNER, "num_attention_heads": 4,
        "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": size, "rope_theta": 10000.0,
        "max_position_embeddings": 512, "tie_word_embeddings": true, "bos_token_id": 0, "eos_token_id": 1,
        "torch_dtype": "float32",
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<s>"), special(1, "</s>")],
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                   "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                   "vocab": vocabulary, "merges": [] },
    });
    let template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:";
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>",
        "model_max_length": 512, "chat_template": template,
    });
    for (name, value) in
        [("config.json", config), ("tokenizer.json", tokenizer), ("tokenizer_config.json", tokenizer_config)]
    {
        fs::write(folder.join(name), value.to_string()).unwrap();
    }
    write_weights(&folder.join("model.safetensors"), size);
}

fn special(id: usize, content: &str) -> Value {
    json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
}

/// The two special tokens and one for each byte, spelled as byte-level BPE spells them: printable bytes
/// as themselves, the others as characters from 256 on.
fn vocabulary() -> Value {
    let mut words = serde_json::Map::from_iter([("<s>".to_owned(), json!(0)), ("</s>".to_owned(), json!(1))]);
    let mut next = 256u32;
    for byte in 0..=255u32 {
        let plain = (33..=126).contains(&byte) || (161..=172).contains(&byte) || byte >= 174;
        let spelled = if plain {
            byte
        } else {
            next += 1;
            next - 1
        };
        words.insert(char::from_u32(spelled).unwrap().to_string(), json!(byte + 2));
    }
    words.into()
}

fn write_weights(path: &Path, vocabulary: usize) {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
    ];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("self_attn.q_proj", vec![HIDDEN, HIDDEN]),
            ("self_attn.k_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.v_proj", vec![HIDDEN / 2, HIDDEN]),
            ("self_attn.o_proj", vec![HIDDEN, HIDDEN]),
            ("mlp.gate_proj", vec![INNER, HIDDEN]),
            ("mlp.up_proj", vec![INNER, HIDDEN]),
            ("mlp.down_proj", vec![HIDDEN, INNER]),
            ("input_layernorm", vec![HIDDEN]),
            ("post_attention_layernorm", vec![HIDDEN]),
        ] {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), shape));
        }
    }
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut seed = 1u32;
    for (name, shape) in tensors {
        let start = data.len();
        for _ in 0..shape.iter().product() {
            // A linear congruential generator: small numbers, the same each time.
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            data.extend_from_slice(&((seed >> 8) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes());
        }
        header.insert(name, json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, data.len()] }));
    }
    header.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.write_all(&data).unwrap();
}
