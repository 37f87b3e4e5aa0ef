//! Tests of packaging: every kind of source, in every artifact format, is found again by its role.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use pontoon_testbed::Scratch;
use serde_json::json;

use super::*;
use crate::{
    Error, Format, Role, check,
    gguf::forge::{Forge, V},
    manifest::Manifest,
    media,
};

struct Bench {
    folder: Scratch,
    store: Store,
}

impl Bench {
    fn new() -> Self {
        let folder = Scratch::new("package").unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        Self { folder, store }
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn gguf(&self, name: &str, forge: &Forge) -> PathBuf {
        self.file(name, &forge.bytes())
    }

    fn build(&self, builder: Builder, name: &str) -> Result<Model> {
        builder.build(&self.store, &Reference::parse(name).unwrap(), &Policy::default(), &Progress::none())
    }
}

fn adapter() -> Forge {
    Forge::adapter()
}

fn projector() -> Forge {
    Forge::chat().set("general.architecture", V::Str("clip".into()))
}

fn day() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

/// All extras, in the given format.
fn everything(bench: &Bench, flavour: Flavour) -> Model {
    let builder = Builder::gguf(bench.gguf("m.gguf", &Forge::chat()))
        .license(bench.file("LICENSE", b"do as you like"))
        .mmproj(bench.gguf("p.gguf", &projector()))
        .adapter(bench.gguf("a.gguf", &adapter()))
        .draft(bench.gguf("d.gguf", &Forge::chat().set("general.name", V::Str("draft".into()))))
        .chat_template(bench.file("chat.jinja", b"{{ messages }}"))
        .spdx("MIT")
        .context_size(256)
        .created(day())
        .flavour(flavour);
    bench.build(builder, "me/all").unwrap()
}

#[test]
fn everything_is_found_again_in_every_flavour() {
    for flavour in [Flavour::DockerV01, Flavour::DockerV02, Flavour::Modelpack] {
        let bench = Bench::new();
        let model = everything(&bench, flavour);
        assert_eq!((model.flavour, model.created), (flavour, Some(day())));
        assert_eq!(model.config.context_size, Some(256));
        assert_eq!(
            (model.config.architecture.as_str(), model.config.quantization.as_str()),
            ("llama", "Q8_0")
        );
        assert_eq!(model.licenses, ["MIT"]);
        let bundle = bench.store.bundle(&model).unwrap();
        let same = |path: &Path, source: &str| {
            assert_eq!(
                fs::read(path).unwrap(),
                fs::read(bench.folder.path().join(source)).unwrap(),
                "{flavour:?} {source}"
            );
        };
        same(bundle.main().unwrap(), "m.gguf");
        same(bundle.mmproj.as_deref().unwrap(), "p.gguf");
        same(bundle.draft.as_deref().unwrap(), "d.gguf");
        same(bundle.chat_template.as_deref().unwrap(), "chat.jinja");
        same(&bundle.adapters[0], "a.gguf");
        same(&bundle.licenses[0], "LICENSE");
        let facts = check::bundle(&bundle).unwrap();
        assert_eq!((facts.layers, facts.has_chat_template), (2, true));
    }
}

#[test]
fn media_types_are_those_of_docker_and_the_cncf() {
    let types = |flavour| {
        let model = everything(&Bench::new(), flavour);
        let mut layers: Vec<String> =
            model.manifest.layers.iter().map(|layer| layer.media_type.clone()).collect();
        layers.sort();
        layers.dedup();
        (model.manifest.config.media_type, model.manifest.artifact_type, layers)
    };
    let (config, artifact, layers) = types(Flavour::DockerV01);
    assert_eq!((config.as_str(), artifact), ("application/vnd.docker.ai.model.config.v0.1+json", None));
    for kind in ["gguf.v3", "mmproj", "license", "chat.template.jinja"] {
        assert!(layers.contains(&format!("application/vnd.docker.ai.{kind}")), "{kind}: {layers:?}");
    }
    let (config, artifact, layers) = types(Flavour::Modelpack);
    assert_eq!(config, "application/vnd.cncf.model.config.v1+json");
    assert_eq!(artifact.as_deref(), Some("application/vnd.cncf.model.manifest.v1+json"));
    let expected = ["doc.v1.raw", "weight.config.v1.raw", "weight.v1.raw"]
        .map(|kind| format!("application/vnd.cncf.model.{kind}"));
    assert_eq!(layers, expected);
}

#[test]
fn a_modelpack_of_others_is_understood_without_our_annotations() {
    let bench = Bench::new();
    let model = everything(&bench, Flavour::Modelpack);
    let mut manifest = model.manifest.clone();
    manifest.layers.retain(|layer| {
        layer.annotations.get(media::FILE_ROLE).is_none_or(|role| role != "\"draft\"" && role != "draft")
    });
    for layer in &mut manifest.layers {
        layer.annotations.remove(media::FILE_ROLE);
    }
    let staging = bench.store.stage().unwrap();
    let digest = staging.commit(&manifest.to_bytes(), &[]).unwrap();
    let model = bench.store.model(&digest).unwrap();
    let bundle = bench.store.bundle(&model).unwrap();
    assert_eq!((bundle.weights.len(), bundle.adapters.len(), bundle.licenses.len()), (1, 1, 1));
    assert!(bundle.mmproj.is_some() && bundle.chat_template.is_some());
    assert_eq!(fs::read(bundle.main().unwrap()).unwrap(), Forge::chat().bytes());
}

#[test]
fn verify_finds_what_rots_on_the_disk() {
    let bench = Bench::new();
    let model = everything(&bench, Flavour::DockerV01);
    assert_eq!(bench.store.verify("me/all").unwrap().layers, 2);
    let weights = &model.files_of(Role::Weights).next().unwrap().path;
    let mut bytes = fs::read(weights).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(weights, bytes).unwrap();
    assert!(matches!(bench.store.verify("me/all"), Err(Error::Digest { .. })));
}

#[test]
fn the_same_files_and_time_make_the_same_artifact() {
    assert_eq!(
        everything(&Bench::new(), Flavour::DockerV01).digest,
        everything(&Bench::new(), Flavour::DockerV01).digest
    );
}

#[test]
fn shards_are_found_by_the_first_and_named_for_the_engine() {
    let bench = Bench::new();
    let whole = Forge::chat();
    let half = whole.tensors.len() / 2;
    for number in 0..2u32 {
        let mut part = whole.clone().set("split.count", V::U32(2)).set("split.no", V::U32(number));
        part.tensors =
            if number == 0 { whole.tensors[..half].to_vec() } else { whole.tensors[half..].to_vec() };
        bench.gguf(&format!("big-0000{}-of-00002.gguf", number + 1), &part);
    }
    let first = bench.folder.path().join("big-00001-of-00002.gguf");
    for flavour in [Flavour::DockerV01, Flavour::Modelpack] {
        let model = bench.build(Builder::gguf(&first).flavour(flavour), "me/big").unwrap();
        let bundle = bench.store.bundle(&model).unwrap();
        let names: Vec<_> =
            bundle.weights.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["model-00001-of-00002.gguf", "model-00002-of-00002.gguf"]);
        assert_eq!(check::bundle(&bundle).unwrap().layers, 2);
    }
    fs::remove_file(bench.folder.path().join("big-00002-of-00002.gguf")).unwrap();
    let error = bench.build(Builder::gguf(&first), "me/big").unwrap_err().to_string();
    assert!(error.contains("big-00002-of-00002.gguf is missing"), "{error}");
}

