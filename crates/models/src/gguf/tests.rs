//! Tests of the reader and the check: good files pass, each kind of damage that engines die of is
//! refused with its reason, and no damage at all makes the reader panic or swallow memory.

use pontoon_testbed::Scratch;
use proptest::prelude::*;

use super::{
    forge::{Forge, V, VOCAB},
    *,
};
use crate::{Bundle, Defaults, Format, check as whole};

fn check_forged(forge: &Forge) -> Result<Checked, String> {
    let folder = Scratch::new("gguf").unwrap();
    let path = folder.path().join("x.gguf");
    forge.write(&path);
    let checked = check(&path).map_err(|error| error.reason)?;
    check_values(&path, &checked.header).map_err(|error| error.reason)?;
    Ok(checked)
}

#[track_caller]
fn refused(forge: &Forge, reason: &str) {
    match check_forged(forge) {
        Ok(_) => panic!("it passed, and should have been refused because: {reason}"),
        Err(said) => assert!(said.contains(reason), "it says `{said}`, not `{reason}`"),
    }
}

#[test]
fn a_good_file_passes_and_tells_its_facts() {
    let facts = check_forged(&Forge::chat()).unwrap().facts;
    assert_eq!(
        (facts.mode, facts.architecture.as_str(), facts.quantization.as_str()),
        (Mode::Chat, "llama", "Q8_0")
    );
    assert_eq!((facts.layers, facts.heads, facts.heads_kv.as_slice()), (2, 4, &[2, 2][..]));
    assert_eq!((facts.key_length, facts.vocab, facts.context_length), (16, VOCAB as u32, 512));
    // Two layers, two heads of sixteen values, for key and value, two bytes each.
    assert_eq!(facts.kv_bytes(100, 16.0, 16.0), 100 * 2 * 2 * 16 * 2 * 2);
    assert!(facts.has_chat_template && facts.layer_bytes < facts.weights_bytes);
    let mut old = Forge::chat();
    old.version = 2;
    assert!(check_forged(&old).is_ok());
}

#[test]
fn modes_are_found_from_the_metadata() {
    let mode = |forge: Forge| check_forged(&forge).unwrap().facts.mode;
    let pooling = |id| Forge::chat().set("llama.pooling_type", V::U32(id));
    assert_eq!(
        [mode(pooling(0)), mode(pooling(1)), mode(pooling(3)), mode(pooling(4))],
        [Mode::Chat, Mode::Embedding, Mode::Embedding, Mode::Rerank]
    );
    assert_eq!(mode(Forge::chat().set("llama.attention.causal", V::Bool(false))), Mode::Embedding);
    let mut scorer = Forge::chat();
    scorer.tensors.push(("cls.weight".into(), vec![64, 1], 0, 0));
    assert_eq!(mode(scorer), Mode::Rerank);
}

#[test]
fn counts_out_of_range_are_refused() {
    for (key, bad) in [
        ("block_count", vec![0, 1, 3, 7, 513, u32::MAX]),
        ("context_length", vec![0, u32::MAX]),
        ("embedding_length", vec![0, 7, 1 << 30, u32::MAX]),
        ("feed_forward_length", vec![1 << 30, u32::MAX]),
        ("attention.head_count", vec![0, 3, 65_535, u32::MAX]),
        ("attention.head_count_kv", vec![0, 3, 8, u32::MAX]),
        ("attention.key_length", vec![0, 1, 3, u32::MAX]),
        ("attention.value_length", vec![0, u32::MAX]),
        ("rope.dimension_count", vec![1, 3, 18, u32::MAX]),
        ("expert_count", vec![1, 3, 4096, u32::MAX]),
        ("expert_used_count", vec![1, 4096, u32::MAX]),
        ("pooling_type", vec![5, u32::MAX]),
        ("vocab_size", vec![0, u32::MAX]),
    ] {
        for value in bad {
            let forge = Forge::chat().set(&format!("llama.{key}"), V::U32(value));
            let error = check_forged(&forge).expect_err(&format!("{key} = {value} passed"));
            assert!(error.len() > 20, "{error}");
        }
    }
    let experts = Forge::chat().set("llama.expert_count", V::U32(8));
    refused(&experts.clone().set("llama.expert_used_count", V::U32(9)), "uses 9 experts and has 8");
    assert!(check_forged(&experts.set("llama.expert_used_count", V::U32(2))).is_ok());
}

