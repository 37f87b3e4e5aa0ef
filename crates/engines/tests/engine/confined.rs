//! What the launcher lets through and what it does not: attempts, honest work, and jobs that are wrong.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use libtest_mimic::{Failed, Trial};
use pontoon_engines::launcher::{FAILED as JOB_FAILED, Job, Limits, MARK, MODEL_REFUSED};
use pontoon_models::{Bundle, Format};

use crate::breakout::{ATTEMPTS, DONE, REFUSED, WORD};
use crate::scene::{TOY, chat, llama, said, toy, turn};

pub fn trials() -> Vec<Trial> {
    let attempts = ATTEMPTS.iter().map(|(name, _, everywhere)| {
        Trial::test(format!("break_out::{name}"), move || judge(name, *everywhere))
    });
    let others = [
        Trial::test("honest_work_goes_on_behind_the_launcher", honest_work),
        Trial::test("the_environment_is_what_the_job_says", environment),
        Trial::test("a_damaged_model_never_reaches_the_engine", damaged),
        Trial::test("jobs_that_are_wrong_say_why", wrong_jobs),
        llama("real_inference_is_confined", inference),
    ];
    attempts.chain(others).collect()
}

/// A folder with a secret, a model, a place to write and sockets outside.
struct Stage {
    folder: std::path::PathBuf,
    tcp: TcpListener,
    _outside: UnixListener,
}