#[test]
fn damaged_and_missing_files_are_refused() {
    let bench = Bench::new();
    let good = bench.gguf("m.gguf", &Forge::chat());
    let nan = bench.gguf("n.gguf", &Forge::chat().tensor("ffn_up.weight", |tensor| tensor.3 = 0xff));
    assert!(matches!(bench.build(Builder::gguf(nan), "me/x"), Err(Error::Check(_))));
    assert!(matches!(bench.build(Builder::gguf(&good).mmproj(&good), "me/x"), Err(Error::Check(_))));
    assert!(matches!(bench.build(Builder::gguf(&good).adapter(&good), "me/x"), Err(Error::Check(_))));
    assert!(bench.build(Builder::gguf("/no/such/file.gguf"), "me/x").is_err());
    let endless = "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}";
    let template = bench.file("t", endless.as_bytes());
    assert!(bench.build(Builder::gguf(&good).chat_template(template), "me/x").is_err());
    assert!(bench.store.list().unwrap().is_empty());
}

#[test]
fn from_adds_and_replaces() {
    let bench = Bench::new();
    let first = everything(&bench, Flavour::DockerV01);
    let template = bench.file("other.jinja", b"{{ other }}");
    let builder = Builder::from(&bench.store, "me/all").unwrap().chat_template(template).context_size(512);
    let model = bench.build(builder, "me/changed").unwrap();
    assert_eq!((model.config.context_size, model.files.len()), (Some(512), first.files.len()));
    let bundle = bench.store.bundle(&model).unwrap();
    assert_eq!(fs::read(bundle.chat_template.unwrap()).unwrap(), b"{{ other }}");
    // And from one format to another.
    let builder = Builder::from(&bench.store, "me/all").unwrap().flavour(Flavour::Modelpack);
    let pack = bench.build(builder, "me/pack").unwrap();
    assert_eq!(pack.flavour, Flavour::Modelpack);
    assert_eq!(bench.store.bundle(&pack).unwrap().adapters.len(), 1);
}