#[test]
fn wrong_types_and_missing_keys_are_refused() {
    for key in ["block_count", "context_length", "embedding_length", "attention.head_count"] {
        let key = format!("llama.{key}");
        refused(&Forge::chat().without(&key), "it lacks");
        refused(&Forge::chat().set(&key, V::Str("x".into())), "is not a count");
        refused(&Forge::chat().set(&key, V::I32(-1)), "is not a count");
    }
    assert!(check_forged(&Forge::chat().set("llama.block_count", V::U64(2))).is_ok());
    refused(&Forge::chat().set("llama.attention.layer_norm_rms_epsilon", V::U32(1)), "is not a number");
    refused(&Forge::chat().without("general.architecture"), "it lacks `general.architecture`");
    refused(&Forge::chat().set("general.architecture", V::U8(1)), "is not a text");
    let lists = Forge::chat().set("llama.attention.head_count_kv", V::I32s(vec![2]));
    refused(&lists, "has 1 elements for 2 layers");
}

#[test]
fn numbers_that_are_none_are_refused() {
    for bad in [f32::NAN, f32::INFINITY, -1.0, 1e9] {
        refused(&Forge::chat().set("llama.attention.layer_norm_rms_epsilon", V::F32(bad)), "is possible");
    }
    for bad in [f32::NAN, 0.0, -1.0] {
        refused(&Forge::chat().set("llama.rope.freq_base", V::F32(bad)), "is possible");
    }
}

#[test]
fn vocabularies_that_engines_would_read_beyond_are_refused() {
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let tokens = |count: usize| V::Strs((0..count).map(|number| format!("t{number}")).collect());
    refused(&Forge::chat().without(&key("tokens")), "lacks its vocabulary");
    refused(&Forge::chat().without(&key("model")), "it lacks `tokenizer.ggml.model`");
    refused(&Forge::chat().without(&key("merges")), "it lacks `tokenizer.ggml.merges`");
    refused(&Forge::chat().set(&key("tokens"), tokens(1)), "elements for 1 tokens");
    refused(
        &Forge::chat().set(&key("tokens"), tokens(99)).without(&key("token_type")),
        "for 99 tokens and a width",
    );
    refused(
        &Forge::chat().set(&key("tokens"), V::Strs(vec!["a".into(); VOCAB])),
        "token 1 of its vocabulary occurs a second time",
    );
    refused(&Forge::chat().set(&key("token_type"), V::I32s(vec![1])), "has 1 elements for 32 tokens");
    refused(&Forge::chat().set(&key("token_type"), V::I32s(vec![99_999; VOCAB])), "the unknown type 99999");
    refused(&Forge::chat().set(&key("token_type"), V::U8s(vec![1; VOCAB])), "not a list of 32-bit integers");
    refused(&Forge::chat().set(&key("scores"), V::U8s(vec![1; VOCAB])), "not a list of 32-bit floats");
    refused(&Forge::chat().set(&key("scores"), V::F32s(vec![1.0])), "has 1 elements for 32 tokens");
    refused(&Forge::chat().set(&key("merges"), V::Strs(vec![String::new()])), "does not have two parts");
    refused(&Forge::chat().set(&key("merges"), V::Strs(vec!["x".into()])), "does not have two parts");
    refused(&Forge::chat().set(&key("eos_token_id"), V::Str("x".into())), "is not the id of a token");
    let mut blank: Vec<String> = (0..VOCAB).map(|number| format!("t{number}")).collect();
    (blank[3], blank[5]) = (String::new(), String::new());
    assert!(check_forged(&Forge::chat().set(&key("tokens"), V::Strs(blank))).is_ok());
}

#[test]
fn tensors_that_engines_abort_on_are_refused() {
    for integer in [24, 25, 26, 27, 28] {
        refused(
            &Forge::chat().tensor("ffn_up.weight", |tensor| tensor.2 = integer),
            "which weights cannot be",
        );
    }
    refused(
        &Forge::chat().tensor("output_norm.weight", |tensor| tensor.2 = 1),
        "norms and biases must be F32",
    );
    refused(
        &Forge::chat().tensor("token_embd.weight", |tensor| tensor.1 = vec![32, 64]),
        "its embedding has the shape",
    );
    refused(
        &Forge::chat().tensor("ffn_up.weight", |tensor| tensor.0 = "blk.9.ffn_up.weight".into()),
        "belongs to none of the 2 layers",
    );
    refused(
        &Forge::chat().tensor("ffn_up.weight", |tensor| tensor.0 = "output_norm.weight".into()),
        "occurs twice",
    );
    refused(
        &Forge::chat().tensor("attn_q.weight", |tensor| tensor.1 = vec![33, 64]),
        "which Q8_0 cannot hold",
    );
    let mut none = Forge::chat();
    none.tensors.clear();
    refused(&none, "it has no tensors");
}

