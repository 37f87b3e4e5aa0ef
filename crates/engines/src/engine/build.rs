//! Owns the making of a `llama-server` from a source release: unpacking it within bounds, cmake, ninja.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;

use super::locate::in_path;
use crate::Error;

const MAX_ENTRIES: usize = 100_000;
const MAX_BYTES: u64 = 2 << 30;

/// What the build needs, and the Debian package that has it.
const TOOLS: [(&str, &str); 3] = [("cmake", "cmake"), ("ninja", "ninja-build"), ("c++", "g++")];

/// What the server is built without, and (x86-64) with: plain x86-64 is 3-8 times slower at prompts.
/// Never AMX: that code dies on hosts that announce it and do not permit it.
const OPTIONS: &[&str] = &[
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_CURL=OFF",
    "-DGGML_NATIVE=OFF",
];
const X86_OPTIONS: &[&str] =
    &["-DGGML_AVX=ON", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON", "-DGGML_BMI2=ON"];

/// Fails with the first tool that is missing.
pub fn tools() -> Result<(), Error> {
    for (tool, package) in TOOLS {
        if in_path(tool).is_none() {
            return Err(Error::MissingTool { tool, package });
        }
    }
    Ok(())
}

/// Unpacks what is below `inside` in the archive (after its one top folder) into `to`. Links and other
/// special entries are left out: a source tree needs none.
pub fn unpack(archive: &Path, inside: &str, to: &Path) -> Result<(), Error> {
    let file = File::open(archive).map_err(Error::file(archive, "read"))?;
    let refused = |reason: String| Error::Install { name: archive.display().to_string(), reason };
    let mut archive = tar::Archive::new(GzDecoder::new(file).take(MAX_BYTES * 2));
    let entries = archive.entries().map_err(|e| refused(e.to_string()))?;
    let (mut bytes, mut count) = (0u64, 0usize);
    for entry in entries {
        let mut entry = entry.map_err(|e| refused(e.to_string()))?;
        count += 1;
        bytes += entry.size();
        if count > MAX_ENTRIES || bytes > MAX_BYTES {
            return Err(refused(format!("it holds more than {MAX_ENTRIES} entries or {MAX_BYTES} bytes")));
        }
        let path = entry.path().map_err(|e| refused(e.to_string()))?.into_owned();
        if path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(refused(format!("it holds the path {}", path.display())));
        }
        let below: PathBuf = path.components().skip(1).collect();
        let Ok(below) = below.strip_prefix(inside) else { continue };
        let target = to.join(below);
        if entry.header().entry_type().is_file() {
            let folder = target.parent().unwrap_or(to);
            fs::create_dir_all(folder).map_err(Error::file(folder, "created"))?;
            let mut out = File::create(&target).map_err(Error::file(&target, "created"))?;
            std::io::copy(&mut entry, &mut out).map_err(Error::file(&target, "written"))?;
        }
    }
    match to.join("CMakeLists.txt").is_file() {
        true => Ok(()),
        false => Err(refused(format!("it has no {inside}/CMakeLists.txt"))),
    }
}

/// How a `llama-server` is built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kind {
    /// With the Vulkan back end.
    pub vulkan: bool,
    /// With all but the arithmetic optimised less, which saves a fifth of the time.
    pub quick: bool,
}

/// What turns the optimiser up again for ggml, where a quick build has turned it down. CMake reads it when the
/// project `ggml` begins.
const ARITHMETIC: &str = "set(CMAKE_CXX_FLAGS_RELEASE \"-O3 -DNDEBUG\")\n";

