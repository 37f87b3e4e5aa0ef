//! A short training, end to end: the file it leaves, bit for bit, and what it says to an engine.

use std::{fs::File, path::Path, process::Command, sync::LazyLock};

use candle_core::quantized::{
    GgmlDType,
    gguf_file::{Content, Value},
};
use tempfile::TempDir;
use toy_chat::{
    chat::{self, Message, tool_call, tools_line},
    gguf, packing,
    speaker::{Reply, Speaker},
    tokenizer::Tokenizer,
};

/// A folder with the file of a short training in it, by the real program.
fn short_training() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(env!("CARGO_BIN_EXE_toy-chat"))
        .args(["train", "--steps", "3", "--rows", "2", "--row-length", "32", "--vocabulary", "320"])
        .args(["--context", "77"])
        .arg(folder.path().join("model.gguf"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    folder
}

static TRAINED: LazyLock<TempDir> = LazyLock::new(short_training);

fn trained() -> std::path::PathBuf {
    TRAINED.path().join("model.gguf")
}

fn content(path: &Path) -> Content {
    Content::read(&mut File::open(path).unwrap()).unwrap()
}

fn tokenizer() -> Tokenizer {
    gguf::read(&trained()).unwrap().0
}

#[test]
fn two_trainings_leave_the_same_file() {
    let first = std::fs::read(trained()).unwrap();
    let second = short_training();
    assert!(first == std::fs::read(second.path().join("model.gguf")).unwrap(), "the files differ");
    assert!(!second.path().join("model.gguf.part").exists());
}

#[test]
fn the_file_says_what_llama_cpp_needs() {
    let content = content(&trained());
    let text = |key: &str| content.metadata[key].to_string().unwrap().clone();
    let number = |key: &str| content.metadata[key].to_u32().unwrap();
    assert_eq!(text("general.architecture"), "llama");
    assert_eq!(text("general.license"), "MIT OR Apache-2.0");
    assert_eq!(text("tokenizer.ggml.model"), "gpt2");
    assert_eq!(number("llama.context_length"), 77);
    assert_eq!(number("llama.vocab_size"), 320);
    let tokens = content.metadata["tokenizer.ggml.tokens"].to_vec().unwrap();
    let kinds = content.metadata["tokenizer.ggml.token_type"].to_vec().unwrap();
    assert_eq!((tokens.len(), kinds.len()), (320, 320));
    let token = |id: u32| tokens[id as usize].to_string().unwrap().as_str();
    assert_eq!(token(number("tokenizer.ggml.eos_token_id")), chat::TURN_END);
    let kind = |wanted: &str| {
        let at = tokens.iter().position(|token| token.to_string().unwrap() == wanted).unwrap();
        kinds[at].to_i32().unwrap()
    };
    assert_eq!([kind(chat::TURN_START), kind(chat::CALL_START), kind("a")], [3, 4, 1]);
}

#[test]
fn matrices_are_quantised_and_norms_are_not() {
    let content = content(&trained());
    assert_eq!(content.tensor_infos.len(), 1 + 4 * 9 + 1);
    for (name, tensor) in &content.tensor_infos {
        let expected = if name.contains("norm") { GgmlDType::F32 } else { GgmlDType::Q8_0 };
        assert_eq!(tensor.ggml_dtype, expected, "{name}");
    }
}

#[test]
fn the_stored_tokenizer_cuts_text_as_training_did() {
    let tokenizer = tokenizer();
    let messages = [Message::user("What is 3 + 4?"), Message::assistant("3 + 4 = 7")];
    let trained_on = packing::Example::new(&messages, &tokenizer).unwrap().tokens;
    // An engine cuts the whole text at once; training cut it turn by turn.
    assert_eq!(tokenizer.encode(&chat::render(&messages)).unwrap(), trained_on);
}

#[test]
fn the_stored_template_writes_what_the_model_was_trained_on() {
    let content = content(&trained());
    let Value::String(template) = &content.metadata["tokenizer.chat_template"] else {
        panic!("the template is no text")
    };
    let mut jinja = minijinja::Environment::new();
    jinja.add_template("chat", template).unwrap();
    let function = minijinja::context! { name => "get_weather", arguments => r#"{"city": "Oslo"}"# };
    let context = minijinja::context! {
        tools => [minijinja::context! { function => minijinja::context! { name => "get_weather" } }],
        messages => [
            minijinja::context! { role => "user", content => "What is the weather in Oslo?" },
            minijinja::context! {
                role => "assistant",
                content => None::<String>,
                tool_calls => [minijinja::context! { function }],
            },
            minijinja::context! { role => "tool", content => "12 degrees" },
        ],
        add_generation_prompt => true,
    };
    let written = jinja.get_template("chat").unwrap().render(context).unwrap();
    let messages = [
        Message::system(tools_line(&["get_weather"])),
        Message::user("What is the weather in Oslo?"),
        Message::assistant(tool_call("get_weather", r#"{"city": "Oslo"}"#)),
        Message::tool("12 degrees"),
    ];
    assert_eq!(written, chat::prompt(&messages));
}

#[test]
fn the_shipped_model_passes_the_examination() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/models/toy-chat-q8_0.gguf");
    let done = Command::new(env!("CARGO_BIN_EXE_toy-chat")).arg("check").arg(shipped).output().unwrap();
    let (out, error) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{out}{error}");
    assert!(out.contains("capitals                  20 of  20"), "{out}");
}

#[test]
fn an_untrained_model_answers_too_but_wrongly() {
    let question = [Message::user("What is the capital of France?")];
    let reply = Speaker::open(&trained()).unwrap().answer(&question).unwrap();
    assert_ne!(reply, Reply::Words("The capital of France is Paris.".to_owned()));
}

#[test]
fn a_file_that_is_no_model_is_refused_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.gguf");
    std::fs::write(&path, [7; 4096]).unwrap();
    let error = gguf::read(&path).err().unwrap().to_string();
    assert!(error.contains("noise.gguf is not a model of this program"), "{error}");
}
