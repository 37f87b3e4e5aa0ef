//! Owns one question about a program: which loader does the kernel start it with? Landlock must permit
//! that file to be executed too.

#[cfg(target_os = "linux")]
use std::fs::File;
use std::io;
#[cfg(target_os = "linux")]
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::Error;

#[cfg(target_os = "linux")]
const PROGRAM_HEADER_INTERPRETER: u32 = 3;

/// The loader that the program names; none if it is linked statically.
pub fn interpreter(program: &Path) -> Result<Option<PathBuf>, Error> {
    let refused = |reason: String| Error::Program { path: program.display().to_string(), reason };
    read(program).map_err(|e| refused(e.to_string()))?.ok_or_else(|| {
        refused(
            "it does not begin as an ELF program for this machine does; scripts cannot be confined"
                .to_owned(),
        )
    })
}

#[cfg(not(target_os = "linux"))]
fn read(_program: &Path) -> io::Result<Option<Option<PathBuf>>> {
    Ok(Some(None))
}

/// `None` if it is no 64-bit little-endian ELF program.
#[cfg(target_os = "linux")]
fn read(program: &Path) -> io::Result<Option<Option<PathBuf>>> {
    const HEADER: usize = 64;
    let mut file = File::open(program)?;
    let mut header = [0; HEADER];
    if file.read_exact(&mut header).is_err() || header[..6] != *b"\x7fELF\x02\x01" {
        return Ok(None);
    }
    let offset = u64::from_le_bytes(field(&header, 32));
    let size = u64::from(u16::from_le_bytes(field(&header, 54)));
    let count = u64::from(u16::from_le_bytes(field(&header, 56)));
    if size < 56 {
        return Ok(None);
    }
    for at in 0..count {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(offset.saturating_add(at * size)))?;
        file.read_exact(&mut entry)?;
        if u32::from_le_bytes(field(&entry, 0)) == PROGRAM_HEADER_INTERPRETER {
            let (start, length) =
                (u64::from_le_bytes(field(&entry, 8)), u64::from_le_bytes(field(&entry, 32)));
            return name_at(&mut file, start, length).map(|name| Some(Some(name)));
        }
    }
    Ok(Some(None))
}

#[cfg(target_os = "linux")]
fn name_at(file: &mut File, start: u64, length: u64) -> io::Result<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    const LONGEST: u64 = 4096;
    let mut name = Vec::new();
    file.seek(SeekFrom::Start(start))?;
    file.take(length.min(LONGEST)).read_to_end(&mut name)?;
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    Ok(std::ffi::OsString::from_vec(name).into())
}

#[cfg(target_os = "linux")]
fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut found = [0; N];
    found.copy_from_slice(&bytes[at..at + N]);
    found
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_loader_of_this_program_exists_and_scripts_have_none() {
        let loader = interpreter(&std::env::current_exe().unwrap()).unwrap();
        assert!(loader.is_none_or(|loader| loader.exists()));
        let folder = crate::files::test_folder("elf");
        for (name, bytes) in [("script", &b"#!/bin/sh\nexit 0\n"[..]), ("short", b"\x7fELF"), ("empty", b"")]
        {
            std::fs::write(folder.join(name), bytes).unwrap();
            assert!(interpreter(&folder.join(name)).is_err(), "{name}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