/// Builds `llama-server` of the tree in `source` and returns the program. `line` gets every line of
/// output.
pub fn build(source: &Path, work: &Path, kind: Kind, line: &mut dyn FnMut(&str)) -> Result<PathBuf, Error> {
    let Kind { vulkan, quick } = kind;
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(source).arg("-B").arg(work).args(["-G", "Ninja"]).args(OPTIONS);
    if cfg!(target_arch = "x86_64") {
        configure.args(X86_OPTIONS);
    }
    configure.arg(format!("-DGGML_VULKAN={}", if vulkan { "ON" } else { "OFF" }));
    if quick {
        let arithmetic = source.join("pontoon-ggml.cmake");
        fs::write(&arithmetic, ARITHMETIC).map_err(Error::file(&arithmetic, "written"))?;
        configure.arg("-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG");
        configure.arg(format!("-DCMAKE_PROJECT_ggml_INCLUDE={}", arithmetic.display()));
    }
    let hint = |error| if vulkan { hinted(error) } else { error };
    run(configure, line).map_err(hint)?;
    let mut make = Command::new("cmake");
    make.arg("--build").arg(work).args(["--target", "llama-server"]);
    run(make, line).map_err(hint)?;
    let program = work.join("bin/llama-server");
    match program.is_file() {
        true => Ok(program),
        false => Err(failed("the build ended without a llama-server".to_owned())),
    }
}

/// What a build with Vulkan lacks most often.
fn hinted(error: Error) -> Error {
    let Error::Install { name, reason } = error else { return error };
    let needs = "the Vulkan back end needs glslc, SPIRV-Headers, and Vulkan's headers with VK_EXT_layer_settings, \
        which Debian 12's (1.3.239) lack and Debian 13's (1.4.309) have";
    Error::Install { name, reason: format!("{reason}\n{needs}") }
}

fn run(mut command: Command, line: &mut dyn FnMut(&str)) -> Result<(), Error> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|e| failed(format!("cmake cannot be started: {e}")))?;
    let errors = child.stderr.take().map(|errors| {
        std::thread::spawn(move || {
            let mut tail = Vec::new();
            for text in BufReader::new(errors).lines().map_while(Result::ok) {
                tail.push(text);
                if tail.len() > 30 {
                    tail.remove(0);
                }
            }
            tail
        })
    });
    let mut last = Vec::new();
    if let Some(output) = child.stdout.take() {
        for text in BufReader::new(output).lines().map_while(Result::ok) {
            line(&text);
            last.push(text);
            if last.len() > 15 {
                last.remove(0);
            }
        }
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    let errors = errors.and_then(|thread| thread.join().ok()).unwrap_or_default();
    match status.success() {
        true => Ok(()),
        false => {
            Err(failed(format!("cmake ended with {status}:\n{}\n{}", last.join("\n"), errors.join("\n"))))
        }
    }
}

fn failed(reason: String) -> Error {
    Error::Install { name: "llama.cpp".to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn archive(folder: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
        let path = folder.join("a.tar.gz");
        let mut gz = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
        for (name, content) in entries {
            let mut header = tar::Header::new_gnu();
            // `set_path` would refuse what an attacker would not.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(content.len() as u64);
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o644);
            header.set_cksum();
            gz.write_all(header.as_bytes()).unwrap();
            gz.write_all(content).unwrap();
            gz.write_all(&vec![0; (512 - content.len() % 512) % 512]).unwrap();
        }
        gz.write_all(&[0; 1024]).unwrap();
        gz.finish().unwrap();
        path
    }

    #[test]
    fn only_the_wanted_folder_is_unpacked_and_nothing_leaves_it() {
        let folder = crate::files::test_folder("unpack");
        let good = archive(&folder, &[("top/vendor/x/CMakeLists.txt", b"hello"), ("top/setup.py", b"no")]);
        let to = folder.join("out");
        unpack(&good, "vendor/x", &to).unwrap();
        assert_eq!(fs::read(to.join("CMakeLists.txt")).unwrap(), b"hello");
        assert_eq!(fs::read_dir(&to).unwrap().count(), 1);
        let evil = archive(&folder, &[("top/../../evil", b"x")]);
        assert!(unpack(&evil, "", &folder.join("out2")).is_err());
        assert!(!folder.join("evil").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