#[test]
fn weights_that_are_no_numbers_are_found() {
    for name in ["token_embd.weight", "ffn_up.weight", "output_norm.weight"] {
        refused(&Forge::chat().tensor(name, |tensor| tensor.3 = 0xff), "no finite number (block 0)");
    }
}

#[test]
fn endless_templates_are_refused_for_the_engine() {
    let folder = Scratch::new("gguf").unwrap();
    let path = folder.path().join("model.gguf");
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
    let mut bundle = Bundle {
        dir: folder.path().to_owned(),
        format: Format::Gguf,
        weights: vec![path.clone()],
        mmproj: None,
        chat_template: None,
        adapters: Vec::new(),
        draft: None,
        licenses: Vec::new(),
        defaults: Defaults::default(),
    };
    Forge::chat().set("tokenizer.chat_template", V::Str(endless.into())).write(&path);
    assert!(whole::bundle(&bundle).unwrap_err().to_string().contains("does not come to an end"));
    Forge::chat().write(&path);
    assert_eq!(whole::bundle(&bundle).unwrap().mode, Mode::Chat);
    let template = folder.path().join("t.jinja");
    std::fs::write(&template, endless).unwrap();
    bundle.chat_template = Some(template);
    assert!(whole::bundle(&bundle).is_err());
}

#[test]
fn shards_must_be_complete_and_in_order() {
    let folder = Scratch::new("gguf").unwrap();
    let paths: Vec<PathBuf> = (0..2).map(|number| folder.path().join(format!("{number}.gguf"))).collect();
    let whole = Forge::chat();
    for (number, path) in paths.iter().enumerate() {
        let mut part = whole.clone().set("split.count", V::U32(2)).set("split.no", V::U32(number as u32));
        let all = part.tensors.len() / 2;
        part.tensors = if number == 0 { part.tensors[..all].to_vec() } else { part.tensors[all..].to_vec() };
        part.write(path);
    }
    let checked = check_shards(&paths).unwrap();
    assert_eq!(checked.header.tensors.len(), whole.tensors.len());
    let wrong = [paths[1].clone(), paths[0].clone()];
    assert!(check_shards(&wrong).unwrap_err().reason.contains("shard 2 of 2"));
    assert!(check(&paths[0]).unwrap_err().reason.contains("shard 1 of 2"));
}

#[test]
fn parts_of_models_are_told_apart() {
    let folder = Scratch::new("gguf").unwrap();
    let path = folder.path().join("x.gguf");
    let mut projector = Forge::chat().set("general.architecture", V::Str("clip".into()));
    projector.write(&path);
    assert!(check(&path).unwrap_err().reason.contains("a part of one"));
    check_projector(&path).unwrap();
    for (key, value) in [
        ("patch_size", V::U32(0)),
        ("attention.layer_norm_epsilon", V::F32(f32::NAN)),
        ("image_std", V::F32s(vec![0.5, 0.0, 0.5])),
        ("image_mean", V::F32s(vec![f32::INFINITY, 0.0, 0.5])),
    ] {
        projector.clone().set(&format!("clip.vision.{key}"), value).write(&path);
        assert!(check_projector(&path).unwrap_err().reason.contains(key), "{key}");
    }
    projector.tensors = vec![("v.position_embd.weight".into(), vec![32, 16], 0, 0)];
    projector = projector
        .set("clip.projector_type", V::Str("mlp".into()))
        .set("clip.vision.image_size", V::U32(64))
        .set("clip.vision.patch_size", V::U32(16));
    projector.write(&path);
    check_projector(&path).unwrap();
    projector.set("clip.vision.patch_size", V::U32(8)).write(&path);
    assert!(check_projector(&path).unwrap_err().reason.contains("16 positions"));

    let mut adapter = Forge::adapter();
    adapter.write(&path);
    check_adapter(&path, None).unwrap();
    adapter.tensors.pop();
    adapter.write(&path);
    assert!(check_adapter(&path, None).unwrap_err().reason.contains("lacks its other half"));
}