#[test]
fn policy_is_asked_when_packaging() {
    let bench = Bench::new();
    let file = bench.gguf("m.gguf", &Forge::chat());
    let build = |builder: Builder, name: &str, policy: Policy| {
        builder.build(&bench.store, &Reference::parse(name).unwrap(), &policy, &Progress::none())
    };
    let licence = Policy { license_required: true, ..Policy::default() };
    assert!(matches!(build(Builder::gguf(&file), "me/x", licence.clone()), Err(Error::Policy(_))));
    build(Builder::gguf(&file).spdx("MIT"), "me/x", licence).unwrap();
    let naming = Policy { naming: true, ..Policy::default() };
    assert!(matches!(build(Builder::gguf(&file), "me/x", naming.clone()), Err(Error::Policy(_))));
    // It has 26,816 parameters in Q8_0.
    let sized = |context| Builder::gguf(&file).context_size(context);
    build(sized(8192), "me/forged:27k-q8_0-8k", naming.clone()).unwrap();
    for lie in ["27k-q4_0-8k", "27m-q8_0-8k", "27k-q8_0-16k"] {
        let error = build(sized(8192), &format!("me/forged:{lie}"), naming.clone()).unwrap_err();
        assert!(error.to_string().contains("but the model has"), "{error}");
    }
}

