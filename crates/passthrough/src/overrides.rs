//! Which driver alone may have a device. Reading that takes the device's lock: while a driver waits for programs to let go
//! of the device, the kernel does not come back, and whoever reads cannot be killed. So another process reads.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use crate::Device;

/// How long one file may take.
const DEADLINE: Duration = Duration::from_secs(3);

/// Fills in what was said about each device's driver, and which devices the kernel is stuck with.
pub(crate) fn find(root: &Path, devices: &mut [Device]) {
    let file = |device: &Device| {
        root.join("sys/bus/pci/devices").join(device.address.to_string()).join("driver_override")
    };
    let files: Vec<PathBuf> = devices.iter().map(file).collect();
    let mut next = 0;
    while next < devices.len() {
        next += read(&files[next..], &mut devices[next..]);
        if let Some(device) = devices.get_mut(next) {
            device.stuck = files[next].exists();
            next += 1;
        }
    }
}

/// Reads files until one is not there or does not come back, and returns how many it has read.
fn read(files: &[PathBuf], devices: &mut [Device]) -> usize {
    let there = files.iter().take_while(|file| file.exists()).count();
    let mut command = Command::new("cat");
    command.args(&files[..there]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut cat) = command.spawn() else { return 0 };
    let Some(output) = cat.stdout.take() else { return 0 };
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    let mut seen = 0;
    while seen < there {
        let Ok(line) = told.recv_timeout(DEADLINE) else { break };
        let word = line.trim();
        devices[seen].driver_override = (!word.is_empty() && word != "(null)").then(|| word.to_owned());
        seen += 1;
    }
    let _ = cat.kill();
    if seen == there {
        let _ = cat.wait();
    }
    seen
}
