//! A disk that gets full in the middle of a pull: one clear error, nothing lost, and the pull goes
//! on once there is room.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use pontoon_models::{Error, Progress, Store};
use pontoon_testbed::Scratch;

use super::{
    assert_same, client, name, packaged,
    proxy::{self, Plan},
    scratch,
    server::{Registry, ready},
};

const MIB: u64 = 1 << 20;

/// A file system of a few megabytes.
struct Small {
    path: PathBuf,
    _folder: Scratch,
}

impl Small {
    fn new() -> anyhow::Result<Self> {
        let folder = scratch();
        let path = folder.path().join("disk");
        fs::create_dir(&path)?;
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "none"]).arg(&path).output();
        let output = mount.context("no mount program")?;
        ensure!(output.status.success(), "mounting a small disk is not permitted here");
        Ok(Self { path, _folder: folder })
    }

    /// Fills it up; tells the file to remove again.
    fn fill(&self) -> PathBuf {
        let path = self.path.join("ballast");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 65536]).is_ok() {}
        while file.write_all(&[1]).is_ok() {}
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.path).status();
    }
}

fn disk() -> Option<Small> {
    match Small::new() {
        Ok(disk) => Some(disk),
        Err(error) => {
            pontoon_testbed::ready(Err(error));
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_gets_full_loses_nothing() {
    let (Some(registry), Some(disk)) = (ready(Registry::open()), disk()) else { return };
    let here = scratch();
    let (store, model) = packaged(&here, 8 << 20, "me/model");
    let plan = Arc::new(Plan::default());
    let port = proxy::start(registry.port, plan.clone()).await;
    let remote = name(&format!("127.0.0.1:{port}/me/model:1"));
    client().push(&store, "me/model", &remote, Progress::none()).await.unwrap();

    let other = Store::open(disk.path.join("store")).unwrap();
    let mut bytes = Vec::new();
    let earlier = scratch();
    let (earlier_store, earlier_model) = packaged(&earlier, 200_000, "me/earlier");
    earlier_store.export("me/earlier", &mut bytes).unwrap();
    other.load(&bytes[..]).unwrap();

    plan.down.store(0, Ordering::SeqCst);
    plan.stall_after.store(3 * MIB, Ordering::SeqCst);
    let (puller, into, from) = (client(), other.clone(), remote.clone());
    let pull = tokio::spawn(async move { puller.pull(&into, &from, Progress::none()).await });
    while plan.down.load(Ordering::SeqCst) <= 3 * MIB {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ballast = disk.fill();
    plan.stall_after.store(0, Ordering::SeqCst);
    let error = pull.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(error.to_string().contains("no space left"), "{error}");
    // What was there is whole and can be read, though the disk is full.
    let there = other.resolve("me/earlier").unwrap();
    assert_same(&there, &earlier_model);

    fs::remove_file(ballast).unwrap();
    plan.down.store(0, Ordering::SeqCst);
    assert_same(&client().pull(&other, &remote, Progress::none()).await.unwrap(), &model);
    let carried = plan.down.load(Ordering::SeqCst);
    assert!(carried < model.size() - MIB, "{carried} bytes came anew of {}", model.size());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_room_is_told_before_it_begins() {
    let (Some(registry), Some(disk)) = (ready(Registry::open()), disk()) else { return };
    let here = scratch();
    let (store, _) = packaged(&here, 24 << 20, "me/model");
    let remote = name(&registry.name("me/model:1"));
    client().push(&store, "me/model", &remote, Progress::none()).await.unwrap();
    let other = Store::open(disk.path.join("store")).unwrap();
    let error = client().pull(&other, &remote, Progress::none()).await.unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error:?}");
    assert!(Path::new(&other.root().join("partial")).read_dir().unwrap().next().is_none());
}