#[test]
fn a_safetensors_folder_keeps_its_paths_and_loses_its_code() {
    let bench = Bench::new();
    let header = r#"{"w":{"dtype":"F16","shape":[4],"data_offsets":[0,8]}}"#;
    let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
    bench.file("m/model.safetensors", &weights);
    bench.file("m/text_encoder/model.safetensors", &weights);
    bench.file("m/config.json", br#"{"model_type":"qwen2","architectures":["Qwen2ForCausalLM"],"num_hidden_layers":3,"num_attention_heads":2,"hidden_size":8}"#);
    bench.file("m/tokenizer_config.json", br#"{"chat_template":"x"}"#);
    bench.file("m/modeling.py", b"import os");
    bench.file("m/pytorch_model.bin", b"pickle");
    bench.file("m/.git/config", b"x");
    for flavour in [Flavour::DockerV01, Flavour::DockerV02, Flavour::Modelpack] {
        let builder = Builder::safetensors(bench.folder.path().join("m")).flavour(flavour);
        let model = bench.build(builder, "me/st").unwrap();
        assert_eq!((model.config.format, model.config.parameters.as_str()), (Format::Safetensors, "8"));
        let bundle = bench.store.bundle(&model).unwrap();
        for file in
            ["model.safetensors", "text_encoder/model.safetensors", "config.json", "tokenizer_config.json"]
        {
            assert!(bundle.dir.join(file).exists(), "{flavour:?} {file}");
        }
        assert!(!bundle.dir.join("modeling.py").exists() && !bundle.dir.join("pytorch_model.bin").exists());
        let facts = check::bundle(&bundle).unwrap();
        assert_eq!((facts.layers, facts.key_length, facts.has_chat_template), (3, 4, true));
    }
    bench.file("m/config.json", br#"{"model_file":"evil.py"}"#);
    let model = bench.build(Builder::safetensors(bench.folder.path().join("m")), "me/evil").unwrap();
    let error = check::bundle(&bench.store.bundle(&model).unwrap()).unwrap_err().to_string();
    assert!(error.contains("run code of its own"), "{error}");
}

/// A zip without compression, made by hand: the format is simple enough.
fn zip(entries: &[(&str, u16)]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, method) in entries {
        let offset = out.len() as u32;
        let fixed = |out: &mut Vec<u8>| {
            for half in [20u16, 0, *method, 0, 33] {
                out.extend(half.to_le_bytes());
            }
            for word in [0u32, 4, 4] {
                out.extend(word.to_le_bytes());
            }
            out.extend((name.len() as u16).to_le_bytes());
            out.extend(0u16.to_le_bytes());
        };
        out.extend(b"PK\x03\x04");
        fixed(&mut out);
        out.extend(name.as_bytes());
        out.extend(b"data");
        directory.extend(b"PK\x01\x02\x14\x00");
        fixed(&mut directory);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let start = out.len() as u32;
    out.extend(&directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        out.extend((entries.len() as u16).to_le_bytes());
    }
    out.extend((directory.len() as u32).to_le_bytes());
    out.extend(start.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out
}

#[test]
fn dduf_files_are_zips_of_a_pipeline() {
    let bench = Bench::new();
    let good = bench.file("p.dduf", &zip(&[("model_index.json", 0), ("vae/model.safetensors", 0)]));
    let model = bench.build(Builder::dduf(good), "me/pipe").unwrap();
    let bundle = bench.store.bundle(&model).unwrap();
    assert_eq!(bundle.main().unwrap().file_name().unwrap(), "model.dduf");
    assert_eq!(check::bundle(&bundle).unwrap().mode, check::Mode::Other);
    for (entries, reason) in [
        (&[("model_index.json", 8)][..], "is compressed"),
        (&[("vae/x.json", 0)], "lacks `model_index.json`"),
        (&[("model_index.json", 0), ("../x.json", 0)], "not a path"),
        (&[("model_index.json", 0), ("x.py", 0)], "not of a kind"),
    ] {
        let bad = bench.file("b.dduf", &zip(entries));
        let error = bench.build(Builder::dduf(bad), "me/bad").unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let cut = bench.file("c.dduf", &zip(&[("model_index.json", 0)])[..50]);
    assert!(bench.build(Builder::dduf(cut), "me/bad").is_err());
}

#[test]
fn ollamas_artifacts_are_read_and_repackaged() {
    let bench = Bench::new();
    let staging = bench.store.stage().unwrap();
    let put = |kind: &str, bytes: &[u8]| {
        staging.put_bytes(&format!("application/vnd.ollama.image.{kind}"), bytes).unwrap()
    };
    let layers = vec![
        put("model", &Forge::chat().bytes()),
        put("projector", &projector().bytes()),
        put("adapter", &adapter().bytes()),
        put("template", b"{{ .Prompt }}"),
        put("system", b"Be kind."),
        put("params", br#"{"stop":["<|im_end|>"],"temperature":0.7,"num_ctx":4096}"#),
        put("license", b"do as you like"),
    ];
    let config =
        json!({"model_format": "gguf", "model_family": "llama", "model_type": "27K", "file_type": "Q8_0"})
            .to_string();
    let config = staging.put_bytes(media::OLLAMA_CONFIG, config.as_bytes()).unwrap();
    let mut manifest = Manifest::new(config, layers);
    manifest.media_type = media::DOCKER_MANIFEST.to_owned();
    let name = Reference::parse("registry.ollama.ai/library/forged").unwrap();
    staging.commit(&manifest.to_bytes(), &[name]).unwrap();

    let model = bench.store.resolve("registry.ollama.ai/library/forged").unwrap();
    assert_eq!(
        (model.flavour, model.config.format, model.has_license()),
        (Flavour::Ollama, Format::Gguf, true)
    );
    let bundle = bench.store.bundle(&model).unwrap();
    assert_eq!(bundle.defaults.system.as_deref(), Some("Be kind."));
    assert_eq!(bundle.defaults.template.as_deref(), Some("{{ .Prompt }}"));
    assert_eq!(bundle.defaults.parameters["num_ctx"], 4096);
    assert!(bundle.mmproj.is_some() && bundle.adapters.len() == 1);
    check::bundle(&bundle).unwrap();

    let again = bench
        .build(Builder::from(&bench.store, "registry.ollama.ai/library/forged").unwrap(), "me/forged")
        .unwrap();
    assert_eq!(again.flavour, Flavour::DockerV01);
    assert_eq!(again.files_of(Role::Weights).next().unwrap().descriptor.media_type, media::GGUF);
    assert_eq!(bench.store.bundle(&again).unwrap().defaults, bundle.defaults);
}