impl Stage {
    fn set(name: &str) -> Stage {
        let folder = std::env::temp_dir().join(format!("pe-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        for inner in ["model", "write"] {
            fs::create_dir_all(folder.join(inner)).unwrap();
        }
        fs::write(folder.join("secret"), "secret").unwrap();
        fs::copy(toy(), folder.join("model/model.gguf")).unwrap();
        let outside = UnixListener::bind(folder.join("outside.sock")).unwrap();
        Stage { folder, tcp: TcpListener::bind("127.0.0.1:0").unwrap(), _outside: outside }
    }

    fn words(&self, name: &str) -> Vec<String> {
        let folder = self.folder.display().to_string();
        let (us, tcp) = (std::process::id().to_string(), self.tcp.local_addr().unwrap().to_string());
        vec![WORD.to_owned(), name.to_owned(), folder, us, tcp]
    }

    fn job(&self, name: &str) -> Job {
        let model = self.folder.join("model/model.gguf");
        let program = std::env::current_exe().unwrap();
        Job {
            arguments: self.words(name).into_iter().map(Into::into).collect(),
            environment: vec![("ONLY".into(), "this".into())],
            check: vec![bundle(&model)],
            // The program is built in a folder of its own, which the system's libraries are not in.
            read: vec![model, program.clone()],
            program,
            write: vec![self.folder.join("write")],
            limits: Limits::default(),
            user: None,
            parent: Some(std::process::id()),
            landlock_required: true,
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn bundle(model: &Path) -> Bundle {
    Bundle {
        dir: model.parent().unwrap().to_owned(),
        format: Format::Gguf,
        weights: vec![model.to_owned()],
        mmproj: None,
        chat_template: None,
        adapters: Vec::new(),
        draft: None,
        licenses: Vec::new(),
        defaults: Default::default(),
    }
}

fn launch(job: &Job) -> Output {
    launch_text(&serde_json::to_vec(job).unwrap())
}

fn launch_text(text: &[u8]) -> Output {
    let mut child = Command::new("/proc/self/exe")
        .args(["worker", "engine"])
        .env("SECRET", "of the supervisor")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text).unwrap();
    child.wait_with_output().unwrap()
}

fn told(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    format!("{}: {}", output.status, String::from_utf8_lossy(&both).trim())
}

fn judge(name: &'static str, everywhere: bool) -> Result<(), Failed> {
    let stage = Stage::set(name);
    let free = Command::new("/proc/self/exe").args(stage.words(name)).stdin(Stdio::null()).output()?;
    if everywhere && free.status.code() != Some(DONE) {
        return Err(format!("not possible even without a launcher: {}", told(&free)).into());
    }
    drop(stage);
    let stage = Stage::set(name);
    let confined = launch(&stage.job(name));
    let own_words = String::from_utf8_lossy(&confined.stdout).trim().to_owned();
    let kept = fs::metadata(stage.folder.join("model/model.gguf")).is_ok_and(|meta| meta.len() > 100_000);
    match confined.status.code() {
        Some(REFUSED) if kept => {
            println!("{name:<32} free: {}; confined: {own_words}", told(&free));
            Ok(())
        }
        _ => Err(format!("not refused: {}", told(&confined)).into()),
    }
}

/// What an engine does all day, in its place: read the model, listen, accept, answer, threads, files.
pub fn work(folder: &str) -> io::Result<()> {
    let model = fs::read(format!("{folder}/model/model.gguf"))?;
    let socket = format!("{folder}/write/engine.sock");
    let listener = UnixListener::bind(&socket)?;
    println!("listening");
    let server = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        stream.write_all(&[byte[0] + 1])
    });
    server.join().expect("the thread")?;
    let slot = format!("{folder}/write/slot.bin");
    fs::write(&slot, &model[..1000])?;
    fs::write(&slot, b"shorter")?;
    assert_eq!(fs::read(&slot)?, b"shorter");
    fs::remove_file(&slot)?;
    fs::remove_file(&socket)?;
    let environment: Vec<String> = std::env::vars().map(|(key, value)| format!("{key}={value}")).collect();
    println!("environment: {environment:?}; in {}", std::env::current_dir()?.display());
    Ok(())
}

fn work_behind_launcher(name: &str) -> Output {
    let stage = Stage::set(name);
    let job = stage.job("work");
    let socket = stage.folder.join("write/engine.sock");
    let client = std::thread::spawn(move || {
        for _ in 0..500 {
            if let Ok(mut stream) = UnixStream::connect(&socket) {
                stream.write_all(&[41]).unwrap();
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                return byte[0];
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        0
    });
    let output = launch(&job);
    assert_eq!(client.join().unwrap(), 42, "{}", told(&output));
    output
}

fn honest_work() -> Result<(), Failed> {
    let output = work_behind_launcher("work");
    println!("{}", told(&output));
    match output.status.code() {
        Some(DONE) => Ok(()),
        _ => Err(told(&output).into()),
    }
}

fn environment() -> Result<(), Failed> {
    let text = told(&work_behind_launcher("env"));
    assert!(text.contains(r#"environment: ["ONLY=this"]; in /"#), "{text}");
    Ok(())
}

fn damaged() -> Result<(), Failed> {
    let stage = Stage::set("damaged");
    let path = stage.folder.join("model/model.gguf");
    let mut bytes = fs::read(&path)?;
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    fs::write(&path, bytes)?;
    let output = launch(&stage.job("work"));
    println!("{}", told(&output));
    assert_eq!(output.status.code(), Some(MODEL_REFUSED), "{}", told(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains(MARK));
    assert!(output.stdout.is_empty(), "the engine was never started");
    Ok(())
}

fn wrong_jobs() -> Result<(), Failed> {
    let stage = Stage::set("wrong");
    let script = stage.folder.join("script");
    fs::write(&script, "#!/bin/sh\necho out\n")?;
    let job = stage.job("work");
    let cases = [
        ("not JSON", b"nonsense".to_vec(), "job"),
        ("a script", serde_json::to_vec(&Job { program: script, ..job.clone() })?, "ELF"),
        (
            "nothing there",
            serde_json::to_vec(&Job { program: "/no/such".into(), ..job.clone() })?,
            "/no/such",
        ),
        ("somebody else's child", serde_json::to_vec(&Job { parent: Some(1), ..job })?, "supervisor"),
    ];
    for (what, text, word) in cases {
        let output = launch_text(&text);
        println!("{what}: {}", told(&output));
        assert_eq!(output.status.code(), Some(JOB_FAILED), "{what}: {}", told(&output));
        assert!(told(&output).contains(word), "{what}: {}", told(&output));
        assert!(output.stdout.is_empty());
    }
    Ok(())
}

/// The kernel's own account of the real engine while it serves.
async fn inference(scene: crate::scene::Scene) {
    let runner = scene.runner().await;
    let lease = turn(&runner, TOY).await;
    assert_eq!(
        said(&chat(&lease, "What is the capital of France?", 20).await),
        "The capital of France is Paris."
    );
    let pid = runner.ps().await[0].pid.unwrap();
    let threads: Vec<_> = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten().collect();
    assert!(threads.len() > 1);
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).unwrap();
        for expected in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000", "CapBnd:"] {
            assert!(status.contains(expected), "{status}");
        }
    }
    assert_ne!(
        fs::read_link(format!("/proc/{pid}/ns/net")).unwrap(),
        fs::read_link("/proc/self/ns/net").unwrap(),
        "a network of its own, without interfaces"
    );
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(
        environment.contains("OMP_WAIT_POLICY=passive") && !environment.contains("CARGO"),
        "{environment}"
    );
    let log = runner.logs(TOY).await.unwrap().unwrap();
    let confined = log.iter().find(|line| line.text.contains("confined in")).expect("the launcher's line");
    println!("{}", confined.text);
    assert!(!log.iter().any(|line| line.text.contains("capital of France")), "no prompt in the log");
}