#[test]
fn adapters_are_held_against_the_weights() {
    let folder = Scratch::new("gguf").unwrap();
    let (path, weights) = (folder.path().join("x.gguf"), folder.path().join("m.gguf"));
    let fault = |base: &Forge, adapter: &Forge| {
        base.write(&weights);
        adapter.write(&path);
        let base = check(&weights).unwrap().header;
        check_adapter(&path, Some(&base)).err().map(|error| error.reason).unwrap_or_default()
    };
    let of = |name: &str, a: &[u64], b: &[u64]| {
        let mut adapter = Forge::adapter();
        let half = |half, shape: &[u64]| (format!("{name}.lora_{half}"), shape.to_vec(), 0, 0);
        adapter.tensors = vec![half("a", a), half("b", b)];
        adapter
    };
    let base = Forge::chat();
    assert_eq!(fault(&base, &Forge::adapter()), "");
    for (adapter, reason) in [
        (of("blk.0.attn_q.weight", &[32, 8], &[8, 64]), "does not fit"),
        (of("blk.0.attn_q.weight", &[64, 8], &[4, 64]), "does not fit"),
        (of("blk.0.attn_q.weight", &[64, 8, 3], &[8, 64, 3]), "does not fit"),
        (of("blk.7.attn_q.weight", &[64, 8], &[8, 64]), "no tensor `blk.7.attn_q.weight`"),
        (Forge::adapter().set("general.architecture", V::Str("qwen2".into())), "architecture `qwen2`"),
        (Forge::adapter().set("adapter.type", V::Str("dora".into())), "`adapter.type` is `dora`"),
    ] {
        let found = fault(&base, &adapter);
        assert!(found.contains(reason), "{reason}: {found}");
    }
    // Embeddings that are the output too cannot be changed; others can.
    let vocab = VOCAB as u64;
    let embedding = of("token_embd.weight", &[8, vocab], &[8, 64]);
    assert!(fault(&base, &embedding).contains("output too"));
    let mut untied = base;
    untied.tensors.push(("output.weight".into(), vec![64, vocab], 0, 0));
    assert_eq!(fault(&untied, &embedding), "");
    assert!(fault(&untied, &of("token_embd.weight", &[64, 8], &[8, vocab])).contains("does not fit"));
}

/// Every kind of lie about lengths, each at its own place in the header.
#[test]
fn lengths_are_held_against_the_file() {
    let good = Forge::chat().bytes();
    let big = [(4, 8u64), (8, 1 << 40), (16, 1 << 40), (24, 1 << 40), (24, u64::MAX)];
    for (at, value) in big {
        let mut bytes = good.clone();
        let width = if at == 4 { 4 } else { 8 };
        bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        assert!(read_from(&bytes[..], bytes.len() as u64).is_err(), "{at}");
    }
    let mut swapped = good.clone();
    swapped[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(read_from(&swapped[..], good.len() as u64).unwrap_err().contains("big-endian"));
}

#[test]
fn no_truncation_passes() {
    let good = Forge::chat().bytes();
    for length in 0..good.len() {
        assert!(
            read_from(&good[..length], length as u64).is_err(),
            "{length} of {} bytes passed",
            good.len()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]
    /// Neither a flipped bit nor a byte of any value, nor several, do more than refuse the file.
    #[test]
    fn no_damage_panics(flips in prop::collection::vec((0usize..3000, any::<u8>()), 1..6)) {
        let mut bytes = Forge::chat().bytes();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(header) = read_from(&bytes[..], bytes.len() as u64) {
            let _ = Facts::of(&header);
            let folder = Scratch::new("gguf").unwrap();
            let path = folder.path().join("x.gguf");
            std::fs::write(&path, &bytes).unwrap();
            let _ = check(&path);
        }
    }
}

/// What a header claims is held against the file before memory is asked for: a process that may have
/// little more memory reads all of these without being refused any.
#[cfg(target_os = "linux")]
#[test]
fn no_claim_is_believed() {
    const CHILD: &str = "PONTOON_GGUF_CHILD";
    const MEMORY: u64 = 16 << 20;
    if std::env::var_os(CHILD).is_none() {
        let test = ["gguf::tests::no_claim_is_believed", "--exact", "--test-threads=1"];
        let program = std::env::current_exe().unwrap();
        // One arena: others reserve memory beforehand, which the limit would then not see.
        let mut child = std::process::Command::new(program);
        let output = child.args(test).env(CHILD, "1").env("MALLOC_ARENA_MAX", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let most = Some(pages * rustix::param::page_size() as u64 + MEMORY);
    let limit = rustix::process::Rlimit { current: most, maximum: most };
    rustix::process::setrlimit(rustix::process::Resource::As, limit).unwrap();
    // A list of texts and one of numbers at the start; some counts are within the limits for each.
    let mut bytes = Forge::chat().set("a", V::Strs(Vec::new())).set("b", V::F32s(vec![0.0; 4])).bytes();
    bytes.truncate(4096);
    let places = 8..400;
    for count in [1 << 16, 1 << 22, (1 << 22) - 1, 1 << 28, 1 << 34, u64::MAX / 8, u64::MAX] {
        for at in places.clone() {
            let mut lie = bytes.clone();
            lie[at..at + 8].copy_from_slice(&u64::to_le_bytes(count));
            let _ = read_from(&lie[..], lie.len() as u64);
        }
    }
}
